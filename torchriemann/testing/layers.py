"""What a law of layers is held against: a case (one layer), a trial (one draw by seed), a verdict; and `check_layer`.

A layer is a module, or a function of tensors without state. Its laws are in `layer_state` (what torch does to modules)
and `layer_values` (what the layer computes). Nothing here needs hypothesis.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds.checks import described
from torchriemann.manifolds.parameter import named_manifolds


@dataclass(frozen=True, repr=False)
class LayerCase:
    """One layer and what the laws need to know of it: a row of the table of layers.

    `make` builds the layer from ``device=`` and ``dtype=``; `example` gives the arguments of a call, drawn in float64
    by the trial that it gets: tensors with ``trial.batch`` as their leading dimensions, and constants, such as the
    manifold of points. Laws cast the tensors.

    `tolerance` holds multiples of ``eps = torch.finfo(dtype).eps`` by the name of a law. `exempt` (law -> reason) lists
    those that do not hold; `layer_exemption_stands` holds the list to the truth.
    """

    make: Callable[..., Any]
    example: Callable[[LayerTrial], tuple]
    name: str | None = None  # by default how the layer prints
    points: Mapping[int, Any] = field(default_factory=dict)  # position of an argument -> the manifold of its points
    image: Any = None  # the manifold of the results, if they are points
    batches: tuple[tuple[int, ...], ...] = ((), (3,), (2, 2))  # leading dimensions that a call may have
    empty: tuple[tuple[int, ...], ...] = ((0,), (2, 0))
    bad: Callable[[tuple], Mapping[str, tuple]] | None = None  # wrong arguments, beside those that laws think of
    spread: float = 0.3  # how far the laws move the parameters from where the layer starts
    backend: str = "aot_eager"  # of torch.compile
    tolerance: Mapping[str, float] = field(default_factory=dict)
    exempt: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return self.name or " ".join(repr(self.make()).split())


@dataclass
class LayerTrial:
    """One draw for one case: the state of the layer and the arguments are made from `seed` alone."""

    case: LayerCase
    seed: int = 0
    batch: tuple[int, ...] = (3,)
    dtype: torch.dtype = torch.float64
    law: LayerLaw | None = None
    generator: torch.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def eps(self) -> float:
        """Of `dtype`."""
        return torch.finfo(self.dtype).eps

    # ---- drawing ----------------------------------------------------------------------------------------------

    def noise(self, *size: int) -> Tensor:
        """Independent N(0, 1) entries in float64, of that shape: for `example`, which puts ``*trial.batch`` first."""
        return torch.randn(size, generator=self.generator, dtype=torch.float64)

    def random(self, manifold: Any, *size: int) -> Tensor:
        """A random point in float64; `size` is the whole shape."""
        return manifold.random(*size, generator=self.generator, dtype=torch.float64)

    def start(self, other: int = 0, **options: Any) -> Any:
        """The layer as it is built, from `seed`; another one for each `other`."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed + 1000 * other)
            return self.case.make(**options)

    def layer(self, other: int = 0, **options: Any) -> Any:
        """The layer in a state that no default is: points anywhere on their manifolds, other parameters moved by
        `spread`. The same for all dtypes but for rounding; another one for each `other`."""
        layer = self.start(other, **{"dtype": self.dtype, **options})
        draw = LayerTrial(self.case, self.seed + 1000 * (other + 1))
        if not isinstance(layer, nn.Module):
            return layer
        # A start that is drawn is another one in each dtype.
        start = dict(self.start(other, **{**options, "dtype": torch.float64, "device": "cpu"}).named_parameters())
        with torch.no_grad():
            for name, p, manifold in named_manifolds(layer):
                size = tuple(p.shape)
                moved = start[name] + self.case.spread * draw.noise(*size) if manifold is None else None
                p.copy_(draw.random(manifold, *size) if moved is None else moved)
        return layer

    def arguments(self, batch: tuple[int, ...] | None = None, dtype: torch.dtype | None = None) -> tuple:
        """The arguments of a call, the tensors in `dtype` (points projected), the same at every call."""
        draw = LayerTrial(self.case, self.seed, self.batch if batch is None else batch)
        given = self.case.example(draw)
        if not isinstance(given, (tuple, list)):
            raise ValueError(
                f"{self.case!r}: example must return the tuple of the arguments of a call, got {described(given)}"
            )
        return self.cast(tuple(given), self.dtype if dtype is None else dtype)

    def cast(self, arguments: tuple, dtype: torch.dtype) -> tuple:
        """The arguments with tensors in `dtype`; points as near to their manifold as that allows."""
        cast = list(arguments)
        for i, a in enumerate(arguments):
            if isinstance(a, Tensor) and a.is_floating_point() and a.dtype != dtype:
                m = self.case.points.get(i)
                cast[i] = a.to(dtype) if m is None else m.projx(a.to(dtype))
        return tuple(cast)

    @property
    def takes_tensors(self) -> bool:
        """Whether a call has a floating-point tensor among its arguments."""
        return bool(floating(self.arguments()))

    def call(self, layer: Any, arguments: tuple) -> tuple[Tensor, ...]:
        """The results, always a tuple."""
        out = layer(*arguments)
        return tuple(out) if isinstance(out, (tuple, list)) else (out,)

    # ---- verdicts ---------------------------------------------------------------------------------------------

    def fail(self, what: str) -> None:
        """Raise ``AssertionError`` with all that repeats the draw."""
        raise AssertionError(f"{self._where} {what}\n  seed {self.seed}")

    @property
    def _where(self) -> str:
        return f"{'?' if self.law is None else self.law.name} fails on {self.case!r}:"

    def require(self, condition: object, what: str) -> None:
        """Fail with `what`, which says what is wrong then, unless `condition`."""
        if not bool(condition):
            self.fail(what)

    def close(self, got: Iterable[Tensor], want: Iterable[Tensor], what: str, bound: float | None = None) -> None:
        """Results of equal dtypes and shapes, that differ by at most the tolerance times the larger of 1 and
        max|want|; equal where both are empty. `bound` takes the place of the tolerance."""
        assert self.law is not None
        for g, w in zip(got, want, strict=True):
            self.require(g.shape == w.shape, f"{what}: shape {tuple(g.shape)} instead of {tuple(w.shape)}")
            self.require(g.dtype == w.dtype, f"{what}: {g.dtype} instead of {w.dtype}")
            if w.numel() == 0:
                continue
            eps = torch.finfo(w.dtype).eps
            limit = self.case.tolerance.get(self.law.name, self.law.tolerance) * eps if bound is None else bound
            g, w = g.detach().double(), w.detach().double()
            worst = float((g - w).abs().amax()) / max(1.0, float(w.abs().amax()))
            self.require(worst <= limit, f"{what}: off by {worst:.3g} > {limit:.3g}")  # NaN is not small

    def finite(self, values: Iterable[Tensor | None], what: str) -> None:
        """All are there and finite."""
        for v in values:
            self.require(v is not None, f"{what} is missing")
            self.require(v is None or v.isfinite().all(), f"{what} is not finite")

    def on_manifolds(self, layer: nn.Module, what: str) -> None:
        """Every parameter that is a point lies on its manifold to the tolerance of its dtype."""
        for name, p, manifold in named_manifolds(layer):
            if manifold is not None:
                good, reason = manifold.check_point_on_manifold(p.detach(), explain=True)
                self.require(good, f"{what}: {name} is no point: {reason}")


