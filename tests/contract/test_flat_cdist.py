"""Tables of Euclidean distances where no derivative is wanted: torch's loop, at every size of numbers."""

import pytest
import torch

from torchriemann.manifolds import Euclidean
from torchriemann.manifolds.functional import flat_pairwise, pairwise

F64, F32 = torch.float64, torch.float32


def sets(d, dtype=F32):
    g = torch.Generator().manual_seed(0)
    return torch.randn(2, 30, d, generator=g, dtype=F64).to(dtype), torch.randn(2, 40, d, generator=g, dtype=F64).to(
        dtype
    )


def truth(x, y):
    x, y = x.double(), y.double()
    size = torch.exp2(torch.maximum(x.abs().amax(), y.abs().amax()).log2().floor())  # rounds nothing
    return (x.unsqueeze(-2) / size - y.unsqueeze(-3) / size).norm(dim=-1) * size


@pytest.mark.parametrize("tile", [50, 1 << 18])
@pytest.mark.parametrize("d", [1, 3, 100, 3000])
def test_tables_at_every_scale(d, tile, monkeypatch):
    calls = []
    cdist = torch.cdist
    monkeypatch.setattr(pairwise, "_TILE", tile * d if tile == 50 else tile)
    monkeypatch.setattr(flat_pairwise.torch, "cdist", lambda *a, **k: calls.append(1) or cdist(*a, **k))
    for dtype, scales in ((F32, (1e-30, 1e-10, 1.0, 1e10, 1e30)), (F64, (1e-200, 1.0, 1e200))):
        x, y = sets(d, dtype)
        y[:, :5] = x[:, :5] * (1 + 1e-6)
        for scale in scales:
            a, b = scale * x, scale * y
            got = Euclidean().cdist(a, b)
            want = truth(a, b)
            assert ((got - want).abs() <= 20 * torch.finfo(dtype).eps * want).all()
            assert (Euclidean().cdist(a, a).diagonal(dim1=-2, dim2=-1) == 0).all()
    assert calls


def test_points_of_very_different_sizes():
    x, y = sets(3)
    x[:, :15] *= 1e-30
    y[:, :20] *= 1e-30
    x[:, 15:] *= 1e30
    want = (x.double().unsqueeze(-2) - y.double().unsqueeze(-3)).norm(dim=-1)
    torch.testing.assert_close(Euclidean().cdist(x, y).double(), want, rtol=1e-6, atol=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_point_stays_with_itself(bad):
    x, y = sets(5)
    want = Euclidean().cdist(x, y)
    x[1, 3, 2] = bad
    got = Euclidean().cdist(x, y)
    assert got[1, 3].isnan().all()
    got[1, 3] = want[1, 3]
    torch.testing.assert_close(got, want, rtol=1e-6, atol=0)


def test_edges():
    x, y = sets(3)
    m = Euclidean()
    assert m.cdist(x[:, :0], y).shape == (2, 0, 40) and m.cdist(x, y[:, :0]).shape == (2, 30, 0)
    torch.testing.assert_close(m.cdist(x[:, None], y[0]), truth(x[:, None], y[0]).float(), rtol=1e-6, atol=0)
    leaf = x.clone().requires_grad_()
    assert m.cdist(leaf, y).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(m.cdist(leaf, y), m.cdist(x, y))
    zero = torch.zeros(4, 3)
    assert (m.cdist(zero, zero) == 0).all()
    torch.testing.assert_close(m.cdist(zero, y[0]), y[:1].norm(dim=-1).expand(4, -1), rtol=1e-6, atol=0)
