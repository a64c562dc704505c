"""Truncated singular value decompositions in every dtype, under transforms, with bad items and wrong arguments."""

import pytest
import torch

from tests.support.truncated_svd import F32, F64, drift, either, noise
from torchriemann.manifolds import TruncatedSVD


def test_lower_precision_is_computed_in_float32():
    x = noise(10, 6, dtype=torch.bfloat16)
    svd = TruncatedSVD.of_matrix(x, 3)
    assert svd.u.dtype == F32
    more = svd.append_rows(x[:1], forgetting=torch.tensor(0.5, dtype=F64))
    assert more.s.dtype == F32
    assert drift(more) < 60


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@either
def test_what_is_kept_in_lower_precision_goes_on_in_float32(kind, dtype):
    svd = kind(TruncatedSVD.of_matrix(noise(10, 6, dtype=F32), 3))
    kept = type(svd)(*(t.to(dtype) if isinstance(t, torch.Tensor) else t for t in svd))
    rows, a, b = noise(1, 6, seed=1, dtype=dtype), noise(10, 1, seed=2, dtype=dtype), noise(6, 1, seed=3, dtype=dtype)
    columns = noise(10, 1, seed=4, dtype=dtype)
    for moved, exact in (
        (kept.append_rows(rows), torch.cat([svd.to_matrix(), rows.float()])),
        (kept.append_columns(columns), torch.cat([svd.to_matrix(), columns.float()], -1)),
        (kept.add_low_rank(a, b), svd.to_matrix() + a.float() @ b.float().mT),
    ):
        assert moved.s.dtype == moved.u.dtype == moved.v.dtype == F32
        expected = torch.linalg.svdvals(exact)[:3]
        assert torch.allclose(moved.s, expected, rtol=2 * torch.finfo(dtype).eps)
        assert drift(moved) < 60


def test_files_hold_the_tuple(tmp_path):
    svd = TruncatedSVD.of_matrix(noise(10, 6), 3)
    torch.save(tuple(svd), tmp_path / "svd.pt")
    again = TruncatedSVD(*torch.load(tmp_path / "svd.pt", weights_only=True))
    assert all(torch.equal(a, b) for a, b in zip(again, svd, strict=True))


@either
def test_bad_items_and_empty_batches(kind):
    start = kind(TruncatedSVD.of_matrix(noise(3, 20, 12), 5))
    rows = noise(3, 1, 12, seed=1)
    want = start.append_rows(rows).to_matrix()
    rows[1] = torch.nan
    got = start.append_rows(rows).to_matrix()
    torch.testing.assert_close(got[[0, 2]], want[[0, 2]])
    assert got[1].isnan().all()
    empty = kind(TruncatedSVD.of_matrix(torch.zeros(0, 20, 12), 5))
    assert empty.append_rows(torch.zeros(0, 1, 12)).u.shape == (0, 21, 5)
    assert empty.add_low_rank(torch.zeros(0, 20, 1), torch.zeros(0, 12, 1)).v.shape == (0, 12, 5)


@either
def test_vmap_and_compile(kind):
    x, rows = noise(3, 20, 12), noise(3, 2, 12, seed=1)

    def updated(x, rows):
        svd = kind(TruncatedSVD.of_matrix(x, 4)).append_rows(rows, forgetting=0.9)
        return svd.add_low_rank(rows.mT[..., :1].new_ones(22, 1), rows.mT[..., :1]).to_matrix()

    want = torch.stack([updated(*item) for item in zip(x, rows, strict=True)])
    torch.testing.assert_close(torch.vmap(updated)(x, rows), want)
    compiled = torch.compile(updated, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x[0], rows[0]), want[0])


def test_forgetting_by_item():
    svd = TruncatedSVD.of_matrix(noise(2, 10, 6), 6)
    factors = torch.tensor([1.0, 0.1], dtype=F64)
    got = svd.append_rows(noise(2, 1, 6, seed=1), forgetting=factors).to_matrix()
    torch.testing.assert_close(got[..., :10, :], factors[:, None, None] * svd.to_matrix())


@either
def test_wrong_arguments(kind):
    svd = kind(TruncatedSVD.of_matrix(noise(5, 4), 3))
    name = type(svd).__name__
    with pytest.raises(ValueError, match="TruncatedSVD.of_matrix: rank must be a positive integer, got 0"):
        TruncatedSVD.of_matrix(noise(5, 4), 0)
    with pytest.raises(ValueError, match=rf"{name}.append_rows: rows must have 4 columns and the batch \(\), got"):
        svd.append_rows(noise(1, 5))
    with pytest.raises(ValueError, match=rf"{name}.append_rows: rows must have 4 columns"):
        svd.append_rows(noise(2, 1, 4))
    with pytest.raises(ValueError, match=rf"{name}.append_columns: columns must have 5 rows"):
        svd.append_columns(noise(4, 1))
    with pytest.raises(ValueError, match=rf"{name}.add_low_rank: a and b must have as many columns"):
        svd.add_low_rank(noise(5, 1), noise(4, 2))
    with pytest.raises(ValueError, match=r"forgetting must be a factor in \(0, 1\], got 1.5"):
        svd.append_rows(noise(1, 4), forgetting=1.5)
    with pytest.raises(ValueError, match="forgetting must be a number or a tensor of the batch"):
        svd.append_rows(noise(1, 4), forgetting=torch.ones(2))
    with pytest.raises(ValueError, match="rows must be real matrices"):
        svd.append_rows(torch.ones(1, 4, dtype=torch.int64))
