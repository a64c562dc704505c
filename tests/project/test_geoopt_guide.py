"""The guide for those who come from geoopt: its code runs, its tables are true (geoopt 0.5.1)."""

import re
from pathlib import Path

import geoopt
import pytest
import torch
from torch import nn

import torchriemann
from torchriemann import manifolds, optim
from torchriemann.manifolds import ManifoldParameter, Sphere
from torchriemann.manifolds.frames.stiefel import Stiefel

GUIDE = Path(__file__).parents[2] / "docs" / "geoopt.md"


def blocks():
    return re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("number", range(len(blocks())))
def test_code_of_the_guide_runs(number):
    torch.manual_seed(0)
    exec(compile(blocks()[number], f"{GUIDE.name}, block {number}", "exec"), {"__name__": "guide"})


def table_rows():
    names = GUIDE.read_text().split("## Names")[1].split("### Curvature")[0]
    return re.findall(r"^\| (`.*?) \|(.*?)\|", names, re.MULTILINE)


def test_the_guide_names_what_exists():
    known = {name for module in (torchriemann, manifolds, optim) for name in dir(module)}
    counterpart = {}
    for theirs, ours in table_rows():
        for name in re.findall(r"`(?:optim\.|samplers\.|manifold\.)?(\w+)", theirs):
            counterpart[name] = ours.strip()
        for name in re.findall(r"`(?:optim\.)?(\w+)", ours):
            assert name in known or name == "isinstance", name
    assert {name for name in dir(geoopt.manifolds) if isinstance(getattr(geoopt.manifolds, name), type)} - set(
        counterpart
    ) == {
        "Manifold",
        "PoincareBallExact",
        "SphereProjectionExact",
        "StereographicExact",
        "StereographicProductManifold",
    }
    no_counterpart = {name for name, ours in counterpart.items() if not ours}
    assert not no_counterpart & set(dir(manifolds)) and not no_counterpart & set(dir(optim))


def curvature(m, x, u, v):
    """From small geodesic triangles: d^2(exp(hu), exp(hv)) = h^2 |u - v|^2 - K h^4/3 + O(h^6), u, v orthonormal."""
    h = 0.02
    d2 = sum(m.dist(m.expmap(x, s * h * u), m.expmap(x, s * h * v)).item() ** 2 for s in (1, -1)) / 2
    return 3 * (2 * h * h - d2) / h**4


@pytest.mark.parametrize(
    "manifold, K",
    [
        (geoopt.PoincareBall(0.7), -0.7),
        (geoopt.Stereographic(0.7), 0.7),
        (geoopt.Stereographic(-0.7), -0.7),
        (geoopt.SphereProjection(0.7), 0.7),
        (geoopt.Lorentz(2.0), -0.5),
        (geoopt.Scaled(geoopt.PoincareBall(0.7), 2.0), -0.175),
    ],
    ids=str,
)
def test_curvature_conventions_of_the_guide(manifold, K):
    u, v = torch.eye(3, dtype=torch.float64)[1:]
    x = torch.zeros(3, dtype=torch.float64)
    if manifold.name == "Lorentz":
        x[0] = 2.0**0.5
    else:  # at the centre of a ball |u|_x = 2 |u|; under `Scaled` by its base metric, which measures its own vectors
        u, v = u / 2, v / 2
    assert abs(curvature(manifold, x, u, v) - K) < 1e-2


# ---- single sentences of the guide ------------------------------------------------------------------------------


def test_retractions_of_the_table():
    g = torch.Generator().manual_seed(0)
    m = Stiefel(retraction="qr")
    x = m.random(6, 2, generator=g, dtype=torch.float64)
    u = m.random_tangent(x, generator=g)
    torch.testing.assert_close(geoopt.EuclideanStiefel().retr(x, u), m.retr(x, u))
    torch.testing.assert_close(geoopt.EuclideanStiefelExact().retr(x, u), Stiefel(retraction="exp").retr(x, u))
    canonical, theirs = Stiefel(0.5), geoopt.CanonicalStiefel()
    torch.testing.assert_close(theirs.inner(x, u, x), canonical.inner(x, u, x))
    torch.testing.assert_close(theirs.egrad2rgrad(x, u + x), canonical.egrad2rgrad(x, u + x))
    assert isinstance(geoopt.Stiefel(), geoopt.CanonicalStiefel)  # pyright: ignore[reportAbstractUsage]


