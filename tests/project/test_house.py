"""What holds of every file of the library: its length, the direction of imports, and what is defined once."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("manifolds", "layers", "optim")
LINES = 400
FILES = sorted(path for folder in (*FOLDERS, "torchriemann") for path in (ROOT / folder).rglob("*.py"))
ONCE = ("dot", "square", "sym", "HALF_DTYPES")  # on the host; kernels have their own for the device


@cache
def syntax(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "torchriemann" else ("torchriemann", *parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in FILES}  # a folder and the link to it are one module


@pytest.mark.parametrize("name", MODULES)
def test_a_file_is_read_in_one_sitting(name):
    lines = len(MODULES[name].read_text().splitlines())
    assert lines <= LINES, f"{name} has {lines} lines; above {LINES} it holds two subjects"


# ---- imports ----------------------------------------------------------------------------------------------------


def run_on_import(node: ast.AST):
    """The statements that run when a module is imported: not those of functions, nor of `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from (found for other in child.orelse for found in (other, *run_on_import(other)))
            continue
        yield child
        yield from run_on_import(child)


def imported(name: str) -> set[str]:
    """The modules of the library that a module names. Its own package and those above it are running already, and what
    it takes out of a package is looked for there: the package itself counts where it is no module."""
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]
    found: set[str] = set()
    for node in run_on_import(syntax(MODULES[name])):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{source}.{alias.name}"
                found.add(inner if inner in MODULES else source)
    return {other for other in found if other in MODULES and not f"{name}.".startswith(f"{other}.")}


def circles(edges: dict[str, set[str]]) -> list[set[str]]:
    """The strongly connected components of more than one module: each reaches all others."""
    reached: dict[str, set[str]] = {}
    for start in edges:
        seen, waiting = set(), list(edges[start])
        while waiting:
            node = waiting.pop()
            if node not in seen:
                seen.add(node)
                waiting += edges[node]
        reached[start] = seen
    inside = {frozenset({b for b in reached[a] if a in reached[b]}) for a in edges if a in reached[a]}
    return [set(circle) for circle in inside]


def test_circles_are_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}, "e": set()}) == [{"a", "b", "c"}]
    assert not circles({"a": {"b", "c"}, "b": {"c"}, "c": set()})


def test_imports_are_seen():
    named = imported("torchriemann.manifolds.constant_curvature.lorentz")
    assert {"torchriemann.manifolds.operation", "torchriemann.manifolds.functional.lorentz"} <= named


def test_no_module_imports_itself_by_way_of_others():
    assert not circles({name: imported(name) for name in MODULES})


# ---- one definition ---------------------------------------------------------------------------------------------


def defined(path: Path):
    """The names of functions and variables of a module, and whether a kernel's compiler reads them."""
    for node in syntax(path).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name, any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from ((target.id, False) for target in targets if isinstance(target, ast.Name))


@pytest.mark.parametrize("wanted", ONCE)
def test_is_defined_once(wanted):
    homes = [
        str(path.relative_to(ROOT))
        for path in FILES
        if path.relative_to(ROOT).parts[0] in FOLDERS
        for name, on_device in defined(path)
        if name.lstrip("_") == wanted and not on_device
    ]
    assert len(homes) == 1, homes
