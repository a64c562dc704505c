"""Compare a wheel with the tree it was built from, then use it from a fresh environment outside the checkout.

Run by `make wheel`. The source folders stand at the repository's root and reach the wheel through a mapping, so a file
can be left out, packed twice through a link, or land under a top-level name of its own, and nothing else would notice.
"""

import subprocess
import sys
import sysconfig
import tempfile
import venv
import zipfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

SMOKE = """
import sys
from pathlib import Path

import torch
import torchriemann, torchriemann.layers, torchriemann.optim
from torchriemann.manifolds import Grassmann

origin = Path(torchriemann.__file__).resolve()
assert Path(sys.prefix).resolve() in origin.parents, f"imported {origin}, not the wheel"
assert (origin.parent / "py.typed").is_file()

manifold = Grassmann()
x = manifold.random(7, 3, dtype=torch.float64)
assert manifold.check_point_on_manifold(x)
u = manifold.proju(x, torch.ones_like(x))
y = manifold.expmap(x, 0.1 * u / manifold.norm(x, u))
assert manifold.check_point_on_manifold(y)
assert abs(manifold.dist(x, y).item() - 0.1) < 1e-6, manifold.dist(x, y)
print(f"torchriemann {torchriemann.__version__}, as installed: a geodesic of length 0.1 has {manifold.dist(x, y):.6f}")
"""


def files_of_the_tree() -> dict[str, Path]:
    """What the wheel has to hold, by its name in the wheel."""
    package = ROOT / "torchriemann"
    own = [*package.glob("*.py"), *(package / "testing").rglob("*.py"), package / "py.typed"]
    files = {f"torchriemann/{path.relative_to(package).as_posix()}": path for path in own}
    for folder in ("manifolds", "layers", "optim"):
        for path in (ROOT / folder).rglob("*.py"):
            files[f"torchriemann/{path.relative_to(ROOT).as_posix()}"] = path
    return files


def complaints(wheel: Path) -> list[str]:
    expected = files_of_the_tree()
    found = []
    with zipfile.ZipFile(wheel) as archive:
        packed = Counter(name for name in archive.namelist() if not name.endswith("/"))
        found += [f"packed {count} times: {name}" for name, count in packed.items() if count > 1]
        names = {name for name in packed if not name.split("/")[0].endswith(".dist-info")}
        found += [f"missing: {name}" for name in sorted(expected.keys() - names)]
        found += [f"not wanted: {name}" for name in sorted(names - expected.keys())]
        for name in sorted(names & expected.keys()):
            if archive.read(name) != expected[name].read_bytes():
                found.append(f"differs from the tree: {name}")
        top_level = next(name for name in packed if name.endswith(".dist-info/top_level.txt"))
        if (claimed := archive.read(top_level).decode().split()) != ["torchriemann"]:
            found.append(f"claims the import names {claimed}")
    return found


def use(wheel: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "env"
        venv.create(home, symlinks=True)
        python = home / "bin" / "python"
        (site,) = home.glob("lib/python*/site-packages")
        # The running environment's pip installs into the fresh one, which saves unpacking a second pip.
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", str(wheel)]
        subprocess.run(pip, check=True, cwd=folder)
        # The dependencies are lent by the running environment: torch alone would take minutes to install again. A
        # folder named in a .pth file has its own .pth files left unread, so the editable install of the checkout,
        # which works through one, stays out of sight.
        (site / "lent.pth").write_text(f"{sysconfig.get_path('purelib')}\n{sysconfig.get_path('platlib')}\n")
        # -I: neither PYTHONPATH nor the current folder may lead back to the checkout.
        subprocess.run([str(python), "-I", "-c", SMOKE], check=True, cwd=folder)


def main() -> None:
    (wheel,) = (Path(argument).resolve() for argument in sys.argv[1:])
    if found := complaints(wheel):
        sys.exit("\n".join([f"{wheel.name}:", *found]))
    print(f"{wheel.name} holds the {len(files_of_the_tree())} files of the tree and nothing else")
    use(wheel)


if __name__ == "__main__":
    main()
