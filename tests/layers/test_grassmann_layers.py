"""Networks on subspaces: maps, bases and means against scipy; derivatives of spans; a network that trains."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from torchriemann.layers import FRMap, GrassmannPool, GyroTranslation, OrthMap, ProjMap, ReOrth
from torchriemann.manifolds import Grassmann
from torchriemann.manifolds.precision import in_full_precision
from torchriemann.optim import RiemannianAdam, param_groups
from torchriemann.testing import check_layer

DOUBLE = {"dtype": torch.float64}
M = Grassmann()


class Span(nn.Module):
    """The projector on what a layer spans."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    @in_full_precision
    def forward(self, x):
        return M.projector(self.layer(x))

    def extra_repr(self):
        return f"layer={self.layer!r}"


def top(matrix, p):
    """The projector on the p leading eigenvectors, by scipy."""
    vectors = scipy.linalg.eigh(matrix)[1][:, -p:]
    return vectors @ vectors.T


def near(count, n, p, *batch):
    """Bases of subspaces of which the mean is clear."""
    x = M.random_uniform(*batch, 1, n, p, **DOUBLE).expand(*batch, count, n, p)
    return M.expmap(x, M.proju(x, 0.2 * torch.randn(*batch, count, n, p, **DOUBLE)))


# ---- maps and bases -------------------------------------------------------------------------------------------


def test_a_full_rank_map_has_orthonormal_rows_and_maps_the_span():
    layer = FRMap(7, 4, 2, **DOUBLE)
    w = layer.weight.detach().mT
    assert torch.allclose(w @ w.mT, torch.eye(4, **DOUBLE).expand(2, 4, 4), atol=1e-12)
    x = M.random_uniform(5, 2, 7, 3, **DOUBLE)
    y = nn.Sequential(layer, ReOrth(), ProjMap())(x)
    for i in range(5):
        for c in range(2):
            basis = scipy.linalg.orth((w[c] @ x[i, c]).numpy())
            assert np.abs(y[i, c].detach().numpy() - basis @ basis.T).max() < 1e-12


def test_one_input_goes_through_all_maps():
    layer = FRMap(7, 4, 3, **DOUBLE)
    x = M.random_uniform(5, 1, 7, 2, **DOUBLE)
    assert torch.equal(layer(x), layer(x.expand(5, 3, 7, 2).contiguous()))


def test_a_basis_by_qr_and_by_the_polar_factor():
    x = torch.randn(4, 7, 3, **DOUBLE)
    for i in range(4):
        q, r = np.linalg.qr(x[i].numpy())
        assert np.abs(ReOrth()(x)[i].numpy() - q * np.sign(np.diag(r))).max() < 1e-12
        assert np.abs(ReOrth("polar")(x)[i].numpy() - scipy.linalg.polar(x[i].numpy())[0]).max() < 1e-12
    assert torch.allclose(Span(ReOrth())(x), Span(ReOrth("polar"))(x), atol=1e-12)


@pytest.mark.parametrize("method", ["qr", "polar"])
def test_columns_that_depend_on_each_other(method):
    x = torch.randn(7, 2, **DOUBLE)
    x = torch.cat([x, x[:, :1] + x[:, 1:]], -1).requires_grad_()
    y = ReOrth(method)(x)
    assert torch.allclose(y.mT @ y, torch.eye(3, **DOUBLE), atol=1e-12)
    assert (x - y @ (y.mT @ x)).abs().max() < 1e-12  # the span holds that of x
    if method == "polar":
        assert torch.autograd.grad((y * torch.randn(7, 3, **DOUBLE)).sum(), x)[0].isfinite().all()


# ---- leading eigenvectors -------------------------------------------------------------------------------------


def test_leading_eigenvectors_of_the_symmetric_part():
    x = torch.randn(4, 6, 6, **DOUBLE)
    for i in range(4):
        want = top((x[i] + x[i].mT).numpy() / 2, 2)
        assert np.abs(Span(OrthMap(2))(x)[i].numpy() - want).max() < 1e-12


@pytest.mark.parametrize(
    ("layer", "shape"), [(OrthMap(2), (5, 5)), (GrassmannPool(), (3, 7, 2)), (GrassmannPool(2, 1), (3, 4, 2))]
)
def test_spans_obey_the_laws_of_which_bases_are_exempt(layer, shape):
    def draw(t):
        return (t.noise(*t.batch, *shape) if isinstance(layer, OrthMap) else t.random(M, *t.batch, *shape),)

    names = {
        "gradients_are_those_of_finite_differences", "gradients_are_finite", "conversions_keep_points_and_values",
        "vmap_equals_batching", "batches_are_items_side_by_side",
    }  # fmt: skip
    points = {} if isinstance(layer, OrthMap) else {0: M}
    tolerance = {"conversions_keep_points_and_values": 64}  # eps over the gap
    assert set(check_layer(lambda **_: Span(layer), draw, laws=names, points=points, tolerance=tolerance)) == names


