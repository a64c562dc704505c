"""What a law is held against: a case (one manifold), a trial (one draw of shape, dtype, seed and scale), a verdict."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.checks import described
from torchriemann.manifolds.gyro import GyroManifold, is_gyro

Map = Callable[[Tensor], Tensor]


def _identity(x: Tensor) -> Tensor:
    return x


def _doubled(x: Tensor) -> Tensor:
    return 2 * x


@dataclass(frozen=True, repr=False)
class Case:
    """One manifold and what the laws need to know of it: a row of the table of manifolds.

    `tolerance` holds multiples of ``eps = torch.finfo(dtype).eps`` by the name of a law. The key ``"*"`` stands for all
    others that compare two exact expressions, not an expression and a difference quotient, and can only tighten their
    defaults. A residual is relative to the larger of one and the largest entry unless its law says otherwise.

    A row that has the formulas of another one, with other numbers in them, says so in `repeats`, and in `costly` which
    operations are its own all the same: the costly laws look at those. A table of many rows also sets `brief`;
    `in_full` takes back all that spares time.

    `exempt` (law -> reason) lists the laws that do not hold here, and `missing` (operation -> reason) the operations
    that the space does not have; `exemption_stands` and the law `missing_operations` hold both lists to the truth.
    """

    manifold: Manifold
    shapes: tuple[tuple[int, ...], ...]  # shapes of a point; the first, a small one, serves the costly laws
    order: int | None = None  # order of the retraction; None where it is the exponential map itself
    fraction: float = 0.9  # exp and log are inverse to each other below this fraction of the injectivity radius
    reach: float = 3.0  # and below this length, where strong curvature leaves farther points few digits
    spread: float | None = None  # of random points around the origin, where the class's own law reaches too far out
    inverse_reach: float = 1.0  # length below which inverse_retr inverts retr
    invariant: Map = _identity  # of a representative of a point: equal exactly where the points are equal
    components: Map | None = None  # sums component_inner over the factors, ``-> *B``; None where it is inner itself
    isometries: Callable[[Trial], Mapping[str, Map]] | None = None  # ambient linear maps, of points and of vectors
    cut: Callable[[Trial, Tensor], Tensor] | None = None  # unit vector along which the injectivity radius is attained
    degenerate: Callable[[Trial, Tensor], Mapping[str, Tensor]] | None = None  # vectors where formulas may be 0/0
    infinite: bool | None = None  # whether logarithms are to be right at the distance 30
    repeats: Manifold | None = None  # of the row whose formulas it has: what is compiled is then only traced
    costly: tuple[str, ...] | None = None  # all that compilation and derivatives look at; None for everything
    brief: bool = False  # leave to other rows what these look at, see `operations.seen` and `operations.compiled`
    draws: int | None = None  # how many a suite makes, where a row repeats formulas that others have tested
    samples: int = 4000  # how many points the laws of sampling draw
    slow: tuple[str, ...] | None = ()  # laws that a suite leaves to its slow half; None for all
    off: Map = _doubled  # takes a point off the manifold
    bad_shapes: tuple[tuple[int, ...], ...] = ()  # of no point
    tolerance: Mapping[str, float] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.manifold, Manifold):
            raise ValueError(f"Case: manifold must be an instance such as Sphere(), got {described(self.manifold)}")
        for shape in self.shapes:
            if not isinstance(shape, (tuple, list)) or not all(isinstance(n, int) for n in shape):
                raise ValueError(f"Case: the shape of a point must be a tuple of integers such as (3,), got {shape!r}")

    def __repr__(self) -> str:
        return f"Case({self.manifold!r})"

    def in_full(self) -> Case:
        """The row with every law held at its full length."""
        return dataclasses.replace(self, repeats=None, costly=None, brief=False, draws=None)


@dataclass
class Trial:
    """One draw: everything that a law may use is made from it, by `seed` alone.

    `scale` in (0, 1] is the length of the tangent vectors as a fraction of the length that the case allows; `batch`
    are the leading dimensions.
    """

    case: Case
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    seed: int = 0
    scale: float = 0.5
    batch: tuple[int, ...] = (3,)
    law: Law | None = None
    generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def manifold(self) -> Manifold:
        """That of the case."""
        return self.case.manifold

    @property
    def eps(self) -> float:
        """Of `dtype`."""
        return torch.finfo(self.dtype).eps

    # ---- drawing ----------------------------------------------------------------------------------------------

    def noise(self, *size: int) -> Tensor:
        """Independent N(0, 1) entries."""
        return torch.randn(size, generator=self.generator, dtype=self.dtype)

    def ambient(self, batch: tuple[int, ...] | None = None) -> Tensor:
        """A tensor shaped like points, off the manifold."""
        return self.noise(*(self.batch if batch is None else batch), *self.shape)

    def point(self, batch: tuple[int, ...] | None = None) -> Tensor:
        """A random point."""
        size = (*(self.batch if batch is None else batch), *self.shape)
        draw, spread = {"generator": self.generator, "dtype": self.dtype}, self.case.spread
        if spread is None:
            return self.manifold.random(*size, **draw)
        return self.manifold.random_normal(*size, std=spread, **draw)

    def radius(self, x: Tensor) -> float:
        """The length that tangent vectors may have: `fraction` of the injectivity radius, or 1 where that is not
        known, at most `reach`."""
        if "injectivity_radius" in self.case.missing:
            return min(1.0, self.case.reach)
        radius = float(torch.as_tensor(self.manifold.injectivity_radius(x)).detach().min())
        return min(self.case.fraction * radius, self.case.reach)

    def direction(self, x: Tensor) -> Tensor:
        """A random unit tangent vector; zero where the tangent space is a point."""
        u = self.manifold.proju(x, self.noise(*x.shape))
        if self.manifold.dimension(self.shape) == 0:
            return torch.zeros_like(u)
        u = u / self.manifold.norm(x, u, keepdim=True)
        # Noise that is nearly normal to the manifold leaves a short vector, tangent to the rounding of a long one.
        u = self.manifold.proju(x, u)
        return u / self.manifold.norm(x, u, keepdim=True)

    def tangent(self, x: Tensor, length: float | None = None) -> Tensor:
        """A random tangent vector of that length; by default `scale` times `radius`."""
        return (self.scale * self.radius(x) if length is None else length) * self.direction(x)

    def near(self, x: Tensor) -> Tensor:
        """A random point at the distance `scale` times `radius`."""
        return self.manifold.expmap(x, self.tangent(x))

    def arguments(self, batch: tuple[int, ...] | None = None, x: Tensor | None = None) -> dict[str, Tensor]:
        """One argument for each letter of `OPERATIONS`: points x, y and r, which `inverse_retr` reaches; vectors u, v;
        ambient g, h; numbers t, z. Either `batch` or `x` gives the batch."""
        x = self.point(batch) if x is None else x
        r = self.manifold.retr(x, self.tangent(x, self.scale * self.case.inverse_reach))
        y, u, v = self.near(x), self.tangent(x), self.direction(x)
        leading = x.shape[: x.dim() - self.manifold.ndim]
        t = torch.rand(leading, generator=self.generator, dtype=self.dtype)
        z = self.noise(*leading, self.manifold.dimension(self.shape))
        g, h = self.noise(*x.shape), self.noise(*x.shape)
        made = {"x": x, "y": y, "r": r, "u": u, "v": v, "g": g, "h": h, "t": t, "z": z}
        return {**made, **self.gyro_arguments(leading)} if is_gyro(self.manifold) else made

    def gyro_arguments(self, batch: tuple[int, ...] | None = None) -> dict[str, Tensor]:
        """Of gyro-operations: points p, q and s near the origin, normal coordinates n, vectors a and b at the origin
        and w at p."""
        batch = self.batch if batch is None else batch
        p, q, s = (self.near_origin(batch) for _ in range(3))
        o = self.manifold.origin(*batch, *self.shape, dtype=self.dtype)
        a, b = self.tangent(o, self.gyro_length), self.direction(o)
        return {"p": p, "q": q, "s": s, "n": self.normal(batch), "a": a, "b": b, "w": self.direction(p)}

    @property
    def gyro_length(self) -> float:
        """`scale` times a third of the reach of the logarithm, so that a sum of three points has one too; without a
        cut locus times `reach`, in float32 half of it: digits are lost with the exponential of the radius."""
        o = self.manifold.origin(*self.shape, dtype=self.dtype)
        radius = float(torch.as_tensor(self.manifold.injectivity_radius(o)).detach().min())
        reach = self.case.reach if self.dtype == torch.float64 else 0.5 * self.case.reach
        return self.scale * min(self.case.fraction * radius / 3, reach)

    def near_origin(self, batch: tuple[int, ...] | None = None) -> Tensor:
        """A random point at the distance `gyro_length` from the origin."""
        batch = self.batch if batch is None else batch
        o = self.manifold.origin(*batch, *self.shape, dtype=self.dtype)
        return self.manifold.expmap(o, self.tangent(o, self.gyro_length))

    def normal(self, batch: tuple[int, ...] | None = None) -> Tensor:
        """Random normal coordinates of that length."""
        m: Any = self.manifold
        z = self.noise(*(self.batch if batch is None else batch), *m.normal_shape(self.shape))
        length = torch.linalg.vector_norm(z, dim=tuple(range(-m.normal_ndim, 0)), keepdim=True)
        return self.gyro_length * z / length

    def flat(self, a: Tensor) -> Tensor:
        """The point dimensions of `a` made one."""
        return a.flatten(-self.manifold.ndim)

    def isometries(self) -> Mapping[str, Map]:
        """Those that the case lists, by name; none where it lists none."""
        return {} if self.case.isometries is None else self.case.isometries(self)

    def degenerate(self, x: Tensor) -> dict[str, Tensor]:
        """Tangent vectors at which a careless formula is 0/0; zero is always among them."""
        listed = {} if self.case.degenerate is None else self.case.degenerate(self, x)
        return {"zero": torch.zeros_like(x), **listed}

    # ---- judging ----------------------------------------------------------------------------------------------

    @property
    def bound(self) -> float:
        """The tolerance of the law under trial."""
        assert self.law is not None
        default, row = self.law.default(self.dtype), self.case.tolerance
        if self.law.name in row:
            return row[self.law.name] * self.eps
        return min(default, row["*"] * self.eps) if "*" in row and self.law.exact else default

    def fail(self, what: str) -> None:
        """Raise ``AssertionError`` with all that repeats the draw."""
        name = "?" if self.law is None else self.law.name
        raise AssertionError(
            f"{name} fails on {self.manifold!r}: {what}\n  shape {self.shape}, batch {self.batch}, {self.dtype}, "
            f"seed {self.seed}, scale {self.scale:g}"
        )

    def require(self, condition: object, what: str) -> None:
        """Fail with `what`, which says what is wrong then, unless `condition`."""
        if not bool(condition):
            self.fail(what)

    def small(self, residual: Tensor | float, what: str, bound: float | None = None) -> None:
        """`residual` is at most the tolerance; NaN is not small."""
        bound = self.bound if bound is None else bound
        worst = float(torch.as_tensor(residual).detach().abs().amax()) if torch.as_tensor(residual).numel() else 0.0
        self.require(worst <= bound, f"{what}: residual {worst:.3g} > {bound:.3g} ({bound / self.eps:.3g} eps)")

    def close(self, got: Tensor, want: Tensor, what: str, *, scale: Tensor | float | None = None) -> None:
        """|got - want| is at most the tolerance times `scale`, by default the larger of 1 and max|want|."""
        self.require(got.shape == want.shape, f"{what}: shape {tuple(got.shape)} instead of {tuple(want.shape)}")
        if want.numel() == 0:
            return
        if got.dtype == torch.bool:
            return self.require((got == want).all(), f"{what}: answers differ")
        scale = max(1.0, float(want.detach().abs().amax())) if scale is None else scale
        self.small((got - want) / scale, what)

    def same(self, got: Tensor, want: Tensor, what: str) -> None:
        """The points are equal, whatever represents them."""
        self.close(self.case.invariant(got), self.case.invariant(want), what)

    def is_point(self, x: Tensor, what: str, slack: float = 1.0) -> None:
        """`x` passes the manifold's own check, at `slack` times its own tolerance."""
        answer, reason = self.manifold.check_point_on_manifold(
            x, explain=True, atol=slack * self.manifold._tolerance(x.dtype, None)
        )
        self.require(answer, f"{what} is no point: {reason}")

    def is_tangent(self, x: Tensor, u: Tensor, what: str) -> None:
        """`u` passes the manifold's own check of tangent vectors."""
        answer, reason = self.manifold.check_vector_on_tangent(x, u, ok_point=True, explain=True)
        self.require(answer, f"{what} is not tangent: {reason}")

    def slope(self, error: Callable[[float], Tensor], *, start: float = 0.1) -> float:
        """The order p of ``error(h) = O(h^p)``: a straight line through logarithms, infinity for errors that are
        rounding. Only float64 leaves room for it."""
        steps, errors = [], []
        for k in range(7):
            h = start * 0.5**k
            value = float(error(h).detach().abs().amax())
            if not math.isfinite(value):
                return math.nan
            if value > 1e-13:
                steps.append(math.log(h))
                errors.append(math.log(value))
        steps, errors = steps[1:], errors[1:]  # the largest step is the least asymptotic
        if len(steps) < 3:
            return math.inf
        mean_s, mean_e = sum(steps) / len(steps), sum(errors) / len(errors)
        covariance = sum((s - mean_s) * (e - mean_e) for s, e in zip(steps, errors, strict=True))
        return covariance / sum((s - mean_s) ** 2 for s in steps)


