"""What compilers see of frames and rotations: small graphs, and the derivatives of eager code.

Sizes of graphs stand for seconds of compilation, which are proportional to them and depend on the machine.
"""

import pytest
import torch
from torch import Tensor, nn

from torchriemann import Grassmann, ManifoldParameter
from torchriemann.manifolds import Orthogonal, SpecialOrthogonal, Stiefel
from torchriemann.manifolds.functional.frame_retractions import inverse_qr
from torchriemann.manifolds.functional.frames import inverse_sqrt, matrix_exp
from torchriemann.optim import RiemannianAdam

F64 = torch.float64


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def arguments(manifold, shape=(5, 3), dtype=F64) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(0)
    x = manifold.random(2, *shape, generator=g, dtype=dtype)
    u, v = (0.4 * manifold.random_tangent(x, generator=g) for _ in range(2))
    return {"x": x, "u": u, "v": v, "y": manifold.expmap(x, u), "r": manifold.retr(x, u)}


def nodes(function, *given: Tensor) -> int:
    """How many nodes Dynamo's graph of `function` has."""
    sizes = []

    def backend(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    torch.compile(function, fullgraph=True, backend=backend, dynamic=False)(*given)
    return sum(sizes)


# ---- sizes ------------------------------------------------------------------------------------------------------

# operation -> arguments, ceilings of its graph without a derivative and with one
CEILINGS = {
    "projx": ("x", 90, 90),
    "expmap": ("xu", 50, 200),
    "logmap": ("xy", 20, 520),
    "retr": ("xu", 60, 210),
    "inverse_retr": ("xr", 130, 520),
    "retr_transp": ("xuv", 70, 220),
    "expmap_transp": ("xuv", 130, 690),
    "parallel_transport": ("xyv", 140, 1200),
    "basis": ("x", 110, 110),
}
SPACES = [Stiefel(0.75, "polar")]
MORE_SPACES = [
    SpecialOrthogonal("qr"),
    Stiefel(),
    Stiefel(0.75, "qr"),
    Stiefel(0.5, "cayley"),
    Stiefel(0.3, "exp"),
    SpecialOrthogonal(),
    Orthogonal("qr"),
    SpecialOrthogonal("exp"),
]


@pytest.mark.parametrize(
    "manifold", [*SPACES, *(pytest.param(m, marks=pytest.mark.slow) for m in MORE_SPACES)], ids=repr
)
def test_graphs_are_small(manifold):
    given = arguments(manifold, (5, 3) if isinstance(manifold, Stiefel) else (4, 4))
    for name, (letters, plain, derivative) in CEILINGS.items():
        operands = [given[letter].clone() for letter in letters]
        with torch.no_grad():
            got = nodes(getattr(manifold, name), *operands)
        assert got <= plain, (name, got)
        torch.compiler.reset()
        got = nodes(getattr(manifold, name), *(a.requires_grad_() for a in operands))
        assert got <= derivative, (name, got)


def test_graphs_do_not_grow_with_the_frames():
    for name, letters in (("retr", "xu"), ("inverse_retr", "xr"), ("logmap", "xy")):
        manifold, sizes = Stiefel(0.75, "qr"), []
        for shape in ((6, 3), (24, 12)):
            torch.compiler.reset()
            given = arguments(manifold, shape)
            sizes.append(nodes(getattr(manifold, name), *(given[k].requires_grad_() for k in letters)))
        assert sizes[0] == sizes[1], name


@pytest.mark.parametrize("manifold", [Stiefel(), Stiefel(1.0, "qr"), Grassmann()], ids=repr)
def test_a_step_is_a_small_graph(manifold):
    g = torch.Generator().manual_seed(0)
    points = [ManifoldParameter(manifold.random(6, 3, generator=g), manifold) for _ in range(3)]
    for p in points:
        p.grad = torch.randn(6, 3, generator=g)
    optimizer, sizes = RiemannianAdam(points), []

    def backend(graph, _):
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    torch.compile(optimizer.step, backend=backend)()
    assert 0 < sum(sizes) <= 170, sizes


# ---- derivatives ------------------------------------------------------------------------------------------------


def compiled(function):
    return torch.compile(function, fullgraph=True, backend="aot_eager", dynamic=False)


def close(got, want, bound):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)


def loss_of(operation):
    def loss(*given: Tensor) -> Tensor:
        results = operation(*given)
        results = results if isinstance(results, tuple) else (results,)
        weighted = [(1 + torch.arange(r.numel(), dtype=r.dtype)) * r.flatten().sin() for r in results]
        return torch.cat(weighted).sum()

    return loss


