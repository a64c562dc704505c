# Every target sets up what it needs: Python 3, pip and make are enough. Stamps inside the environment remember what is
# installed, so a repeated call goes straight to work, and deleting .venv forgets all of it.
PYTHON ?= python3
# `make test TORCH=2.12.1` is for another torch than the pinned one, in an environment of its own.
TORCH  ?=
VENV   := .venv$(addprefix -torch-,$(TORCH))
BIN    := $(VENV)/bin

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export MPLBACKEND := Agg
# A notice of the documentation theme about other programs.
export NO_MKDOCS_2_WARNING := 1

.PHONY: help demo scale-out test test-slow lint format wheel bench docs pictures clean
.NOTPARALLEL: # two pips in one environment would trip over each other

help:
	@echo "make demo       a classifier of subspaces on real data, with a figure"
	@echo "make scale-out  a head of subspaces over two processes, against one"
	@echo "make test       the default test suite; make test TORCH=2.12.1: with another torch, of some gigabytes"
	@echo "make test-slow  the tests marked slow"
	@echo "make lint       ruff, pyright, import contracts"
	@echo "make format     let ruff rewrite the code"
	@echo "make wheel      build sdist and wheel, check the wheel, try it in a fresh environment"
	@echo "make bench      the benchmarks"
	@echo "make docs       build the documentation into site/; strict"
	@echo "make pictures   draw the pictures of the pages again"
	@echo "make clean      remove what was built; .venv stays, it takes minutes to make"

demo: $(VENV)/.examples
	$(BIN)/python examples/01_grassmann_classifier.py

scale-out: $(VENV)/.examples
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node 2 examples/03_scale_out.py

test: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --durations=10 -m "not slow"

test-slow: $(VENV)/.test
	$(BIN)/python -m pytest -q -n 2 --dist worksteal -m slow --timeout 1800

# pyright reads the tests, examples and pages' scripts too, so it needs what they import.
lint: $(VENV)/.test $(VENV)/.docs $(VENV)/.lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.lint
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

# `build` makes the sdist and then the wheel from the sdist, so a file that the sdist lacks is missed here. The old
# build folder goes first: setuptools would pack what a former build left in it.
wheel: $(VENV)/.lint
	rm -rf build dist
	@echo "== building the sdist, and the wheel from it"
	@mkdir dist
	@$(BIN)/python -m build --outdir dist . > dist/build.log 2>&1 || { cat dist/build.log; exit 1; }
	$(BIN)/python .ci/check_wheel.py dist/*.whl

bench: $(VENV)/.test $(VENV)/.bench
	@set -e; for script in benchmarks/*.py; do \
		case $$script in */common.py|*/_*) continue;; esac; \
		echo "== $$script"; $(BIN)/python $$script; \
	done

# The pages name what the library has: examples, results, laws and signatures are read while the site is built.
docs: $(VENV)/.docs
	$(BIN)/mkdocs build --quiet --strict
	$(BIN)/python .ci/check_site.py
	@echo "== the site is in site/index.html"

pictures: $(VENV)/.docs
	@set -e; for script in docs/pictures/*.py; do \
		case $$script in */common.py) continue;; esac; \
		echo "== $$script"; $(BIN)/python $$script; \
	done

clean:
	rm -rf build dist site torchriemann.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name '.venv*' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.examples: EXTRAS := examples
$(VENV)/.test:     EXTRAS := test,examples
$(VENV)/.lint:     EXTRAS := lint
$(VENV)/.docs:     EXTRAS := docs
$(VENV)/.bench:    EXTRAS := bench
$(VENV)/.examples $(VENV)/.bench $(VENV)/.test $(VENV)/.lint $(VENV)/.docs: pyproject.toml $(VENV)/constraints.txt | $(BIN)/python
	@echo "== installing torchriemann[$(EXTRAS)] into $(VENV)"
	@$(BIN)/python -m pip install -q -c $(VENV)/constraints.txt -e ".[$(EXTRAS)]"
	@touch $@

# Another torch brings the triton that it was built with.
$(VENV)/constraints.txt: constraints.txt | $(BIN)/python
	@sed -e '' $(if $(TORCH),-e 's/^torch==.*/torch==$(TORCH)/' -e '/^triton==/d') constraints.txt > $@

$(BIN)/python:
	@echo "== making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