@dataclass(frozen=True)
class Law:
    """A law with its subject, the default tolerance by dtype, how many draws its cost allows, and whether it compares
    exact expressions: then a residual is rounding; what manifolds it is about, and what a row must state for it."""

    name: str
    subject: str
    check: Callable[[Trial], None]
    float64: float
    float32: float | None
    examples: int | None
    exact: bool
    about: type[Manifold]
    needs: str | None

    @property
    def dtypes(self) -> tuple[torch.dtype, ...]:
        """Those that the law is stated for."""
        return (torch.float64,) if self.float32 is None else (torch.float64, torch.float32)

    def default(self, dtype: torch.dtype) -> float:
        """The tolerance where a row states none."""
        bound = self.float64 if dtype == torch.float64 else self.float32
        assert bound is not None, f"{self.name} is stated for float64 only"
        return bound

    def __call__(self, trial: Trial) -> None:
        """Raise ``AssertionError`` naming law, manifold, shape, dtype, seed and residual unless the law holds."""
        self.check(dataclasses.replace(trial, law=self))


LAWS: dict[str, Law] = {}


def law(
    subject: str,
    *,
    float64: float = 0.0,
    float32: float | None = None,
    examples: int | None = None,
    exact: bool = True,
    about: type[Manifold] = Manifold,
    needs: str | None = None,
) -> Callable[[Callable[[Trial], None]], Law]:
    """Enter a function of a trial into `LAWS`. Without a `float32` tolerance the law is stated for float64 only;
    `examples` caps the number of draws; `exact` is False where a residual is truncation; the law does not concern
    manifolds that are not `about`, nor composites with a part that is not; `needs` names the field of `Case` without
    which `check_manifold` passes it over."""

    def enter(check: Callable[[Trial], None]) -> Law:
        made = Law(check.__name__, subject, check, float64, float32, examples, exact, about, needs)
        made_with_doc: Any = made
        object.__setattr__(made_with_doc, "__doc__", check.__doc__)
        LAWS[made.name] = made
        return made

    return enter


def applying(case: Case) -> Iterator[Law]:
    """The laws that concern the manifold of `case` and that it is not exempt from."""
    return (entry for name, entry in LAWS.items() if name not in case.exempt and _concerns(entry, case.manifold))


def _concerns(entry: Law, manifold: Manifold) -> bool:
    return isinstance(manifold, entry.about) and (entry.about is not GyroManifold or is_gyro(manifold))
