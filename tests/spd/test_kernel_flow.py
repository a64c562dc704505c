"""Geodesics of kernel metrics as functions: convergence, what is conserved, logarithms, transports, derivatives."""

import math

import pytest
import torch

from tests.spd.test_kernel import F64, MEMBERS, every_member, generator, inside, points, relative, symmetric
from torchriemann.manifolds import ArithmeticMean, BogoliubovKuboMori, HarmonicMean, LogarithmicMean
from torchriemann.manifolds.functional.kernel_flow import christoffel, flow, logarithm, spray
from torchriemann.manifolds.functional.kernel_map import lowered, raised
from torchriemann.manifolds.functional.kernel_metric import to_frame
from torchriemann.manifolds.functional.kernel_steps import (
    MATRIX,
    NODES,
    STAGES,
    WEIGHTS,
    combined,
    field,
    follow,
    solved_step,
)
from torchriemann.manifolds.functional.kernel_transport import transport
from torchriemann.manifolds.functional.matrices import sym, symmetric_from_vector
from torchriemann.manifolds.functional.spectral import symmetric_function
from torchriemann.manifolds.functional.spectral_functions import EXP, LOG
from torchriemann.manifolds.spd.charts import MatrixLogarithm

# Of degree 2, 1, 3/2 with a trace, 1 with a width of two.
KERNELS = [
    phi.cometric
    for phi in (
        HarmonicMean(power=2.0),
        BogoliubovKuboMori(),
        LogarithmicMean(power=1.5, scale=2.0, beta=-0.2),
        ArithmeticMean(scale=4.0),
    )
]
every_kernel = pytest.mark.parametrize("c", KERNELS, ids=["harmonic", "bkm", "trace", "bures"])


def geodesics(c, n=3):
    """X with repeated eigenvalues first, velocities of length one, or so short that they end inside, and others."""
    X, W, V = (0.5 * symmetric(5, n, n, seed=seed) for seed in range(3))
    X[0] = 0.3 * torch.eye(n)
    W = (0.3 if c.rate else 1.0) * W / to_frame(X, W, c).flatten(1).norm(dim=1)[:, None, None]
    return X, W, V


def in_logarithms(m, x, u):
    """Start and velocity, and the closed end."""
    return *MatrixLogarithm().differential(x, u), symmetric_function(m.expmap(x, u), LOG)


def largest(a):
    return float(a.detach().abs().max())


# ---- the method -----------------------------------------------------------------------------------------------


def test_nodes_satisfy_the_conditions_of_order_sixteen():
    """Butcher's B(16), C(8) and D(8), which are enough for the order 16; and symplecticity."""
    for k in range(1, 2 * STAGES + 1):
        assert abs(float((WEIGHTS * NODES ** (k - 1)).sum()) - 1 / k) < 1e-15
    for k in range(1, STAGES + 1):
        assert largest(MATRIX @ NODES ** (k - 1) - NODES**k / k) < 1e-15
        assert largest((WEIGHTS * NODES ** (k - 1)) @ MATRIX - WEIGHTS * (1 - NODES**k) / k) < 1e-15
    product = WEIGHTS.unsqueeze(-1) * MATRIX
    assert largest(product + product.mT - WEIGHTS.unsqueeze(-1) * WEIGHTS) < 1e-16


def runge_kutta(Z, c, steps):
    h = 1 / steps
    for _ in range(steps):
        k1 = field(Z, c)
        k2 = field(Z + h / 2 * k1, c)
        k3 = field(Z + h / 2 * k2, c)
        k4 = field(Z + h * k3, c)
        Z = Z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return Z


def gauss(Z, c, steps):
    lengths = torch.full((len(Z),), 1 / steps, dtype=Z.dtype)
    for _ in range(steps):
        start = field(Z, c).unsqueeze(1).expand(-1, STAGES, -1, -1, -1)
        _, slopes, _ = solved_step(Z, lengths, start, c)
        Z = Z + combined(WEIGHTS.unsqueeze(0), slopes).squeeze(1) / steps
    return Z


