"""Updated truncated singular value decompositions against numpy's of the whole, and scikit-learn's incremental PCA."""

import math

import numpy as np
import pytest
import torch

from tests.support.truncated_svd import F32, F64, decomposes, drift, either, low_rank, noise
from torchriemann.manifolds import Grassmann, ProductSVD, Stiefel, TruncatedSVD

# ---- exactness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 4), (4, 7), (5, 5), (2, 1), (1, 3)])
def test_a_start_is_the_best_approximation(shape):
    x = noise(3, *shape)
    for rank in (1, 3, 9):
        svd = TruncatedSVD.of_matrix(x, rank)
        assert svd.rank == min(rank, *shape)
        decomposes(svd, x)


@pytest.mark.parametrize("r", [1, 3, 7])
@pytest.mark.parametrize("batch", [(), (2, 3)])
@either
def test_rows_and_columns_within_the_rank_are_exact(kind, batch, r):
    """As many as there are, one after another: rows, then columns, then a sum."""
    x = low_rank(20, 29, 5, *batch)
    svd = kind(TruncatedSVD.of_matrix(x[..., :6, :15], 8))
    if svd.rank < 8:
        svd = svd.append_rows(x[..., :0, :15], rank=8)
    for i in range(6, 20, r):
        svd = svd.append_rows(x[..., i : i + r, :15])
    decomposes(svd, x[..., :15])
    for i in range(15, 29, r):
        svd = svd.append_columns(x[..., i : i + r])
    decomposes(svd, x)
    a, b = noise(*batch, 20, 1, seed=5), noise(*batch, 29, 1, seed=6)
    svd = svd.add_low_rank(a, b)
    decomposes(svd, x + a @ b.mT)
    decomposes(svd.add_low_rank(-a, b, forgetting=0.5), 0.5 * x - 0.5 * a @ b.mT)


@either
def test_one_update_is_the_best_approximation_of_what_it_is_given(kind):
    x = noise(30, 12)
    svd = kind(TruncatedSVD.of_matrix(x[:25], 6))
    for count in (1, 5):
        rows = x[25 : 25 + count]
        given = torch.cat([0.9 * svd.to_matrix(), rows])
        decomposes(svd.append_rows(rows, forgetting=0.9), given)
    columns = noise(25, 2, seed=3)
    decomposes(svd.append_columns(columns), torch.cat([svd.to_matrix(), columns], -1))


@either
def test_ranks_grow_and_shrink_as_asked(kind):
    x = noise(40, 10)
    svd = kind(TruncatedSVD.of_matrix(x[:2], 10))
    assert svd.rank == 2
    for i in range(2, 40, 2):
        svd = svd.append_rows(x[i : i + 2], rank=10)
    assert svd.rank == 10
    decomposes(svd, x)
    assert svd.append_rows(x[:1], rank=3).rank == 3
    assert TruncatedSVD.of_matrix(x, 10).append_rows(x[:0], rank=4).u.shape == (40, 4)


@either
def test_rows_of_zero_repeated_rows_and_rows_of_one_entry(kind):
    """What leaves nothing outside of the span: new directions are then anything, and stay orthonormal."""
    x = torch.zeros(40, 9, dtype=F64)
    x[3:20, 2] = 2.0
    x[20:, 5] = 1.0
    x[30] = x[31]
    svd = kind(TruncatedSVD.of_matrix(x[:8], 6))
    for i in range(8, 40):
        svd = svd.append_rows(x[i : i + 1])
        assert drift(svd) < 60
    decomposes(svd, x)


@either
def test_small_rests_keep_their_digits(kind):
    """A direction of 1e-9 beside rows of size one: squares would lose it."""
    x = low_rank(40, 30, 3)
    x = x + 1e-9 * noise(40, 1, seed=3) @ noise(1, 30, seed=4)
    svd = kind(TruncatedSVD.of_matrix(x[:10], 4))
    for i in range(10, 40):
        svd = svd.append_rows(x[i : i + 1])
    want = torch.linalg.svdvals(x)[3]
    assert want < 1e-6
    torch.testing.assert_close(svd.s[3], want, rtol=1e-5, atol=0)


# ---- error bounds ---------------------------------------------------------------------------------------------


