"""The pages and the docstrings: every block of code runs, every public name is documented, every picture is drawn."""

import dataclasses
import importlib.util
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchriemann
from torchriemann import layers, manifolds, optim, testing

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
PACKAGES = {"manifolds": manifolds, "layers": layers, "optim": optim, "testing": testing}


def load(path: Path, name: str):
    """A file as a module that pickle can find again."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


markup = load(DOCS / "markup.py", "markup")  # by the name that the others import
generated = load(DOCS / "generated.py", "docs_generated")

# ---- the code on the pages ------------------------------------------------------------------------------------

BLOCK = re.compile(r"^(?P<skip><!-- not run: .+ -->\n\n?)?```python\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path) -> list[str]:
    """The python blocks of a page but those under ``<!-- not run: REASON -->``."""
    return [m["code"] for m in BLOCK.finditer(page.read_text()) if not m["skip"]]


WITH_CODE = [page for page in PAGES if blocks(page)]


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda p: p.relative_to(DOCS).as_posix())
def test_code_of_a_page_runs(page, tmp_path):
    """The blocks of a page are one program, from top to bottom; their assertions are the test."""
    name = "page_" + re.sub(r"\W", "_", page.relative_to(DOCS).with_suffix("").as_posix())
    path, code = tmp_path / f"{name}.py", "\n".join(blocks(page))
    path.write_text(code)
    if "import pyriemann" in code:
        pytest.importorskip("pyriemann")
    torch.manual_seed(0)
    try:
        load(path, name)
    finally:
        sys.modules.pop(name, None)
        if torch.distributed.is_initialized():  # a page that failed before its end
            torch.distributed.destroy_process_group()


def test_every_block_is_collected():
    """A fence that the collector does not know, such as ```py, would be a block that nobody runs."""
    for page in PAGES:
        text = page.read_text()
        fences = len(re.findall(r"^\s*```\s*\{?\.?(?:py|python|python3|pycon)\b", text, flags=re.MULTILINE))
        assert fences == len(list(BLOCK.finditer(text))), page


# ---- the pages ------------------------------------------------------------------------------------------------


SCRIPTS = sorted(p for p in (DOCS / "pictures").glob("*.py") if p.stem != "common")


def navigation() -> list[str]:
    return re.findall(r"^\s+- (?:.+: )?([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE)


def test_navigation_names_the_pages():
    listed = navigation()
    assert len(listed) == len(set(listed))
    assert set(listed) == {page.relative_to(DOCS).as_posix() for page in PAGES}


def test_pictures_are_shown_and_have_their_script():
    shown = {Path(p).name for page in PAGES for p in re.findall(r"!\[[^\]]+\]\((\S*pictures/\S+)\)", page.read_text())}
    drawn = {p.name for p in (DOCS / "pictures").iterdir() if p.suffix in (".svg", ".png")}
    assert shown == drawn
    assert {p.stem for p in SCRIPTS} == {Path(name).stem for name in drawn}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_picture_can_be_drawn_again(script, tmp_path):
    code = (
        "import runpy, sys, pathlib; sys.path.insert(0, sys.argv[1]); import common; "
        "common.HERE = pathlib.Path(sys.argv[3]); runpy.run_path(sys.argv[2], run_name='__main__')"
    )
    command = [sys.executable, "-c", code, str(script.parent), str(script), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [p.stem for p in tmp_path.iterdir()] == [script.stem]


# ---- the generated parts --------------------------------------------------------------------------------------


def test_gallery_has_every_example():
    text = generated.gallery()
    scripts = generated.example_scripts()
    assert len(scripts) >= 2
    for script in scripts:
        assert script.read_text().strip().splitlines()[-1] in text
        assert f"python examples/{script.name}" in text
    for figure in generated.example_figures():
        assert f"(figures/{figure.name})" in text


def test_benchmarks_show_every_line_and_loss():
    text = generated.benchmarks()
    for path in (ROOT / "benchmarks" / "results").glob("*.json"):
        for line in json.loads(path.read_text()).get("lines", []):
            assert line["name"].replace("|", r"\|") in text, path.name
    assert generated._ratio({"ratio": 0.926}) == "0.93 (slower)"
    assert generated._ratio(25.91) == "**26**"
    assert generated._ratio({"peer": "pymanopt", "speed": 0.5, "iterations": 2}) == "0.5 (slower) against pymanopt"
    assert "Interleaved" in generated.method()


def test_a_new_result_of_another_form_appears(tmp_path):
    path = tmp_path / "new_claim.json"
    contender = {"median_ms": 2.0, "q1_ms": 1.5, "q3_ms": 2.5}
    ours, peer = contender, {**contender, "median_ms": 1.0}
    timed = {"name": "a | b", "contenders": {"ours": ours, "peer": peer}, "ratios": {"peer": {"ratio": 0.5}}}
    path.write_text(json.dumps({"environment": {"cpu": "x"}, "lines": [timed, {"name": "c", "error": 1e-7}]}))
    text = generated.result(path)
    assert "| **a \\| b** | ours | 2 [1.5, 2.5] |  |\n|  | peer | 1 [1.5, 2.5] | 0.5 (slower) |" in text
    assert "| c | 1.0e-07 |" in text


def test_laws_are_listed():
    text = generated.laws()
    assert f"{len(testing.LAWS)} laws." in text
    text = text.replace("<wbr>", "")
    assert all(f"<code>{name}</code>" in text and law.__doc__ for name, law in testing.LAWS.items())


# ---- docstrings -----------------------------------------------------------------------------------------------

SHAPE = re.compile(r"\*B|\bN,|shape|Shape|batch|0-dim|scalar|``->|dimension")
SOURCE = re.compile(r"arXiv:\d{4}\.\d{4,5}|arXiv:[a-z-]+/\d{7}|doi 10\.\d+|[A-Z][\w-]+ (?:and \w+ )?(?:\d{4}|and )")


def public(package: str) -> dict:
    """What a package exports: the names imported as themselves, and those that its ``__init__`` defines."""
    return {name: getattr(PACKAGES[package], name) for name in generated.public_names(package)}


EVERYTHING = [(package, name) for package in PACKAGES for name in public(package)]
# Beside classes and functions there are values, such as the dictionary of laws; `help` does not ask those.
CODE = [(p, n) for p, n in EVERYTHING if inspect.isclass(public(p)[n]) or inspect.isfunction(public(p)[n])]
SPACES = [n for n, c in public("manifolds").items() if inspect.isclass(c) and issubclass(c, manifolds.Manifold)]


def own_methods(cls) -> dict:
    """Public methods and properties that the class itself defines; a function may be the default of a field."""
    fields = {f.name for f in dataclasses.fields(cls)} if dataclasses.is_dataclass(cls) else set()
    members = {n: getattr(m, "__func__", m) for n, m in vars(cls).items() if not n.startswith("_") and n not in fields}
    return {n: m for n, m in members.items() if inspect.isfunction(m) or isinstance(m, property)}


def wants_tensors(function) -> bool:
    """Whether an argument is a tensor of more than one element's meaning: annotated as Tensor, and no option."""
    parameters = inspect.signature(function).parameters.values()
    return any(p.annotation in ("Tensor", "Tensor | None", torch.Tensor) for p in parameters)


def test_public_names_are_found():
    assert {"Sphere", "Manifold"} <= set(public("manifolds")) and "LAWS" in public("testing")
    top = {n for n, v in vars(torchriemann).items() if inspect.isclass(v)}
    assert top <= set(public("manifolds")) | set(public("layers")) | set(public("optim"))


@pytest.mark.parametrize(("package", "name"), CODE)
def test_docstring_of(package, name):
    value = public(package)[name]
    doc = inspect.getdoc(value) or ""
    assert len(doc) > 30, f"{name} has no docstring"
    if inspect.isfunction(value) and package != "testing" and wants_tensors(value):
        assert SHAPE.search(doc) or "gradient" in doc, f"{name} states no shape"
    if not inspect.isclass(value):
        return
    for method, function in own_methods(value).items():
        assert (getattr(function, "__doc__", None) or "").strip(), f"{name}.{method} has no docstring"
    if package == "optim" and issubclass(value, torch.optim.Optimizer):
        assert SOURCE.search(doc), f"{name} cites no source"
    if package == "layers" and "forward" in vars(value):
        assert SHAPE.search(doc) and "Raises" in doc, f"{name} states no shapes or no errors"


@pytest.mark.parametrize("name", SPACES)
def test_manifold_states_shapes_and_source(name):
    cls = public("manifolds")[name]
    text = inspect.getdoc(cls) + "".join(inspect.getdoc(m) or "" for m in own_methods(cls).values())
    assert SHAPE.search(inspect.getdoc(cls)), f"{name}: its docstring states no shape of a point"
    if name not in ("Manifold", "Euclidean"):
        assert SOURCE.search(text) or re.search(r"of the factors?|each factor|of `?\w+`? ", text), f"{name}: no source"


def test_reference_has_every_public_name():
    source = "\n".join(generated.fill(page.read_text()) for page in PAGES)
    asked = re.findall(r"^::: torchriemann\.(\w+)\.(?:\w+\.)?(\w+)$", source, flags=re.MULTILINE)
    assert sorted(asked) == sorted(set(asked)), "a name that is documented twice has two addresses"
    assert set(asked) >= set(EVERYTHING)


def test_docstrings_become_markdown():
    convert = markup.to_markdown
    assert convert("<x, u> at *B with `x*y` of [x, Q]") == r"&lt;x, u> at \*B with `x*y` of &#91;x, Q&#93;"
    assert convert(r"an :math:`S_c` of ``*B,d``") == "an $S_c$ of ``*B,d``"
    assert convert("A.\n\n.. math:: a = b, \\quad\n    c = d\n\nE.").startswith("A.\n\n$$\n\\begin{align*}\na &= b,")
    assert convert("A.\n\n>>> f(1)\n2") == "A.\n\n```pycon\n>>> f(1)\n2\n```"
    assert convert("a **word** of **kwargs") == r"a **word** of \*\*kwargs"
    assert convert("Args:\n    a, b: as in\n        torch.") == (
        "Args:\n    a: as in\n        torch.\n    b: as in\n        torch."
    )
    assert convert("See arXiv:2011.13699.") == "See [arXiv:2011.13699](https://arxiv.org/abs/2011.13699)."
