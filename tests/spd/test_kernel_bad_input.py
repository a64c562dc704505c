"""What is no point under a kernel metric, next to points; shapes and dtypes; extreme scales; empty batches."""

import pytest
import torch

from tests.spd.test_kernel import F32, F64, every_other, generator, inside, points, relative, symmetric
from torchriemann import ManifoldParameter
from torchriemann.manifolds import ArithmeticMean, BogoliubovKuboMori, HarmonicMean, SPDAffineInvariant, SPDKernel
from torchriemann.optim import RiemannianSGD

OPERATIONS = {
    "inner": "xuv", "norm": "xu", "egrad2rgrad": "xu", "expmap": "xu", "logmap": "xy", "retr": "xu", "dist": "xy",
    "inverse_retr": "xy", "transp": "xyv", "parallel_transport": "xyv", "expmap_transp": "xuv", "midpoint": "xy",
    "basis": "x", "sectional_curvature": "xuv",
}  # fmt: skip
BAD = {
    "indefinite": torch.diag(torch.tensor([1.0, -0.5], dtype=F64)),
    "negative": -torch.eye(2, dtype=F64),
    "singular": torch.ones(2, 2, dtype=F64),
    "zero": torch.zeros(2, 2, dtype=F64),
    "nan": torch.tensor([[1.0, torch.nan], [torch.nan, 1.0]], dtype=F64),
    "infinite": torch.diag(torch.tensor([1.0, torch.inf], dtype=F64)),
}


def arguments(count=2, n=2, dtype=F64):
    """Near points, vectors that stay inside."""
    x = points(count, n, n, condition=4.0)
    u, v = inside(SPDAffineInvariant(), x, 0.2), symmetric(count, n, n)
    y = SPDAffineInvariant().expmap(x, inside(SPDAffineInvariant(), x, 0.3, seed=9))
    return {k: a.to(dtype) for k, a in {"x": x, "y": y, "u": u, "v": v}.items()}


def call(m, name, at):
    """All that an operation gives, one row an item."""
    found = getattr(m, name)(*(at[k] for k in OPERATIONS[name]))
    return torch.cat([a.reshape(len(at["x"]), -1) for a in (found if isinstance(found, tuple) else (found,))], -1)


@every_other
@pytest.mark.parametrize("dtype", [F64, F32])
@pytest.mark.parametrize("name", BAD)
def test_checks_name_the_class_and_what_is_wrong(phi, name, dtype):
    m, bad = SPDKernel(phi), BAD[name].to(dtype)
    for x in (bad, torch.stack([torch.eye(2, dtype=dtype), bad])):
        with pytest.raises(ValueError, match="SPDKernel.*(eigenvalue|x\\^T)"):
            m.assert_check_point_on_manifold(x)
        with pytest.raises(ValueError, match="SPDKernel"):
            ManifoldParameter(x, m)
    if bad.isfinite().all():
        assert m.check_point_on_manifold(ManifoldParameter.project(bad, m).detach())


@every_other
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_no_point_is_nan_and_spoils_itself_alone(phi, name):
    """Values and gradients beside five bad items in x, and in y, are those of a batch without them."""
    m, good = SPDKernel(phi), arguments()
    bad = torch.stack(list(BAD.values()))

    def value_and_gradients(at):
        leaves = {k: a.clone().requires_grad_() for k, a in at.items()}
        value = call(m, name, leaves)
        weights = torch.linspace(1, 2, value.shape[-1], dtype=F64)
        total = (value[[0, -1]] * weights).sum()
        gradients = torch.autograd.grad(total, list(leaves.values()), materialize_grads=True)
        return value.detach(), gradients

    wanted = value_and_gradients(good)
    for letter in set("xy") & set(OPERATIONS[name]):
        batch = {k: torch.cat([a[:1], a[:1].expand(len(bad), 2, 2), a[1:]]) for k, a in good.items()}
        batch[letter] = torch.cat([good[letter][:1], bad, good[letter][1:]])
        value, gradients = value_and_gradients(batch)
        assert relative(value[[0, -1]], wanted[0]) < 1e-13
        for found, right in zip(gradients, wanted[1], strict=True):
            assert (found[[0, -1]] - right).abs().max() <= 1e-12 * right.abs().max().clamp_min(1.0)
        for i, label in enumerate(BAD):
            item = value[1 + i]
            assert not item.isfinite().any() if label == "infinite" else item.isnan().all(), (letter, label)