SLOW = pytest.mark.slow
TRANSFORMED = [
    pytest.param(Stiefel(), "retr"),
    pytest.param(SpecialOrthogonal(), "expmap"),
    *(pytest.param(Stiefel(1.0, r), "retr", marks=SLOW) for r in ("qr", "cayley", "exp")),
    *(pytest.param(Stiefel(1.0, r), "inverse_retr", marks=SLOW) for r in ("polar", "qr", "cayley", "exp")),
    *(pytest.param(Stiefel(0.75), name, marks=SLOW) for name in ("expmap", "expmap_transp", "logmap")),
    *(pytest.param(SpecialOrthogonal(), name, marks=SLOW) for name in ("logmap", "expmap_transp")),
]


@pytest.mark.parametrize("manifold, name", TRANSFORMED, ids=str)
def test_compiled_transforms_are_the_eager_ones(manifold, name):
    """In one graph: the derivative forwards, the Hessian along a direction, and vmap. Without autograd too, where no
    tensor shows that a derivative is wanted."""
    given = arguments(manifold, (4, 2) if isinstance(manifold, Stiefel) else (3, 3))
    letters = {"retr": "xu", "inverse_retr": "xr", "expmap": "xu", "expmap_transp": "xuv", "logmap": "xy"}[name]
    operation, operands = getattr(manifold, name), tuple(given[k] for k in letters)
    generator = torch.Generator().manual_seed(5)
    moving = tuple(torch.randn(a.shape, generator=generator, dtype=F64) for a in operands)
    gradient = torch.func.grad(loss_of(operation), argnums=tuple(range(len(operands))))

    def transforms(*given):
        forwards = torch.func.jvp(operation, given, moving)
        return forwards, torch.func.jvp(gradient, given, moving), torch.func.vmap(operation)(*given)

    want = transforms(*operands)
    with torch.set_grad_enabled(name != "expmap"):
        close(compiled(transforms)(*operands), want, 1e-9)


def test_a_compiled_hessian_is_the_eager_one():
    manifold = Stiefel()
    x, u = (arguments(manifold, (4, 2))[k][0] for k in "xu")

    def hessian(u):
        return torch.func.hessian(lambda z: loss_of(manifold.retr)(x, z))(u)

    close(compiled(hessian)(u), hessian(u), 1e-10)


def roots(a: Tensor) -> Tensor:
    return torch.cat(inverse_sqrt(a @ a.mT + torch.eye(4, dtype=F64)))


@pytest.mark.parametrize("function", [matrix_exp, roots])
def test_compiled_roots_and_exponentials_have_two_derivatives(function):
    a = torch.randn(4, 4, generator=torch.Generator().manual_seed(1), dtype=F64)
    b = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), dtype=F64)

    def run(a):
        return torch.func.jvp(torch.func.grad(lambda z: function(z).square().sum()), (a,), (b,))

    close(compiled(run)(a), run(a), 1e-11)


def test_a_compiled_gradient_is_asked_for_by_the_tensor_only():
    """The same function, with and without a gradient: two graphs, and a trained layer learns."""
    manifold = Stiefel()
    given = arguments(manifold)
    step = compiled(manifold.retr)
    close(step(given["x"], given["u"]), given["r"], 1e-13)
    u = nn.Parameter(given["u"].clone())
    step(given["x"], u).sin().sum().backward()
    twin = nn.Parameter(given["u"].clone())
    manifold.retr(given["x"], twin).sin().sum().backward()
    close(u.grad, twin.grad, 1e-12)
    with torch.no_grad():
        close(step(given["x"], u), given["r"], 1e-13)


def test_an_exported_retraction_can_be_trained():
    """Whoever exports gives example tensors without a gradient; the program serves others."""

    class Retraction(nn.Module):
        def forward(self, x, u):
            return Stiefel().retr(x, u)

    given = arguments(Stiefel())
    program = torch.export.export(Retraction(), (given["x"], given["u"])).module()
    u, twin = (given["u"].clone().requires_grad_() for _ in range(2))
    program(given["x"], u).sin().sum().backward()
    Stiefel().retr(given["x"], twin).sin().sum().backward()
    close(u.grad, twin.grad, 1e-12)


def test_compiled_inverses_are_nan_where_eager_ones_are():
    x = Stiefel().random(5, 2, generator=torch.Generator().manual_seed(0), dtype=F64)
    for function in (inverse_qr, Stiefel().inverse_retr):
        assert compiled(function)(x, -x).isnan().all() and function(x, -x).isnan().all()
