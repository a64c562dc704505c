"""The flat metrics carried over by functions of eigenvalues, against formulas in 50 digits and in closed form."""

import math

import mpmath
import pytest
import torch

from tests.support.spd import arguments, generator
from torchriemann.manifolds import SPDLogEuclidean, SPDPowerEuclidean, WrappedNormal
from torchriemann.manifolds.functional.cone import lifted
from torchriemann.manifolds.functional.decompositions import eigh
from torchriemann.manifolds.functional.definite import positive_definite
from torchriemann.manifolds.functional.elementary_functions import Exponential, Logarithm, Power
from torchriemann.manifolds.functional.matrices import symmetric_from_vector, symmetric_vector
from torchriemann.manifolds.functional.spectral_functions import RECIPROCAL, SQRT, SQUARE
from torchriemann.manifolds.functional.spectral_pushforward import function_and_derivatives, function_and_inverse

F64, F32 = torch.float64, torch.float32
FLAT = [SPDLogEuclidean(), SPDLogEuclidean(2.0, -0.2)] + [SPDPowerEuclidean(p) for p in (0.5, 1.0, 2.0, -1.0, -0.3)]
every_flat = pytest.mark.parametrize("m", FLAT, ids=repr)


def exact(matrix):
    return mpmath.matrix(matrix.tolist())


def function_of(matrix, f):
    values, vectors = mpmath.eigsy(matrix)
    return vectors * mpmath.diag([f(v) for v in values]) * vectors.T


def derivative(f, matrix, direction):
    """D f(matrix)[direction] as the corner of f of a block matrix, by a central quotient in 50 digits."""
    h = mpmath.mpf(10) ** -15
    return (function_of(matrix + h * direction, f) - function_of(matrix - h * direction, f)) / (2 * h)


def close_to_exact(got, want, tolerance):
    want = torch.tensor([[float(want[i, j]) for j in range(want.cols)] for i in range(want.rows)], dtype=F64)
    assert (got - want).abs().max() <= tolerance * want.abs().max()


# ---- against fifty digits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-10, 1e10])
@every_flat
def test_exp_log_and_dist_in_fifty_digits(m, scale):
    at = arguments(m, 3, 3, seed=3)
    x, y = scale * at["x"], scale * at["y"]
    u = scale * at["u"]
    with mpmath.workdps(50):
        X, Y, U = exact(x), exact(y), exact(u)
        if isinstance(m, SPDLogEuclidean):
            f, inverse = mpmath.log, mpmath.exp
        else:
            p = mpmath.mpf(m.power)
            f, inverse = (lambda t: t**p / p), (lambda t: (p * t) ** (1 / p))
        image, other = function_of(X, f), function_of(Y, f)
        moved = function_of(image + derivative(f, X, U), inverse)
        vector = derivative(inverse, image, other - image)
        alpha, beta = (m.alpha, m.beta) if isinstance(m, SPDLogEuclidean) else (1, 0)
        D = image - other
        trace = sum(D[i, i] for i in range(3))
        dist = mpmath.sqrt(alpha * mpmath.fsum(D[i, j] ** 2 for i in range(3) for j in range(3)) + beta * trace**2)
        close_to_exact(m.expmap(x, u), moved, 3e-14)
        close_to_exact(m.logmap(x, y), vector, 3e-13)
        assert abs(m.dist(x, y) - float(dist)) <= 3e-14 * float(dist)


@pytest.mark.parametrize("condition", [1e1, 1e3, 1e6, 1e9])
@every_flat
def test_round_trips_at_every_condition(m, condition):
    """exp_x(log_x(y)) = y to 1e-13 cond(x), of powers to 1e-13 cond(x)^|p - 1| too; of p > 1, whose images have the
    condition cond^p, while cond^(p + 1) is a number that float64 resolves."""
    x, y = (m.random_spectrum(50, 5, 5, condition=condition, generator=generator(k), dtype=F64) for k in (0, 1))
    power = m.power if isinstance(m, SPDPowerEuclidean) else 0.0
    bound = 1e-13 * condition ** max(1.0, abs(power - 1))
    if bound < 0.1 and (power <= 1 or condition ** (power + 1) < 1e15):
        error = (m.expmap(x, m.logmap(x, y)) - y).abs().amax((-2, -1)) / y.abs().amax((-2, -1))
        assert error.max() < bound


# ---- formulas of their own ------------------------------------------------------------------------------------