@dataclass(frozen=True)
class LayerLaw:
    """A law of layers, its default tolerance in eps, what it concerns, "module", "input" (layers that take tensors),
    "image" (layers whose results are points) or "any" layer, and whether its cost allows one draw only."""

    name: str
    check: Callable[[LayerTrial], None]
    tolerance: float
    about: str
    once: bool

    def __call__(self, trial: LayerTrial) -> None:
        """Raise ``AssertionError`` naming law, layer and seed unless the law holds."""
        trial = dataclasses.replace(trial, law=self)
        try:
            self.check(trial)
        except AssertionError:
            raise
        except Exception as error:
            raise AssertionError(f"{trial._where} {type(error).__name__}: {error}\n  seed {trial.seed}") from error

    def concerns(self, case: LayerCase) -> bool:
        """Whether the law is about this layer."""
        if self.about == "module":
            return isinstance(case.make(), nn.Module)
        if self.about == "image":
            return case.image is not None
        return self.about == "any" or LayerTrial(case).takes_tensors


LAYER_LAWS: dict[str, LayerLaw] = {}


def layer_law(
    about: str, *, tolerance: float = 0.0, once: bool = False
) -> Callable[[Callable[[LayerTrial], None]], LayerLaw]:
    """Enter a function of a trial into `LAYER_LAWS`."""

    def enter(check: Callable[[LayerTrial], None]) -> LayerLaw:
        made = LayerLaw(check.__name__, check, tolerance, about, once)
        object.__setattr__(made, "__doc__", check.__doc__)
        LAYER_LAWS[made.name] = made
        return made

    return enter