def errors(method, counts, m, phi, length):
    c, x = phi.cometric, points(4, 3, 3)
    X, W, end = in_logarithms(m, x, inside(m, x, length))
    start = torch.stack([X, lowered(X, W, c)], 1)
    return [relative(method(start, c, count)[:, 0], end) for count in counts]


def slopes(errors, counts):
    """Of log error over log step."""
    logs = [(math.log(e), -math.log(count)) for e, count in zip(errors, counts, strict=True)]
    return [(e - d) / (h - g) for (e, h), (d, g) in zip(logs, logs[1:], strict=False)]


@every_member
def test_the_classical_method_of_order_four_comes_to_the_same_ends(m, phi):
    """An independent method, with 32 steps: to 1e-8, with slopes of four where rounding is not reached."""
    counts = (8, 16, 32)
    found = errors(runge_kutta, counts, m, phi, 0.5)
    assert found[-1] < 1e-8
    assert all(abs(slope - 4) < 0.2 for slope, e in zip(slopes(found, counts), found[1:], strict=True) if e > 1e-13)


def test_gauss_converges_with_higher_order():
    """Long geodesics, or such that end near the rim: elsewhere a single step leaves rounding alone. The slopes rise
    towards 16: those measured were 14.7, and 8.1, 9.8, 10.9, 11.7, 12.9 from step to step."""
    affine, bures = (next(pair for pair in MEMBERS if type(pair[0]).__name__ == name) for name in NAMES)
    assert slopes(errors(gauss, (1, 2), *affine, 6.0), (1, 2))[0] > 14
    assert all(abs(slope - 4) < 0.2 for slope in slopes(errors(runge_kutta, (8, 16, 32), *affine, 6.0), (8, 16, 32)))
    counts = (1, 2, 3, 4, 5)
    found = slopes(errors(gauss, counts, *bures, 0.97), counts)
    assert found == sorted(found) and found[0] > 8 and found[-1] > 11.5


NAMES = ("SPDAffineInvariant", "SPDBuresWasserstein")


# ---- the flow -------------------------------------------------------------------------------------------------


@every_kernel
def test_energy_and_angular_momentum_are_kept(c):
    X, W, _ = geodesics(c)
    start = torch.stack([X, lowered(X, W, c)], 1)
    end = follow(start, c).end
    energies = [(Y * raised(X, Y, c)).sum((-2, -1)) for X, Y in (start.unbind(1), end.unbind(1))]
    assert relative(*energies) < 1e-12
    momenta = [X @ Y - Y @ X for X, Y in (start.unbind(1), end.unbind(1))]
    assert largest(momenta[1] - momenta[0]) < 1e-12 * largest(start[:, 0]) * largest(start[:, 1])


@every_kernel
def test_geodesics_go_back_and_compose(c):
    X, W, _ = geodesics(c)
    end, moved = transport(X, W, W, c)
    assert relative(flow(end, -moved, c), X) < 1e-12
    half, turned = transport(X, 0.5 * W, 0.5 * W, c)
    assert relative(flow(half, turned, c), end) < 1e-12


@every_kernel
def test_geodesics_solve_the_equation(c):
    """By differences of second and fourth order: X'' = spray, and velocities are transported into each other."""
    X, W, V = geodesics(c)
    assert relative(spray(X, W, c), -christoffel(X, W, W, c)) < 1e-13
    assert relative(christoffel(X, V, W, c), christoffel(X, W, V, c)) < 1e-13
    h = 1e-2
    around = [flow(X, k * h * W, c) for k in (-2, -1, 0, 1, 2)]
    second = sum(w * p for w, p in zip((-1, 16, -30, 16, -1), around, strict=True)) / (12 * h * h)
    assert relative(second, spray(X, W, c)) < 1e-6


