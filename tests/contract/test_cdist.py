"""Tables of distances: those of `dist`, derivatives included, in the memory of arguments and result."""

import dataclasses
import weakref

import pytest
import torch
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from torchriemann.manifolds import Euclidean, Grassmann, Orthogonal, Power, Product, Scaled, Sphere
from torchriemann.manifolds.constant_curvature.klein import Klein
from torchriemann.manifolds.constant_curvature.lorentz import Lorentz
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall, ProjectedSphere, Stereographic
from torchriemann.manifolds.functional import pairwise

F64 = torch.float64
SPACES = {
    Euclidean(): (3,),
    Sphere(0.5): (4,),
    Lorentz(): (4,),
    PoincareBall(-2.0): (3,),
    Klein(): (3,),
    ProjectedSphere(): (3,),
    Grassmann(): (5, 2),
    Power(Sphere(), 2): (2, 3),
    Product((Scaled(Lorentz(), 2.0), Euclidean()), ((3,), (2,))): (5,),
}


@pytest.fixture
def small_tiles(monkeypatch):
    monkeypatch.setattr(pairwise, "_TILE", 40)


def draw(m, *size, seed=0, dtype=F64, std=0.4):
    generator = torch.Generator().manual_seed(seed)
    return m.random_normal(*size, std=std, generator=generator, dtype=dtype)


def sets(m, shape):
    """Two sets, one of them with a batch, of sizes that tiles do not divide."""
    return draw(m, 2, 5, *shape), draw(m, 7, *shape, seed=1)


def broadcast(m, x, y):
    return m.dist(x.unsqueeze(-m.ndim - 1), y.unsqueeze(-m.ndim - 2))


def derivatives(function, x, y, order):
    """The weighted sum of the squares, and its gradients up to `order`."""
    leaves = [z.clone().requires_grad_() for z in (x, y)]
    values = function(*leaves)
    found, total = [values.detach()], (values.square() * torch.linspace(1, 2, 7, dtype=x.dtype)).sum()
    for k in range(order):
        gradients = torch.autograd.grad(total, leaves, create_graph=k + 1 < order)
        found += gradients
        total = sum((g.square().sum() for g in gradients), torch.zeros(()))
    return found


def hold(got, want):
    for g, w in zip(got, want, strict=True):
        g, w = g.detach(), w.detach()
        torch.testing.assert_close(g, w, rtol=0, atol=1e-11 * max(1.0, float(w.abs().max())))


@pytest.mark.parametrize("m", SPACES, ids=repr)
def test_tiles_are_the_distances_with_two_derivatives(m, small_tiles):
    x, y = sets(m, SPACES[m])
    hold(
        derivatives(m.cdist, x, y, 2),
        derivatives(lambda x, y: broadcast(m, x, y), x, y, 2),
    )
    with torch.no_grad():
        hold([m.cdist(x, y)], [broadcast(m, x, y)])


@pytest.mark.parametrize("m", [Lorentz(), Grassmann()], ids=repr)
def test_tiles_under_transforms(m, small_tiles):
    x, y = sets(m, SPACES[m])
    u = draw(m, 2, 5, *SPACES[m], seed=2)

    def both(use):
        return use(m.cdist), use(lambda x, y: broadcast(m, x, y))

    hold(*both(lambda f: [torch.func.vmap(f, (0, None))(x, y)]))
    hold(*both(lambda f: [torch.func.jvp(lambda x: f(x, y), (x,), (u,))[1]]))
    hold(*both(lambda f: [torch.func.vmap(torch.func.grad(lambda x: f(x, y).sum()))(x)]))
    weights = torch.ones(3, 2, 5, 7, dtype=F64).cumsum(0)
    leaf = x.clone().requires_grad_()
    for graph in (False, True):
        grads = {"is_grads_batched": True, "create_graph": graph}
        hold(*both(lambda f, grads=grads: torch.autograd.grad(f(leaf, y), leaf, weights, **grads)))

    def forward_mode(f):
        with forward_ad.dual_level():
            return [forward_ad.unpack_dual(f(forward_ad.make_dual(leaf, u), y)).tangent.detach()]

    hold(*both(forward_mode))


def test_tiles_compile_in_one_graph(small_tiles):
    m = Lorentz()
    x, y = sets(m, (4,))
    torch.compiler.reset()
    compiled = torch.compile(m.cdist, fullgraph=True, backend="aot_eager")
    hold(derivatives(compiled, x, y, 1), derivatives(m.cdist, x, y, 1))
    torch.compiler.reset()