def test_the_log_euclidean_addition_adds_logarithms_and_its_multiples_are_powers():
    m = SPDLogEuclidean(1.5, 0.2)
    x = m.random(4, 3, 3, generator=generator(), dtype=F64)
    y = torch.diag_embed(torch.tensor([0.5, 2.0, 3.0], dtype=F64))
    values, vectors = torch.linalg.eigh(x)
    torch.testing.assert_close(m.gyroscale(0.3, x), (vectors * (values**0.3).unsqueeze(-2)) @ vectors.mT)
    torch.testing.assert_close(m.gyroinv(x), torch.linalg.inv(x))
    torch.testing.assert_close(m.gyroadd(x, y), m.gyroadd(y, x))
    torch.testing.assert_close(m.gyroadd(y, y @ y), y @ y @ y)
    torch.testing.assert_close(m.gyration(x, y, x), x)
    normal = m.to_normal(x)
    assert normal.shape == (4, 6)
    torch.testing.assert_close(normal.norm(dim=-1), m.dist0(x))
    # of the hyperplane through I + offset, at right angles to the normal
    n = torch.randn(6, generator=generator(), dtype=F64)
    torch.testing.assert_close(m.hyperplane_dist(x, n, 0.3), normal @ (n / n.norm()) - 0.3)


def test_the_log_euclidean_mean_has_the_geometric_mean_of_determinants():
    m = SPDLogEuclidean()
    x = m.random(7, 2, 4, 4, generator=generator(), dtype=F64)
    torch.testing.assert_close(torch.logdet(m.frechet_mean(x)), torch.logdet(x).mean(0))


def test_a_wrapped_normal_law():
    m = SPDLogEuclidean()
    law = WrappedNormal(m, m.random(3, 3, generator=generator(), dtype=F64), 0.3 * torch.ones(6, dtype=F64))
    x = law.rsample((100,))
    assert m.check_point_on_manifold(x) and law.log_prob(x).isfinite().all()


@pytest.mark.parametrize("p", [0.5, 1.0, -1.0])
def test_power_means(p):
    m = SPDPowerEuclidean(p)
    x = m.random(5, 3, 3, generator=generator(), dtype=F64)
    values, vectors = torch.linalg.eigh(x)
    mean = ((vectors * (values**p).unsqueeze(-2)) @ vectors.mT).mean(0)
    values, vectors = torch.linalg.eigh(mean)
    torch.testing.assert_close(m.frechet_mean(x), (vectors * values ** (1 / p)) @ vectors.mT)


def test_small_powers_are_nearly_log_euclidean():
    x, y = (SPDLogEuclidean().random(4, 4, generator=generator(k), dtype=F64) for k in (0, 1))
    torch.testing.assert_close(SPDPowerEuclidean(1e-5).dist(x, y), SPDLogEuclidean().dist(x, y), rtol=1e-4, atol=0)


def test_the_first_power_takes_no_eigendecomposition(monkeypatch):
    m = SPDPowerEuclidean(1.0)
    x, y = (m.random(3, 3, 3, generator=generator(k), dtype=F64) for k in (0, 1))

    def refuse(*_):
        raise AssertionError("an eigendecomposition")

    monkeypatch.setattr(torch.linalg, "eigh", refuse)
    torch.testing.assert_close(m.logmap(x, y), y - x)
    torch.testing.assert_close(m.expmap(x, y - x), y)
    torch.testing.assert_close(m.dist(x, y), (x - y).flatten(1).norm(dim=1))
    torch.testing.assert_close(m.midpoint(x, y), (x + y) / 2)


# ---- where the power-Euclidean metrics end --------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, -1.0, -0.3])
def test_the_domain_of_the_exponential_map(p):
    m = SPDPowerEuclidean(p)
    x = m.random(20, 3, 3, generator=generator(), dtype=F64)
    values, vectors = torch.linalg.eigh(x)
    end = 0 if p > 0 else -1
    torch.testing.assert_close(m.injectivity_radius(x), values[:, end] ** p / abs(p))
    v = vectors[..., end]
    u = -math.copysign(1.0, p) * v.unsqueeze(-1) * v.unsqueeze(-2)
    u = u / m.norm(x, u, keepdim=True) * torch.as_tensor(m.injectivity_radius(x))[:, None, None]
    assert m.exp_is_defined(x, 0.999 * u).all() and not m.exp_is_defined(x, 1.001 * u).any()
    inside, beyond = m.expmap(x, 0.999 * u), m.expmap(x, 1.001 * u)
    assert positive_definite(inside).all() and beyond.isnan().all()
    assert m.expmap_transp(x, 1.001 * u, u)[0].isnan().all() and m.geodesic(x, inside, 1.1).isnan().all()
    with pytest.raises(ValueError, match="leaves the space before its end in 20 of 20 items"):
        m.assert_check_exp_is_defined(x, 1.001 * u)
    # Of a whole exponent 1/p the powers of what lies beyond would be matrices: (-1)^2 = 1.
    other = m.expmap(x, 3.0 * u)
    assert other.isnan().all()
    far = m.retr(x, torch.stack([1.001 * u, 1e3 * u, 1e8 * u, -1e3 * u]))
    assert positive_definite(far).all() and m.check_point_on_manifold(far)