@pytest.mark.parametrize(("name", "power", "last"), [("SPDPowerEuclidean(power=1.0)", 1, 1.0), ("SPDBures", 2, 2.0)])
def test_the_flow_is_nan_from_the_known_time_on(name, power, last):
    """x - t x leaves at t = 1, with the metric of Bures (1 - t/2)^2 x at t = 2."""
    _, phi = next(pair for pair in MEMBERS if repr(pair[0]).startswith(name))
    x = points(2, 3, 3, condition=4.0)[1]
    t = torch.tensor([0.5, 0.99, 0.9999, 1.0001, 1.01, 30.0], dtype=F64)[:, None, None]
    X, W = MatrixLogarithm().differential(x.expand(6, 3, 3), -t * last * x)
    end = symmetric_function(flow(X, W, phi.cometric), EXP)
    assert relative(end[:3] / (1 - t[:3]) ** power, x.expand(3, 3, 3)) < 1e-9
    assert end[3:].isnan().all()


# ---- logarithms -----------------------------------------------------------------------------------------------


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 4])
def test_logarithms_are_velocities_and_nothing_else(c, n):
    X, W, _ = geodesics(c, n)
    assert relative(logarithm(X, flow(X, W, c), c), W) < 1e-11
    Y = X + 0.7 * symmetric(5, n, n, seed=7)
    Y[1] = X[1]
    Y[2] = torch.nan
    found = logarithm(X, Y, c)
    assert found[2].isnan().all() and largest(found[1]) == 0
    others = [0, 1, 3, 4]
    assert relative(flow(X[others], found[others], c), Y[others]) < 1e-11
    assert relative(found[others], logarithm(X[others], Y[others], c)) < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phi", "condition", "least"),
    [(LogarithmicMean(power=1.5), 1e4, 4), (ArithmeticMean(scale=4.0), 1e3, 4), (HarmonicMean(power=2.0), 100.0, 1)],
)
def test_far_logarithms_are_right_or_nan(phi, condition, least):
    """Of matrices with independent eigenvectors. With the second kernel distances grow as with the affine-invariant
    metric at the square of the condition, and the search fails for some."""
    X, Y = (symmetric_function(points(5, 2, 2, condition=condition, seed=seed)[1:], LOG) for seed in (1, 7))
    found = logarithm(X, Y, phi.cometric)
    arrived = found.isfinite().all(-1).all(-1)
    assert int(arrived.sum()) >= least
    assert relative(flow(X, found, phi.cometric)[arrived], Y[arrived]) < 1e-11
    assert found[~arrived].isnan().all()


# ---- transports -----------------------------------------------------------------------------------------------


@every_kernel
@pytest.mark.parametrize("n", [1, 2, 4])
def test_transports_are_isometries_and_go_back(c, n):
    X, W, V = geodesics(c, n)
    end, moved = transport(X, W, V, c)
    _, other = transport(X, W, W, c)
    for a, b in ((moved, moved), (moved, other), (other, other)):
        u, v = (V if p is moved else W for p in (a, b))
        wanted = (to_frame(X, u, c) * to_frame(X, v, c)).sum((-2, -1))
        found = (to_frame(end, a, c) * to_frame(end, b, c)).sum((-2, -1))
        scale = to_frame(X, u, c).flatten(1).norm(dim=1) * to_frame(X, v, c).flatten(1).norm(dim=1)
        assert largest((found - wanted) / scale) < 1e-12
    back, found = transport(end, -other, moved, c)
    assert relative(back, X) < 1e-12 and relative(found, V) < 1e-12


@every_kernel
def test_transports_solve_the_equation(c):
    """By a difference of fourth order: V' = -Gamma(W, V)."""
    X, W, V = geodesics(c)
    h = 3e-3
    before, near, after, far = (transport(X, k * h * W, V, c)[1] for k in (-1, 1, 2, -2))
    found = (8 * (near - before) - (after - far)) / (12 * h)
    assert relative(found, -christoffel(X, W, V, c)) < 1e-7


# ---- derivatives ----------------------------------------------------------------------------------------------


def vectors(*sizes):
    """Coordinates of two symmetric matrices each, with derivatives; `check` adds them to their symmetric parts."""
    draw = generator(3)
    return [size * torch.randn(2, 3, generator=draw, dtype=F64) for size in sizes]