def floating(values: Iterable[Any]) -> list[Tensor]:
    """The floating-point tensors among `values`."""
    return [v for v in values if isinstance(v, Tensor) and v.is_floating_point()]


def applying_to(case: LayerCase) -> Iterator[LayerLaw]:
    """The laws that concern the layer of `case` and that it is not exempt from."""
    return (law for name, law in LAYER_LAWS.items() if name not in case.exempt and law.concerns(case))


def check_layer(
    make: Callable[..., Any],
    example: Callable[[LayerTrial], tuple],
    *,
    laws: Collection[str] | None = None,
    exempt: Mapping[str, str] | None = None,
    seeds: Iterable[int] = range(2),
    **row: Any,
) -> tuple[str, ...]:
    """Hold the layer that `make` builds to all laws that concern it (or to `laws`), at the arguments of `example`.

    ``make(device=..., dtype=...)`` builds the layer, a module or a callable without state. ``example(trial)`` gives the
    arguments of a call: tensors of leading dimensions ``*trial.batch``, drawn by ``trial.noise(*shape)`` and
    ``trial.random(manifold, *shape)``, and constants. `row` states what else there is to know, in fields of
    `LayerCase`: which arguments are `points`, the manifold `image` of the results, `tolerance`, and more. `exempt` (law
    -> reason) leaves laws out.

    Raises ``AssertionError`` at the first that fails, naming law, layer and seed. Returns the names of those that hold.
    """
    if isinstance(make, nn.Module):
        raise ValueError(
            f"check_layer: make must build the layer, got the layer {type(make).__name__}; pass its class or a "
            "function of device and dtype that returns it"
        )
    if not callable(example):
        raise ValueError(
            "check_layer: example must be a function of a trial that returns the arguments of a call, as lambda t: "
            f"(t.noise(*t.batch, 7),), got {described(example)}"
        )
    unknown = {*(laws or ()), *(exempt or ())} - LAYER_LAWS.keys()
    if unknown:
        raise ValueError(f"check_layer: no such law: {', '.join(sorted(unknown))}; LAYER_LAWS has all")
    case, seeds = LayerCase(make, example, exempt=exempt or {}, **row), list(seeds)
    held = [law for law in applying_to(case) if laws is None or law.name in laws]
    for law in held:
        for seed in seeds[:1] if law.once else seeds:
            law(LayerTrial(case, seed))
    return tuple(law.name for law in held)


def layer_exemption_stands(case: LayerCase, name: str) -> bool:
    """Whether an exempted law indeed fails for some of three draws."""
    try:
        for seed in range(3):
            LAYER_LAWS[name](LayerTrial(case, seed))
    except AssertionError:
        return True
    return False