def test_there_is_no_gyro_structure_and_the_error_says_why():
    with pytest.raises(NotImplementedError, match="SPDPowerEuclidean.*leave the cone"):
        SPDPowerEuclidean(0.5).to_normal(torch.eye(3))
    assert SPDPowerEuclidean(0.5).injectivity_radius() == 0.0


# ---- derivatives ----------------------------------------------------------------------------------------------


def spectra():
    q = torch.linalg.qr(torch.randn(4, 4, generator=generator(9), dtype=F64))[0]
    listed = {
        "identity": [1.0, 1.0, 1.0, 1.0],
        "pairs": [1.0, 1.0, 2.0, 2.0],
        "gaps of 1e-6": [1.0, 1.0 + 1e-6, 2.0, 2.0 - 1e-6],
        "apart": [0.1, 0.5, 2.0, 7.0],
    }
    return {name: (q * torch.tensor(a, dtype=F64)) @ q.mT for name, a in listed.items()}


@pytest.mark.parametrize("name", spectra())
@every_flat
def test_first_and_second_derivatives_at_repeated_eigenvalues(m, name):
    """Against central quotients, along one direction in each argument."""
    x = spectra()[name]
    x = 0.5 * (x + x.mT)
    y = m.random(4, 4, generator=generator(2), dtype=F64)
    radius = min(1.0, float(m.injectivity_radius(x)))
    u = 0.3 * radius * m.random_tangent(x, generator(3)) / 4
    along = [0.5 * (d + d.mT) for d in torch.randn(2, 4, 4, generator=generator(4), dtype=F64)]
    weights = torch.randn(4, 4, generator=generator(5), dtype=F64)

    for operation, other in ((m.expmap, u), (m.logmap, y), (m.retr, u)):

        def slope(t, operation=operation, other=other):
            """d/dt of a function, by reverse mode."""
            a, b = (z.detach().requires_grad_() for z in (x + t * along[0] * radius, other + t * along[1] * radius))
            value = (operation(a, b) * weights).sum()
            ga, gb = torch.autograd.grad(value, (a, b), create_graph=True)
            first = (ga * along[0]).sum() * radius + (gb * along[1]).sum() * radius
            if not first.requires_grad:
                return value.detach(), first, torch.zeros_like(first)  # of a linear map
            ha, hb = torch.autograd.grad(first, (a, b), materialize_grads=True)
            second = (ha * along[0]).sum() * radius + (hb * along[1]).sum() * radius
            return value.detach(), first.detach(), second

        h = 1e-4
        ahead, here, behind = slope(h), slope(0.0), slope(-h)
        for order in (1, 2):
            quotient = (ahead[order - 1] - behind[order - 1]) / (2 * h)
            torch.testing.assert_close(here[order], quotient, rtol=1e-5, atol=1e-5 * float(here[order - 1].abs() + 1))


FUNCTIONS = {
    "sqrt": (SQRT, mpmath.sqrt),
    "square": (SQUARE, lambda t: t**2),
    "reciprocal": (RECIPROCAL, lambda t: 1 / t),
    "exp": (Exponential(), mpmath.exp),
    "log": (Logarithm(), mpmath.log),
    **{f"power {p}": (Power(p), lambda t, p=p: t ** mpmath.mpf(p)) for p in (0.5, 2.0, -1.0, 0.3, 1.0)},
}


@pytest.mark.parametrize("f, p", [(SQRT, 0.5), (SQUARE, 2.0), (RECIPROCAL, -1.0)], ids=["sqrt", "square", "reciprocal"])
def test_closed_powers_are_powers(f, p):
    a, b, c = torch.rand(3, 50, generator=generator(), dtype=F64) + 0.1
    for mine, general in (
        (f.value(a), Power(p).value(a)),
        (f.divided_difference(a, b), Power(p).divided_difference(a, b)),
        (f.second_divided_difference(a, b, c), Power(p).second_divided_difference(a, b, c)),
    ):
        torch.testing.assert_close(mine, general, rtol=1e-12, atol=1e-12)
    assert f.value(torch.tensor([-1.0, torch.nan])).isnan().all()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_third_divided_differences_in_fifty_digits(name):
    f, reference = FUNCTIONS[name]
    gaps = [0.0, 1e-12, 1e-6, 1e-3, 0.05, 0.1249, 0.1251, 0.3, 1.0, 30.0]
    points = [
        [1.3 * (1 + g * s) for s in steps] for g in gaps for steps in ((0, 0.3, 0.6, 1), (0, 0, 1, 1), (1, 1, 0, 1))
    ]
    got = f.third_divided_difference(*torch.tensor(points, dtype=F64).unbind(-1))
    for value, row in zip(got, points, strict=True):
        with mpmath.workdps(90):
            row = sorted(mpmath.mpf(t) * (1 + i * mpmath.mpf(10) ** -20) for i, t in enumerate(row))
            table = [reference(t) for t in row]
            for k in (1, 2, 3):
                table = [(table[i + 1] - table[i]) / (row[i + k] - row[i]) for i in range(len(table) - 1)]
            want = float(table[0])
        assert abs(value - want) <= 2e-12 * max(abs(want), 0.1), row