OPERATIONS = {
    "flow": (flow, (0.5, 0.4)),
    "logarithm": (lambda X, W, c: logarithm(X, X + W, c), (0.5, 0.4)),
    "transport": (lambda X, W, V, c: torch.stack(transport(X, W, V, c)), (0.5, 0.4, 1.0)),
}


@every_kernel
@pytest.mark.parametrize("name", ["flow", "logarithm", pytest.param("transport", marks=pytest.mark.slow)])
def test_first_and_second_derivatives(c, name):
    function, sizes = OPERATIONS[name]
    inputs = [v.requires_grad_() for v in vectors(*sizes)]
    run = lambda *v: function(*map(symmetric_from_vector, v), c)  # noqa: E731
    assert torch.autograd.gradcheck(run, inputs, fast_mode=True, rtol=1e-6, atol=1e-7)
    assert torch.autograd.gradgradcheck(run, inputs, fast_mode=True, rtol=1e-6, atol=1e-7)


def test_derivatives_of_transports():
    """First and second ones, by differences of fourth order along a line; they are those of going there and back, too,
    which is the identity."""
    c = KERNELS[2]
    start = torch.stack([sym(symmetric_from_vector(v)) for v in vectors(0.5, 0.4, 1.0)])
    move = symmetric(3, 2, 2, 2, seed=8)
    value = lambda t: (transport(*(start + t * move), c)[1] * move[0]).sum()  # noqa: E731
    t = torch.zeros((), dtype=F64, requires_grad=True)
    (first,) = torch.autograd.grad(value(t), t, create_graph=True)
    (second,) = torch.autograd.grad(first, t)
    h, at = 1e-2, torch.zeros((), dtype=F64)
    around = [float(value(at + k * h).detach()) for k in (-2, -1, 0, 1, 2)]
    differences = sum(w * v for w, v in zip((1, -8, 0, 8, -1), around, strict=True)) / (12 * h)
    seconds = sum(w * v for w, v in zip((-1, 16, -30, 16, -1), around, strict=True)) / (12 * h * h)
    assert abs(float(first.detach()) - differences) < 1e-6 * abs(differences)
    assert abs(float(second) - seconds) < 1e-5 * abs(seconds)


def moves_of(name):
    """Of items that take unlike numbers of steps."""
    function, sizes = OPERATIONS[name]
    inputs = [sym(symmetric_from_vector(v)) for v in vectors(*sizes)]
    inputs[1] = inputs[1] * torch.tensor([0.2, 3.0], dtype=F64)[:, None, None]
    return lambda *v: function(*v, KERNELS[1]), inputs


@pytest.mark.parametrize("name", OPERATIONS)
def test_forward_mode_and_vmap_give_the_same_derivatives(name):
    run, inputs = moves_of(name)
    moves = [symmetric(2, 2, 2, seed=20 + i) for i in range(len(inputs))]
    value, along = torch.func.jvp(run, tuple(inputs), tuple(moves))
    assert relative(value, run(*inputs)) < 1e-12
    leaves = [v.clone().requires_grad_() for v in inputs]
    weights = torch.randn(value.shape, generator=generator(9), dtype=F64)
    gradients = torch.autograd.grad((weights * run(*leaves)).sum(), leaves)
    pulled = sum(float((g * v).sum()) for g, v in zip(gradients, moves, strict=True))
    assert abs(pulled - float((weights * along).sum())) < 1e-10 * largest(along)
    mapped = torch.func.vmap(torch.func.grad(lambda *v: (run(*v) ** 2).sum()))(*inputs)
    (wanted,) = torch.autograd.grad((run(*leaves) ** 2).sum(), leaves[:1])
    assert relative(mapped, wanted) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("name", OPERATIONS)
def test_compiled_graphs_give_the_same_derivatives(name):
    run, inputs = moves_of(name)
    leaf = inputs[0].clone().requires_grad_()
    found = torch.compile(run, backend="aot_eager", fullgraph=True)(leaf, *inputs[1:])
    wanted = run(leaf, *inputs[1:])
    assert relative(found, wanted) < 1e-11
    gradients = (torch.autograd.grad((value**2).sum(), leaf)[0] for value in (found, wanted))
    assert relative(*gradients) < 1e-9
