"""The package is what pyproject.toml says, and imports as a library should: quietly, lightly, under one name."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on")

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("manifolds", "layers", "optim")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def version() -> str:
    """By syntax tree, as setuptools reads it: a computed version would make it import torch to build."""
    tree = ast.parse((ROOT / "torchriemann" / "__init__.py").read_text())
    values = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__version__"]
    ]
    assert len(values) == 1
    return values[0]


def run(code: str, *flags: str, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, *flags, "-c", code]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def error_of(code: str, cwd: Path) -> str:
    """The last line that a failing run prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode != 0
    return done.stderr.strip().splitlines()[-1]


def test_packages_are_those_of_the_tree():
    found = {"torchriemann", "torchriemann.testing"}  # rglob would enter the links on some Pythons
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            found.add(".".join(["torchriemann", *path.relative_to(ROOT).parent.parts]))
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(found)


@pytest.mark.parametrize("name", PROJECT["tool"]["setuptools"]["packages"])
def test_package_has_an_init(name):
    parent, *below = name.split(".")
    folder = ROOT.joinpath(*below) if below and below[0] in FOLDERS else ROOT.joinpath(parent, *below)
    assert (folder / "__init__.py").is_file()


@pytest.mark.parametrize("folder", FOLDERS)
def test_links_lead_to_the_folders(folder):
    link = ROOT / "torchriemann" / folder
    if not link.is_symlink():
        pytest.skip("this checkout turned links into text files; only the type checkers need them")
    assert os.readlink(link) == f"../{folder}"


def test_version_is_a_literal():
    assert re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc|\.dev)\d+)?", version())


def test_citation_has_the_version():
    assert f"\nversion: {version()}\n" in (ROOT / "CITATION.cff").read_text()


def test_every_requirement_is_pinned():
    project = PROJECT["project"]
    requirements = [*project["dependencies"], *sum(project["optional-dependencies"].values(), [])]
    names = {re.split(r"[^\w.-]", requirement)[0] for requirement in requirements}
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE))
    assert names <= pins.keys()
    assert not [pin for pin in pins.values() if "+" in pin], "a local version exists on one index only"


def test_import_is_light():
    # Beyond what geoopt brings, and torch through it: a torch built for GPUs may load triton by itself.
    code = "import sys, geoopt; before = set(sys.modules); import torchriemann; print(*set(sys.modules) - before)"
    assert not {"hypothesis", "matplotlib", "torch.distributed.tensor", "triton"} & set(run(code, cwd=ROOT).split())


def test_import_gives_no_warning():  # geoopt alone gives some seventy
    run("import torchriemann, torchriemann.manifolds, torchriemann.layers, torchriemann.optim", "-W", "error", cwd=ROOT)


@pytest.mark.parametrize("folder", FOLDERS)
def test_no_bare_name_is_claimed(folder, tmp_path):
    # From elsewhere: in the checkout itself the current folder makes every one of its folders importable.
    code = f"from importlib.util import find_spec; print(find_spec({folder!r}))"
    assert run(code, cwd=tmp_path).strip() == "None"


@pytest.mark.parametrize(
    "code",
    ["import manifolds", "from layers import GrassmannClassifier", "import optim", "import torchriemann, manifolds"],
)
def test_a_folder_of_the_checkout_says_its_right_name(code):
    folder = re.findall(r"manifolds|layers|optim", code)[0]
    assert re.match(rf"ImportError: .*`from torchriemann\.{folder} import \w+`", error_of(code, ROOT))


@pytest.mark.parametrize("left", ["text", "nothing"])
def test_a_copy_without_links_says_what_to_do(left, tmp_path):
    package = tmp_path / "torchriemann"
    package.mkdir()
    (package / "__init__.py").write_text((ROOT / "torchriemann" / "__init__.py").read_text())
    for folder in FOLDERS if left == "text" else ():
        (package / folder).write_text(f"../{folder}")
    # An editable install of the checkout would lend its sub-packages.
    code = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if '_EditableFinder' not in str(f)]; import torchriemann"
    )
    assert re.match(r"ImportError: .*`pip install \.`", error_of(code, tmp_path))