def test_the_derivatives_in_nested_forward_mode():
    """In a `jvp` forward mode is off: a sum formed there would lose the derivative of an outer level."""
    a = spectra()["apart"]
    v, w = (0.1 * (d + d.mT) for d in torch.randn(2, 4, 4, generator=generator(), dtype=F64))

    def moved(at):
        return torch.func.jvp(lambda b: function_and_derivatives(b, Logarithm(), v)[1], (at,), (w,))[1]

    got, h = torch.func.jvp(moved, (a,), (w,))[1], 1e-5
    torch.testing.assert_close(got, (moved(a + h * w) - moved(a - h * w)) / (2 * h), rtol=1e-7, atol=1e-7)


def test_the_inverse_of_a_derivative():
    a = torch.stack(list(spectra().values()))
    v = torch.randn(4, 4, generator=generator(), dtype=F64)
    v = v + v.mT
    for f, inverse in (
        (Logarithm(), Exponential()),
        (SQRT, SQUARE),
        (RECIPROCAL, RECIPROCAL),
        (Power(-0.3), Power(-1 / 0.3)),
    ):
        value, pull = function_and_inverse(a, f, inverse)
        again, pushed = function_and_derivatives(a, f, v)
        torch.testing.assert_close(value, again)
        torch.testing.assert_close(pull(pushed), v.expand_as(a), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("batch", [(), (2,), (4,), (3, 4)])
def test_several_directions_are_those_of_each_alone(batch):
    a = torch.stack(list(spectra().values()))[:4].requires_grad_()
    vectors = [torch.randn(*batch, 4, 4, generator=generator(k), dtype=F64) for k in range(2)]
    if batch == (2,):
        a = a[:2]
    value, *both = function_and_derivatives(a, Logarithm(), *vectors)
    for v, got in zip(vectors, both, strict=True):
        again, alone = function_and_derivatives(a, Logarithm(), v)
        torch.testing.assert_close(value, again, rtol=0, atol=0)
        torch.testing.assert_close(got, alone)
        g = torch.randn(got.shape, generator=generator(5), dtype=F64)
        torch.testing.assert_close(torch.autograd.grad(got, a, g, retain_graph=True), torch.autograd.grad(alone, a, g))


# ---- parts ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 5])
def test_coordinates_of_symmetric_matrices(n):
    a = torch.randn(3, n, n, generator=generator(), dtype=F64)
    a = a + a.mT
    v = symmetric_vector(a)
    assert v.shape == (3, n * (n + 1) // 2)
    torch.testing.assert_close(v.norm(dim=-1), a.flatten(1).norm(dim=1), rtol=1e-15, atol=0)
    back = symmetric_from_vector(v)
    torch.testing.assert_close(back, a, rtol=1e-15, atol=0)
    assert torch.equal(back, back.mT)


@pytest.mark.parametrize("batch", [(), (3,), (2, 0), (2, 3)])
def test_small_eigenvalues_in_float32_are_those_of_the_stored_numbers(batch):
    """To a few eps each where LAPACK in float32 has them to eps of the largest."""
    m = SPDLogEuclidean()
    x = m.random_spectrum(*batch, 5, 5, condition=3e7, generator=generator(1), dtype=F32)
    values, vectors = eigh(x, positive=True)
    wanted = torch.linalg.eigvalsh(x.double())
    torch.testing.assert_close(values.double(), wanted, rtol=1e-5, atol=0)
    assert (((vectors @ vectors.mT) - torch.eye(5)).abs() < 1e-5).all()
    mapped = (
        torch.func.vmap(lambda a: eigh(a, positive=True)[0])(x.reshape(-1, 5, 5))
        if x.numel()
        else values.reshape(-1, 5)
    )
    assert torch.equal(mapped, values.reshape(-1, 5))


def test_what_rounding_put_outside_is_lifted_and_nothing_else():
    inside = torch.diag(torch.tensor([1.0, 1e-9], dtype=F32))
    outside = torch.diag(torch.tensor([1.0, -1e-7], dtype=F32))
    indefinite = torch.diag(torch.tensor([1.0, -0.1], dtype=F32))
    lost = torch.full((2, 2), torch.nan)
    got = lifted(torch.stack([inside, outside, indefinite, lost]))
    assert torch.equal(got[0], inside) and torch.equal(got[2], indefinite) and got[3].isnan().all()
    assert positive_definite(got[1]) and (got[1] - outside).abs().max() < 2e-6