def test_tangent_vectors_of_scaled():
    x, y = torch.eye(3, dtype=torch.float64)[:2]
    theirs, ours = geoopt.Scaled(geoopt.Sphere(), 2.0), manifolds.Scaled(Sphere(), 2.0)
    torch.testing.assert_close(theirs.dist(x, y), ours.dist(x, y))
    torch.testing.assert_close(theirs.logmap(x, y), 2 * ours.logmap(x, y))
    torch.testing.assert_close(theirs.inner(x, y), geoopt.Sphere().inner(x, y))


def test_manifolds_of_geoopt_are_equal_only_to_themselves():
    assert geoopt.Sphere() != geoopt.Sphere() and Sphere() == Sphere()
    model = nn.ParameterList(geoopt.ManifoldParameter(torch.eye(3)[i], manifold=geoopt.Sphere()) for i in range(2))
    assert len(optim.param_groups(model)) == 2


def test_checkpoints_load_both_ways():
    theirs, ours = nn.Module(), nn.Module()
    theirs.weight = geoopt.ManifoldParameter(torch.eye(3)[:1], manifold=geoopt.Sphere())
    ours.weight = ManifoldParameter(torch.eye(3)[1:2], Sphere())
    theirs.load_state_dict(ours.state_dict())
    assert torch.equal(theirs.weight, ours.weight)
    theirs.weight.data.neg_()
    ours.load_state_dict(theirs.state_dict())
    assert torch.equal(theirs.weight, ours.weight)


def test_closures_of_line_searches():
    x = torch.tensor([0.6, 0.8])
    theirs = geoopt.ManifoldParameter(x.clone(), manifold=geoopt.Sphere())
    ours = ManifoldParameter(x.clone(), Sphere())

    def closure(p, optimizer):
        optimizer.zero_grad()
        loss = p[0]
        loss.backward()
        return loss

    search, solver = geoopt.optim.RiemannianLineSearch([theirs]), optim.RiemannianLBFGS([ours])
    with pytest.raises(RuntimeError, match="requires grad"):
        search.step(lambda: closure(theirs, search))
    solver.step(lambda: closure(ours, solver))
    assert ours[0] < -0.999


def test_products_hold_factors_of_one_library():
    with pytest.raises(ValueError, match=r"Product: factors\[1\] must be an instance of Manifold.*got PoincareBall"):
        manifolds.Product((Sphere(), geoopt.PoincareBall()), ((3,), (2,)))
    with pytest.raises((AttributeError, TypeError), match="Sphere"):
        geoopt.ProductManifold((Sphere(), 3), (geoopt.PoincareBall(), 2))


def test_sparse_gradients_raise():
    table = nn.Embedding(5, 3, sparse=True)
    table.weight = ManifoldParameter(Sphere().random(5, 3), Sphere())
    table(torch.tensor([1, 2])).sum().backward()
    with pytest.raises(ValueError, match="sparse"):
        optim.RiemannianSGD(table.parameters()).step()


# A call of geoopt's, and the expression with which the remark begins.
WRITTEN = re.findall(r"^\| `manifold\.(\w+\(.*?\))` \|[^|]*\| `(\w+\(.*?\))`", GUIDE.read_text(), re.MULTILINE)


@pytest.mark.parametrize("K", [-0.7, -1.0, 0.6])
def test_operations_of_the_table_as_they_are_written(K):
    g = torch.Generator().manual_seed(0)
    ours, theirs = manifolds.Stereographic(K), geoopt.Stereographic(K).double()
    theirs.k = nn.Parameter(torch.tensor(K, dtype=torch.float64), requires_grad=False)  # which was rounded to float32
    x, y, p, u = (ours.from_normal(0.7 * torch.randn(20, 4, generator=g, dtype=torch.float64)) for _ in range(4))
    m, w, a = (torch.randn(*size, 4, generator=g, dtype=torch.float64) for size in ((3,), (), (20,)))
    r = torch.tensor(0.7, dtype=torch.float64)
    given = {
        "x": x,
        "y": y,
        "p": p,
        "u": u,
        "a": a,
        "m": 0.4 * m,
        "w": 0.4 * w,
        "r": r,
        "f": torch.sin,
        "g": torch.tanh,
    }
    for call, expression in WRITTEN:
        got, want = (
            eval(text, {name: getattr(space, name) for name in re.findall(r"\w{2,}(?=\()", text)} | given)
            for text, space in ((expression, ours), (call, theirs))
        )
        torch.testing.assert_close(got, want, rtol=1e-7, atol=1e-9, msg=f"{call} is not {expression}")
    assert len(WRITTEN) == 13


def test_the_table_has_every_moebius_name():
    theirs = {name for name in dir(geoopt.Stereographic) if name.startswith("mobius")}
    named = {name for row in table_rows() for name in re.findall(r"`manifold\.(mobius_\w+)", row[0])}
    assert named == theirs