@either
def test_what_updates_cut_off_bounds_the_error(kind):
    x, k, forgetting = noise(60, 15) * 0.8 ** torch.arange(15), 5, 0.95
    svd, whole = kind(TruncatedSVD.of_matrix(x[:5], k)), x[:5]
    bound = squares = 0.0
    for i in range(5, 60):
        row = x[i : i + 1]
        energy = (forgetting * svd.s).square().sum() + row.square().sum()
        svd, whole = svd.append_rows(row, forgetting=forgetting), torch.cat([forgetting * whole, row])
        lost = float(energy - svd.s.square().sum())
        bound, squares = forgetting * bound + math.sqrt(max(lost, 0.0)), forgetting**2 * squares + lost
        error = torch.linalg.matrix_norm(whole - svd.to_matrix())
        least = torch.linalg.svdvals(whole)[k:].square().sum().sqrt()
        assert least - 1e-12 <= error <= bound + 1e-12
        excess = torch.linalg.eigvalsh(whole.mT @ whole - (svd.v * svd.s.square()) @ svd.v.mT)
        assert -1e-12 <= excess[0]
        assert excess[-1] <= squares + 1e-12
    assert error < 1.5 * least  # and it is far from the bound


def hold_orthonormal(kind, dtype, updates):
    rows = noise(updates, 1, 20, dtype=dtype)
    a, b = noise(updates, 30, 1, seed=2, dtype=dtype), noise(updates, 20, 1, seed=3, dtype=dtype)
    grown = sums = kind(TruncatedSVD.of_matrix(noise(30, 20, seed=1, dtype=dtype), 8))
    for i in range(updates):
        grown = grown.append_rows(rows[i], forgetting=0.99)
        sums = sums.add_low_rank(a[i], b[i], forgetting=0.99)
        if i % 100 == 99:
            assert drift(grown) < 100
            assert drift(sums) < 100
    if isinstance(grown, ProductSVD):
        assert drift(grown.multiplied()) < 20


@pytest.mark.parametrize("dtype", [F64, F32])
@either
def test_frames_stay_orthonormal(kind, dtype):
    hold_orthonormal(kind, dtype, 500)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [F64, F32])
@either
def test_frames_stay_orthonormal_over_ten_thousand_updates(kind, dtype):
    hold_orthonormal(kind, dtype, 10_000)


# ---- beside others --------------------------------------------------------------------------------------------


@either
def test_incremental_pca_of_scikit_learn(kind):
    """Which appends the rows less their mean, and one row for the change of the mean."""
    decomposition = pytest.importorskip("sklearn.decomposition")
    x, k, size = noise(120, 9).numpy() + np.linspace(0, 3, 9), 4, 20
    pca = decomposition.IncrementalPCA(k)
    svd, mean, seen = None, np.zeros(9), 0
    for batch in np.split(x, 120 // size):
        pca.partial_fit(batch)
        centre = batch.mean(0)
        rows = batch - centre
        if svd is None:
            svd = kind(TruncatedSVD.of_matrix(torch.from_numpy(rows), k))
        else:
            change = math.sqrt(seen * size / (seen + size)) * (mean - centre)
            svd = svd.append_rows(torch.from_numpy(np.vstack([rows, change])))
        mean, seen = (seen * mean + size * centre) / (seen + size), seen + size
        np.testing.assert_allclose(svd.s, pca.singular_values_, rtol=1e-12)
        assert Grassmann().dist(svd.v, torch.from_numpy(pca.components_.T)) < 1e-12


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("layout", ["coo", "csr"])
@either
def test_sparse_rows_are_as_dense_ones(kind, layout):
    x = noise(30, 12) * (noise(30, 12, seed=1) > 0.7)
    sparse = {"coo": torch.Tensor.to_sparse_coo, "csr": torch.Tensor.to_sparse_csr}[layout]
    svd = kind(TruncatedSVD.of_matrix(sparse(x[:20]), 6))
    dense = kind(TruncatedSVD.of_matrix(x[:20], 6))
    torch.testing.assert_close(svd.s, dense.s)
    for part in (x[20:22], x[22:30]):
        svd, dense = svd.append_rows(sparse(part)), dense.append_rows(part)
        torch.testing.assert_close(svd.to_matrix(), dense.to_matrix())
    columns = noise(30, 3, seed=2) * (noise(30, 3, seed=3) > 0.5)
    torch.testing.assert_close(svd.append_columns(sparse(columns)).s, dense.append_columns(columns).s)


def test_products_are_made_anew_in_time():
    svd = ProductSVD.of(TruncatedSVD.of_matrix(noise(30, 20), 8))
    pending = []
    for i in range(12):
        svd = svd.append_rows(noise(1, 20, seed=i))
        pending.append(svd.pending)
    assert pending == [1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 3, 4]
    assert svd.append_rows(1e3 * noise(6, 20, seed=3)).pending == 0  # hardly anything is left of the old rows
    assert svd.append_rows(noise(8, 20)).pending == 0


@either
def test_frames_are_points(kind):
    svd = kind(TruncatedSVD.of_matrix(noise(3, 30, 20), 5)).append_rows(noise(3, 2, 20, seed=1))
    for frame in (svd.u, svd.v):
        assert Grassmann().check_point_on_manifold(frame)
        assert Stiefel().check_point_on_manifold(frame)