@pytest.mark.parametrize("kind", [Lorentz, Stereographic, Sphere])
def test_a_curvature_learns_through_tiles(kind, small_tiles):
    def learned(table):
        K = torch.tensor(-0.5 if kind is Lorentz else 0.5, dtype=F64, requires_grad=True)
        m = kind(2 * K)  # not a leaf
        x, y = sets(dataclasses.replace(m, curvature=2 * K.detach()), (4,))
        (first,) = torch.autograd.grad(table(m, x, y).square().sum(), K, create_graph=True)
        return [first, *torch.autograd.grad(first, K)]

    hold(learned(lambda m, x, y: m.cdist(x, y)), learned(broadcast))


def test_other_sets(small_tiles):
    m = Sphere()
    for sizes in ((0, 5), (5, 0), (0, 0), (1, 9)):
        x, y = (draw(m, n, 4, seed=n).requires_grad_() for n in sizes)
        table = m.cdist(x, y)
        assert table.shape == sizes
        table.sum().backward()
        assert x.grad is not None and x.grad.shape == x.shape
    half = draw(m, 9, 4, dtype=torch.float32).bfloat16()
    assert m.cdist(half, half).dtype == torch.bfloat16
    mixed = m.cdist(half.float(), draw(m, 9, 4))
    assert mixed.dtype == F64
    far = Orthogonal().cdist(torch.eye(3).expand(9, 3, 3), -torch.eye(3).expand(9, 3, 3))
    assert far.isinf().all()
    with pytest.raises(ValueError, match=r"Sphere.cdist: expected sets of points"):
        m.cdist(half[0], half)
    x = draw(m, 9, 4).requires_grad_()
    square = m.cdist(x, x)
    square.sum().backward(retain_graph=True)
    once = x.grad.clone()
    square.sum().backward()
    torch.testing.assert_close(x.grad, 2 * once)


def test_a_bad_point_has_its_own_row_and_column(small_tiles):
    m = Grassmann()
    x, y = draw(m, 6, 5, 2), draw(m, 7, 5, 2, seed=1)
    want = derivatives(m.cdist, x, y, 1)
    x[2, 0, 0], y[3] = torch.nan, torch.inf
    got = derivatives(m.cdist, x, y, 1)
    assert got[0][2].isnan().all() and got[0][:, 3].isnan().all()
    rows, columns = torch.arange(6) != 2, torch.arange(7) != 3
    torch.testing.assert_close(got[0][rows][:, columns], want[0][rows][:, columns])


# ---- memory and accuracy --------------------------------------------------------------------------------------


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive."""

    def __init__(self):
        super().__init__()
        self.now = self.peak = 0
        self.known = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for a in tree_leaves(out):
            if isinstance(a, torch.Tensor) and a.untyped_storage()._cdata not in self.known:
                storage = a.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self.freed, storage._cdata, storage.nbytes())
        return out

    def freed(self, key, size):
        self.known.discard(key)
        self.now -= size


LEARNED = Lorentz(torch.tensor(-1.0, requires_grad=True))


@pytest.mark.parametrize("m", [Euclidean(), Sphere(), Lorentz(), PoincareBall(), Klein(), LEARNED], ids=repr)
def test_memory_is_that_of_arguments_and_result(m):
    n, d = 256, 128
    drawn = (draw(m, n, d, seed=k, std=d**-0.5, dtype=torch.float32) for k in range(2))
    x, y = (z.detach().requires_grad_() for z in drawn)
    with LiveBytes() as live:
        table = m.cdist(x, y)
        table.sum().backward()
    assert x.grad.isfinite().all()
    tile = 4 * pairwise._TILE
    assert live.peak < 4 * (table.nbytes + x.nbytes + y.nbytes) + 20 * tile  # the broadcast has 32 tiles, many times


@pytest.mark.parametrize("apart", [1e-6, 1e-4, 1.0])
@pytest.mark.parametrize(
    "m",
    [Euclidean(), Sphere(), Lorentz(), PoincareBall(), Klein(), Stereographic(0.5), Stereographic(-0.5), Grassmann()],
    ids=repr,
)
def test_near_and_far_pairs_are_as_accurate_as_dist(m, apart):
    shape, n = (64, 4) if m.ndim == 2 else (512,), 40 if m.ndim == 2 else 24
    x = draw(m, n, *shape, std=shape[0] ** -0.5, dtype=torch.float32)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(5))
    y = m.projx(x * (1 + apart * noise)) if apart < 1 else draw(m, n, *shape, std=shape[0] ** -0.5, seed=3).float()
    truth = broadcast(m, x.double(), y.double())
    pairs, every = m.dist(x, y).double(), m.cdist(x, y).double()
    assert x.numel() * n > pairwise._TILE
    near = truth.diagonal()
    assert ((every.diagonal() - near).abs() <= 1.01 * (pairs - near).abs() + 1e-6 * near).all()
    plain = (broadcast(m, x, y).double() - truth).abs()
    assert ((every - truth).abs() <= 1.01 * plain + 1e-6 * truth).all()
