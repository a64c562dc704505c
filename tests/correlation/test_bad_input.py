"""What is no point, next to points; the smallest matrices, empty batches, singular input, under all five metrics."""

import re
import warnings

import pytest
import torch

from tests.support.correlation import METRICS, OPERATIONS, arguments, call, generator, of_condition
from torchriemann import ManifoldParameter
from torchriemann.manifolds.functional.definite import positive_definite

F64, F32 = torch.float64, torch.float32
every_metric = pytest.mark.parametrize("m", METRICS, ids=lambda m: m.name)

# Matrices of three rows that are no points, of which what is read is off the diagonal.
BAD = {
    "not positive": torch.tensor([[1.0, 0.9, -0.9], [0.9, 1.0, 0.9], [-0.9, 0.9, 1.0]], dtype=F64),
    "too large": torch.tensor([[1.0, 3.0, 0.0], [3.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=F64),
    "singular": torch.ones(3, 3, dtype=F64),
    "opposite": torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=F64),
    "nan": torch.tensor([[1.0, torch.nan, 0.0], [torch.nan, 1.0, 0.0], [0.0, 0.0, 1.0]], dtype=F64),
    "infinite": torch.tensor([[1.0, 0.0, torch.inf], [0.0, 1.0, 0.0], [torch.inf, 0.0, 1.0]], dtype=F64),
}


@every_metric
@pytest.mark.parametrize("dtype", [F64, F32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", BAD)
def test_checks_say_what_is_no_point(m, name, dtype):
    bad = BAD[name].to(dtype)
    batch = torch.stack([torch.eye(3, dtype=dtype), bad])
    for x in (bad, batch):
        answer, reason = m.check_point_on_manifold(x, explain=True)
        assert answer is False and "eigenvalue" in reason
        with pytest.raises(ValueError, match=f"{m.name}.*eigenvalue"):
            m.assert_check_point_on_manifold(x)
    if bad.isfinite().all() and dtype in (F64, F32):
        mended = ManifoldParameter.project(batch, m).detach()
        assert m.check_point_on_manifold(mended) and torch.equal(mended[0], batch[0])


@every_metric
def test_wrong_shapes_and_dtypes(m):
    wrong = (torch.ones(2, 3), torch.ones(3), torch.ones(0, 0), torch.ones(1, 1), torch.eye(3, dtype=torch.int64), "x")
    for x in wrong:
        assert m.check_point_on_manifold(x) is False
        for name in ("dist", "logmap", "expmap", "inner"):
            with pytest.raises(ValueError, match=rf"{m.name}\.{name}"):
                getattr(m, name)(x, x)
    for size in ((2, 3), (3,), (0, 0), (1, 1)):
        for name in ("random", "random_lkj", "random_normal", "origin"):
            with pytest.raises(ValueError, match=m.name):
                getattr(m, name)(*size)
    with pytest.raises(ValueError, match=f"{m.name}.dist: .*different shapes"):
        m.dist(torch.eye(2), torch.eye(3))
    with pytest.raises(ValueError, match=f"{m.name}.dist: batch dimensions"):
        m.dist(torch.eye(3).expand(2, 3, 3), torch.eye(3).expand(4, 3, 3))


@every_metric
def test_what_is_no_correlation_matrix_is_named(m):
    """With the residual and what to do; entries on the diagonal, and above it, are a matter of the symmetric part."""
    skew, scaled = torch.eye(3, dtype=F64), 1.5 * torch.eye(3, dtype=F64)
    skew[0, 1] = 0.1
    for x, residual in ((skew, r"max\|x - x\^T\| = 0.1"), (scaled, r"max\|x_ii - 1\| = 0.5")):
        with pytest.raises(ValueError, match=rf"{m.name}.*{residual}.*projx"):
            m.assert_check_point_on_manifold(x)
        assert m.check_point_on_manifold(m.projx(x))
    for u in (skew, scaled):
        with pytest.raises(ValueError, match=rf"{m.name}.*u - u\^T.*u_ii"):
            m.assert_check_vector_on_tangent(torch.eye(3, dtype=F64), u)


@every_metric
def test_tensors_without_values(m):
    x = torch.eye(3, device="meta").expand(2, 3, 3)
    assert m.check_point(x)
    with pytest.raises(ValueError, match=f"{m.name}: x is on the meta device"):
        m.assert_check_point_on_manifold(x)
    for name in OPERATIONS:
        at = dict.fromkeys("xyuv", x)
        assert call(m, name, at).is_meta, name


# ---- neighbours -----------------------------------------------------------------------------------------------


def values_and_gradients(m, name, at):
    leaves = {k: v.clone().requires_grad_() for k, v in at.items()}
    value = call(m, name, leaves)
    weights = torch.linspace(1, 2, max(1, value[0].numel()), dtype=value.dtype).reshape(value.shape[1:])
    gradients = torch.autograd.grad((value * weights).sum(), list(leaves.values()), materialize_grads=True)
    return value.detach(), dict(zip(leaves, gradients, strict=True))


@every_metric
@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_no_point_spoils_itself_alone(m, name):
    """Among six bad items in x, and in y, the good ones keep their values and gradients; the bad ones are NaN off the
    diagonal, which is exact."""
    bad = torch.stack(list(BAD.values()))
    good = arguments(m, 2, 3, 3)
    wanted, gradients = values_and_gradients(m, name, good)
    for letter in set("xy") & set(OPERATIONS[name]):
        batch = {k: torch.cat([v[:1], v[:1].expand(len(bad), 3, 3), v[1:]]) for k, v in good.items()}
        batch[letter][1:-1] = bad
        value, found = values_and_gradients(m, name, batch)
        kept = torch.tensor([0, -1])
        torch.testing.assert_close(value[kept], wanted, rtol=1e-11, atol=1e-12)
        for k, g in gradients.items():
            torch.testing.assert_close(found[k][kept], g, rtol=1e-9, atol=1e-10)
        for i, label in enumerate(BAD):
            item = value[1 + i]
            read = item[..., 1, 0] if item.dim() >= 2 else item
            assert not read.isfinite().any(), f"{name} of {label} in {letter} is {item}"


@every_metric
@pytest.mark.parametrize("letter", ["u", "v"])
def test_a_vector_that_is_not_finite_spoils_itself_alone(m, letter):
    good = arguments(m, 3, 3, 3)
    for name, letters in OPERATIONS.items():
        if letter not in letters:
            continue
        batch = {k: v.clone() for k, v in good.items()}
        batch[letter][1] = torch.nan
        value, found = values_and_gradients(m, name, batch)
        wanted, gradients = values_and_gradients(m, name, good)
        kept = torch.tensor([0, 2])
        torch.testing.assert_close(value[kept], wanted[kept], rtol=1e-11, atol=1e-12)
        for k, g in gradients.items():
            torch.testing.assert_close(found[k][kept], g[kept], rtol=1e-9, atol=1e-10)
        item = value[1]
        assert item.isnan().any(), name


@every_metric
def test_means_and_tables_of_bad_items(m):
    x = m.random_normal(4, 3, 3, std=0.5, generator=generator(), dtype=F64)
    spoiled = x.clone()
    spoiled[1] = BAD["not positive"]
    table, kept = m.cdist(spoiled, x), torch.tensor([0, 2, 3])
    torch.testing.assert_close(table[kept], m.cdist(x, x)[kept], rtol=1e-11, atol=1e-7)
    assert table[1].isnan().all()
    weights = torch.tensor([1.0, 0.0, 2.0, 1.0], dtype=F64)
    torch.testing.assert_close(m.frechet_mean(spoiled, weights), m.frechet_mean(x, weights), rtol=1e-9, atol=1e-11)
    pairs = torch.stack([x, x.flip(0)])
    pairs[0, 1] = BAD["singular"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        means = m.frechet_mean(pairs)
    assert means[1, 1, 0].isnan()
    assert all(re.match(rf"{m.name}.frechet_mean.*give it the weight 0", str(w.message)) for w in caught)
    torch.testing.assert_close(means[kept], m.frechet_mean(torch.stack([x, x.flip(0)]))[kept], rtol=1e-9, atol=1e-11)


# ---- sizes and dtypes -----------------------------------------------------------------------------------------


@every_metric
def test_empty_batches(m):
    at = {k: v[:0] for k, v in arguments(m, 2, 3, 3).items()}
    for name in OPERATIONS:
        assert call(m, name, at).shape[0] == 0
    assert m.cdist(at["x"], torch.eye(3, dtype=F64).expand(2, 3, 3)).shape == (0, 2)
    assert m.frechet_mean(at["x"].expand(4, 0, 3, 3)).shape == (0, 3, 3)
    for found in (m.projx(at["x"]), m.random(0, 3, 3), m.random_normal(0, 3, 3), m.correlation(at["x"])):
        assert found.shape == (0, 3, 3)
    assert m.check_point_on_manifold(at["x"])


@every_metric
def test_matrices_of_two_rows_are_points_of_a_line(m):
    """The distance is the integral of the norm of one along the entry; operations are those of a flat coordinate."""
    x, y = (torch.eye(2, dtype=F64) + c * torch.eye(2, dtype=F64).flip(0) for c in (-0.7, 0.4))
    nodes = torch.linspace(0, 1, 2001, dtype=F64)[:, None, None]
    speed = m.norm(x + nodes * (y - x), torch.eye(2, dtype=F64).flip(0).expand(2001, 2, 2))
    torch.testing.assert_close(m.dist(x, y), torch.trapezoid(speed, dx=1 / 2000) * 1.1, rtol=1e-5, atol=0)
    torch.testing.assert_close(m.expmap(x, m.logmap(x, y)), y, rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(m.dist(x, m.midpoint(x, y)), 0.5 * m.dist(x, y), rtol=1e-12, atol=0)
    torch.testing.assert_close(m.frechet_mean(torch.stack([x, y])), m.midpoint(x, y), rtol=1e-10, atol=1e-11)
    assert m.to_normal(x).shape == (1,) and m.basis(x).shape == (1, 2, 2) and m.dimension((2, 2)) == 1
    torch.testing.assert_close(m.logdet_dexp(x, m.logmap(x, y)), torch.tensor(0.0, dtype=F64), rtol=0, atol=1e-12)


@every_metric
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6])
def test_points_in_float32_at_any_condition_that_it_holds(m, condition):
    """Operations in float32 are those of the same numbers in float64 up to the rounding of the result."""
    x, y = (of_condition(40, 6, 6, condition=condition, seed=k, dtype=F32) for k in (0, 1))
    keep = positive_definite(x) & positive_definite(y)
    x, y = x[keep], y[keep]
    assert keep.sum() > 30 and m.check_point_on_manifold(x)
    for name in ("dist", "logmap", "midpoint"):
        want = getattr(m, name)(x.double(), y.double())
        got = getattr(m, name)(x, y).double()
        size = want.abs().flatten(1).amax(1) if want.dim() > 1 else want
        error = ((got - want).abs().flatten(1).amax(1) if want.dim() > 1 else (got - want).abs()) / size
        assert error.max() < 2e-3, f"{name}: {error.max():.1e}"


@every_metric
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_dtypes(m, dtype):
    at = arguments(m, 4, 3, 3, dtype=dtype)
    for name, letters in OPERATIONS.items():
        found = call(m, name, at)
        wide = call(m, name, {k: v.double() for k, v in at.items()})
        assert found.dtype == dtype and (found.double() - wide).abs().max() < 4e-2 * wide.abs().max(), name
        if name in ("expmap", "retr", "midpoint", "gyroadd", "decay"):
            assert m.check_point_on_manifold(found), (name, letters)