@every_other
def test_wrong_shapes_and_dtypes(phi):
    m = SPDKernel(phi)
    for wrong in (torch.ones(2, 3), torch.ones(3), torch.ones(0, 0), torch.eye(3, dtype=torch.int64), "x"):
        assert m.check_point_on_manifold(wrong) is False
        for f in (m.assert_check_point_on_manifold, lambda a: m.dist(a, a), lambda a: m.expmap(a, a)):
            with pytest.raises(ValueError, match="SPDKernel"):
                f(wrong)
    with pytest.raises(ValueError, match="SPDKernel"):
        m.logmap(torch.eye(2), torch.eye(3))
    for size in ((2, 3), (3,), (0, 0)):
        with pytest.raises(ValueError, match="SPDKernel"):
            m.random(*size)


@every_other
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, F32])
def test_few_digits_are_computed_in_more(phi, dtype):
    """As in float64, rounded; optimizers refuse half precision."""
    m = SPDKernel(phi)
    at = arguments(dtype=dtype)
    wide = {k: a.double() for k, a in at.items()}
    for name in OPERATIONS:
        found, wanted = call(m, name, at), call(m, name, wide)
        near = 16 * torch.finfo(dtype).eps  # a logarithm here is a fifth of its points
        assert found.dtype == dtype and relative(found.double(), wanted) < near, name
    if dtype != F32:
        with pytest.raises(ValueError, match="float16"):
            RiemannianSGD([ManifoldParameter(torch.eye(2, dtype=dtype), m)], lr=0.1)


@every_other
def test_empty_batches(phi):
    m = SPDKernel(phi)
    at = {k: a[:0].clone().requires_grad_() for k, a in arguments().items()}
    for name, letters in OPERATIONS.items():
        found = getattr(m, name)(*(at[k] for k in letters))
        found = found if isinstance(found, tuple) else (found,)
        assert all(a.shape[0] == 0 for a in found), name
        total = sum(a.sum() for a in found)
        assert all(g.shape == (0, 2, 2) for g in torch.autograd.grad(total, list(at.values()), materialize_grads=True))
    assert m.frechet_mean(at["x"].detach().expand(4, 0, 2, 2)).shape == (0, 2, 2)


@every_other
@pytest.mark.parametrize("dtype, exponent", [(F64, -300), (F64, 300), (F32, -60), (F32, 60)])
def test_operations_scale_with_the_points(phi, dtype, exponent):
    """To s x, with vectors s u, belong the same numbers times powers of s = 2^k; s^(1 - theta/2) for lengths."""
    m, s, r = SPDKernel(phi), 2.0**exponent, 1 - phi.degree / 2
    at = arguments(dtype=dtype)
    moved = {k: s * a for k, a in at.items()}
    assert m.check_point_on_manifold(moved["x"])
    # Logarithms of points are as large as log s, and what they leave of a vector is as good.
    near = 16 * torch.finfo(dtype).eps * (1 + abs(exponent))
    for name in ("norm", "expmap", "logmap", "retr", "inverse_retr", "dist", "parallel_transport", "midpoint"):
        degree = r if name in ("norm", "dist") else 1
        assert relative(call(m, name, moved), s**degree * call(m, name, at)) < near, name


@pytest.mark.parametrize(
    ("phi", "length"), [(ArithmeticMean(power=2.0), 1.0), (BogoliubovKuboMori(), 1e-3), (HarmonicMean(power=2.0), 1e-4)]
)
def test_points_of_condition_1e6(phi, length):
    """Geodesics arrive, carry vectors by an isometry, and are as long as their distances, up to rounding of their
    ends; long ones of the squared harmonic mean are NaN here."""
    m = SPDKernel(phi)
    x = SPDAffineInvariant().random_spectrum(8, 3, 3, condition=1e6, generator=generator(3), dtype=F64)
    u = m.random_tangent(x, generator(4))
    u = length * u / m.norm(x, u, keepdim=True)
    y, w = m.expmap_transp(x, u, u)
    assert m.check_point_on_manifold(y)
    lengths = m.norm(x, u)
    assert relative(m.norm(y, w), lengths) < 1e-10 / length
    assert relative(m.dist(x, y), lengths) < 1e-10 / length
    if isinstance(phi, HarmonicMean):
        assert m.expmap(x, u / length).isnan().any()
