"""For tests of manifolds that are made of others: rows of the table, built from the rows of the parts; and examples."""

import dataclasses

import torch
from torch import Tensor

from torchriemann.manifolds import Euclidean, Grassmann, Power, Product, Scaled, Sphere, Stiefel
from torchriemann.testing import OPERATIONS, Case, Trial

SUMS = ("dist2", "expmap_transp")  # an operation of either kind: added up, and put together
DRAWS = 2  # the formulas are those of the parts, which have rows of their own
OF_A_PRODUCT = ("uniform_law_is_invariant", "extreme_vectors_transport_without_nan", "infinite_injectivity_radius")


def again(case: Case, repeats: Case, *costly: str) -> Case:
    """The row makes few draws, samples too, and costly laws look at these operations only: `repeats` has tested the
    formulas. In two dimensions a spread that is wrong by a tenth is still off by six standard errors, of which laws
    allow five."""
    samples = min(case.samples, 1000)
    return dataclasses.replace(case, repeats=repeats.manifold, costly=costly, draws=2, samples=samples)


def inside(t: Trial, case: Case, shape: tuple[int, ...]) -> Trial:
    """The trial of a part."""
    return dataclasses.replace(t, case=case, shape=shape, seed=t.seed + 1)


def product(*factors: Case) -> Case:
    """A product of the rows' manifolds at their first shapes. An isometry moves one factor, a way to the cut locus goes
    through one factor, and some vectors leave a factor at rest."""
    shapes = [case.shapes[0] for case in factors]
    m = Product([case.manifold for case in factors], shapes)

    def at(i: int, f, x: Tensor) -> Tensor:
        return m.join(*(f(p) if j == i else p for j, p in enumerate(m.split(x))))

    def isometries(t: Trial):
        return {
            f"{name} of factor {i}": lambda x, i=i, f=f: at(i, f, x)
            for i, (case, shape) in enumerate(zip(factors, shapes, strict=True))
            for name, f in inside(t, case, shape).isometries().items()
        }

    def cut(t: Trial, x: Tensor) -> Tensor:
        radii = [case.manifold.injectivity_radius() for case in factors]
        i = radii.index(min(radii))
        along = _cut(factors[i], inside(t, factors[i], shapes[i]), m.split(x)[i])
        return at(i, lambda zero: zero + along, torch.zeros_like(x))

    def at_rest(t: Trial, x: Tensor) -> dict[str, Tensor]:
        u = t.tangent(x)
        return {f"factor {i} at rest": at(i, torch.zeros_like, u) for i in (0, len(factors) - 1)}

    def invariant(x: Tensor) -> Tensor:
        own = [case.invariant(p) for case, p in zip(factors, m.split(x), strict=True)]
        return torch.cat([a.flatten(-case.manifold.ndim) for a, case in zip(own, factors, strict=True)], -1)

    def components(a: Tensor) -> Tensor:
        return torch.stack([_total(case, p) for case, p in zip(factors, m.split(a), strict=True)]).sum(0)

    return Case(
        m,
        shapes=((m.size,),),
        order=2,
        # A vector may lie in one factor alone, and a point far out in one.
        reach=min(case.reach for case in factors),
        spread=min((case.spread for case in factors if case.spread is not None), default=None),
        inverse_reach=min(case.inverse_reach for case in factors),
        invariant=invariant,
        components=components,
        isometries=isometries,
        cut=cut,
        degenerate=at_rest,
        costly=SUMS,
        draws=DRAWS,
        bad_shapes=((m.size + 1,), (0,)),
        tolerance={"*": max(case.tolerance["*"] for case in factors)},
        exempt={
            **{name: why for case in factors for name, why in case.exempt.items() if name in OF_A_PRODUCT},
            "infinite_injectivity_radius": "that of the factor with the smallest",
        },
        missing={name: why for case in factors for name, why in case.missing.items()},
    )


def _total(case: Case, repeated: Tensor) -> Tensor:
    """The inner product of a factor, from a tensor in which its components are repeated over the point."""
    if case.components is not None:
        return case.components(repeated)
    return repeated.flatten(-case.manifold.ndim)[..., 0]


def _cut(case: Case, t: Trial, x: Tensor) -> Tensor:
    assert case.cut is not None, f"{case} states no way to the cut locus"
    return case.cut(t, x)


def power(factor: Case, n: int) -> Case:
    """A power of the row's manifold at its first two shapes. An isometry moves the first point or permutes the points,
    a way to the cut locus moves the first point, and some vectors leave it at rest."""
    item = -factor.manifold.ndim - 1

    def first(f, x: Tensor) -> Tensor:
        return torch.cat([f(x.narrow(item, 0, 1)), x.narrow(item, 1, n - 1)], item)

    def isometries(t: Trial):
        maps = inside(t, factor, t.shape[1:]).isometries()
        return {
            **{f"{name} of the first point": lambda x, f=f: first(f, x) for name, f in maps.items()},
            "cyclic permutation": lambda x: x.roll(1, item),
        }

    def cut(t: Trial, x: Tensor) -> Tensor:
        along = _cut(factor, inside(t, factor, t.shape[1:]), x.narrow(item, 0, 1))
        return first(lambda zero: zero + along, torch.zeros_like(x))

    return dataclasses.replace(
        factor,
        manifold=Power(factor.manifold, n),
        shapes=tuple((n, *shape) for shape in factor.shapes[:2]),
        components=lambda a: a.flatten(item).sum(-1),
        isometries=isometries,
        cut=cut,
        degenerate=lambda t, x: {"the first at rest": first(torch.zeros_like, t.tangent(x))},
        costly=SUMS,
        draws=DRAWS,
        bad_shapes=(*((n, *shape) for shape in factor.bad_shapes), (n + 1, *factor.shapes[0])),
    )


def scaled(case: Case, scale: float) -> Case:
    """The row in another unit of length."""
    m = Scaled(case.manifold, scale)

    def cut(t: Trial, x: Tensor) -> Tensor:
        u = _cut(case, t, x)
        return u / m.norm(x, u, keepdim=True)

    reach = scale * case.inverse_reach
    return dataclasses.replace(case, manifold=m, inverse_reach=reach, cut=cut, costly=SUMS, draws=DRAWS)


# ---- examples, and how to compare them ------------------------------------------------------------------------

F64 = torch.float64
MIXED = Product((Sphere(), Stiefel(), Euclidean(), Grassmann("qr")), ((3,), (4, 2), (2,), (5, 2)))
NESTED = Product([Product([Sphere(2.0), Euclidean()], [[3], [1]]), Sphere()], [[4], [2]])


def arguments_of(m, *shape, batch=(3,)):
    """Arguments for any operation, by the letters of OPERATIONS."""
    return Trial(Case(m, (shape,)), shape).arguments(batch)


def call(m, name, arguments):
    out = getattr(m, name)(*(arguments[letter] for letter in OPERATIONS[name]))
    return out if isinstance(out, tuple) else (out,)


def same(got, want, atol=1e-14):
    torch.testing.assert_close(got, want, rtol=0, atol=atol)