def test_the_derivative_where_eigenvalues_of_the_block_coincide():
    x = torch.tensor([2.0, 2.0, 0.5, 0.5, 0.1], **DOUBLE).diag()
    weight, v = torch.randn(2, 5, 5, **DOUBLE)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad((Span(OrthMap(2))(leaf) * weight).sum(), leaf)
    assert g.isfinite().all()
    h = 1e-5
    ahead, behind = (np.sum(top((x + s * h * (v + v.mT) / 2).numpy(), 2) * weight.numpy()) for s in (1, -1))
    assert abs(float((g * v).sum()) - (ahead - behind) / (2 * h)) < 1e-8
    # Of single eigenvectors there is no derivative: the other way of writing the layer.
    leaf = x.clone().requires_grad_()
    vectors = torch.linalg.eigh(leaf)[1][:, -2:]
    (theirs,) = torch.autograd.grad((vectors @ vectors.mT * weight).sum(), leaf)
    assert theirs.isnan().any()


# ---- means ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "n", "p"), [(3, 10, 3), (3, 5, 2), (1, 6, 2), (4, 8, 2), (2, 3, 3)])
def test_means_are_the_leading_eigenvectors_of_mean_projectors(count, n, p):
    x = near(count, n, p, 4)
    got = Span(GrassmannPool())(x)
    assert GrassmannPool()(x).shape == (4, n, p)
    for i in range(4):
        want = top((x[i] @ x[i].mT).mean(0).numpy(), p)
        assert np.abs(got[i].numpy() - want).max() < 1e-12


def test_means_over_windows_of_channels():
    x = near(7, 10, 2, 4)
    pooled = GrassmannPool(3, 2)(x)
    assert pooled.shape == (4, 3, 10, 2)
    for c in range(3):
        want = M.projector(GrassmannPool()(x[:, 2 * c : 2 * c + 3]))
        assert torch.allclose(M.projector(pooled[:, c]), want, atol=1e-12)
    assert GrassmannPool(3)(x).shape == (4, 2, 10, 2)


def test_the_mean_from_bases_side_by_side_has_the_derivatives_of_that_from_projectors():
    x = near(3, 9, 2).requires_grad_()

    def side_by_side(x):
        return M.projector(GrassmannPool()(x))

    def from_projectors(x):
        return M.projector(OrthMap(2)(M.projector(x).mean(-3)))

    weight, v = torch.randn(9, 9, **DOUBLE), torch.randn(3, 9, 2, **DOUBLE)
    seconds = []
    for mean in (side_by_side, from_projectors):
        (g,) = torch.autograd.grad((mean(x) * weight).sum(), x, create_graph=True)
        seconds.append((g.detach(), torch.autograd.grad((g * v).sum(), x)[0]))
    for got, want in zip(*seconds, strict=True):
        assert torch.allclose(got, want, rtol=1e-9, atol=1e-10)


def test_equal_subspaces_and_orthogonal_ones_have_finite_gradients():
    equal = near(1, 9, 2).expand(3, 9, 2).contiguous()
    orthogonal = torch.eye(9, **DOUBLE)[:, :6].unflatten(-1, (3, 2)).movedim(1, 0).contiguous()
    for x in (equal, orthogonal):
        x.requires_grad_()
        y = GrassmannPool()(x)
        assert torch.allclose(y.mT @ y, torch.eye(2, **DOUBLE), atol=1e-12)
        assert torch.autograd.grad((y * torch.randn(9, 2, **DOUBLE)).sum(), x)[0].isfinite().all()
    assert torch.allclose(M.projector(GrassmannPool()(equal)), M.projector(equal[0]), atol=1e-12)


# ---- networks -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("autocast", [False, True])
def test_a_network_on_subspaces_learns(autocast):
    torch.manual_seed(0)
    labels = torch.arange(60) % 3
    centre = M.random_uniform(3, 12, 3)[labels]
    x = M.expmap(centre, M.proju(centre, 0.2 * torch.randn(60, 12, 3))).unsqueeze(1)
    network = nn.Sequential(
        FRMap(12, 8, 4), ReOrth(), GyroTranslation(M, (8, 3), 4), GrassmannPool(2), ProjMap(), nn.Flatten(),
        nn.Linear(2 * 64, 3),
    )  # fmt: skip
    optimizer = RiemannianAdam(param_groups(network), lr=2e-2)
    for _ in range(40):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(network(x).float(), labels)
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
        optimizer.step()
    assert loss < 0.2


def test_what_they_refuse():
    with pytest.raises(ValueError, match="FRMap: out_features must be at most in_features = 3"):
        FRMap(3, 4)
    with pytest.raises(ValueError, match=r"FRMap: x must have the shape \(\*B, 2, 5, _\), got \(4, 3, 5, 1\)"):
        FRMap(5, 3, 2)(torch.zeros(4, 3, 5, 1))
    with pytest.raises(ValueError, match=r"ReOrth: method must be one of \('qr', 'polar'\), got 'svd'"):
        ReOrth("svd")
    for layer in (ReOrth(), ProjMap()):
        with pytest.raises(ValueError, match=rf"{type(layer).__name__}: x must be \*B,n,p with 1 <= p <= n"):
            layer(torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"OrthMap: x must be \*B,n,n with n >= p = 3, got \(2, 2\)"):
        OrthMap(3)(torch.eye(2))
    with pytest.raises(ValueError, match="OrthMap: p must be a positive integer, got 0"):
        OrthMap(0)
    with pytest.raises(ValueError, match="GrassmannPool: a stride needs a kernel_size"):
        GrassmannPool(stride=2)
    with pytest.raises(ValueError, match=r"GrassmannPool: x must be \*B,C,n,p .*at least 4 channel\(s\)"):
        GrassmannPool(4)(torch.zeros(3, 5, 2))
