"""The laws of a Riemannian manifold and those of a layer, for holding one's own to them.

    from torchriemann.testing import check_layer, check_manifold
    check_manifold(MyManifold(), (5, 2))
    check_layer(lambda **options: MyLayer(7, **options), lambda t: (t.noise(*t.batch, 7),))

A law is a function of a `Trial`: one draw of shape, dtype, seed and scale for one `Case`. `LAWS` holds all of them by
name, each with its subject; those on the gyro structure are about manifolds that have one. Nothing here needs
hypothesis but `trials`, which draws them.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from torchriemann.manifolds import Manifold

from . import (
    bad_items,
    behaviour,
    curves,
    derivatives,
    gyro,
    layer_state,
    layer_values,
    maps,
    metric,
    precision,
    quotients,
    statistics,
    transforms,
)
from .launches import Launches as Launches
from .launches import count_launches as count_launches
from .layers import LAYER_LAWS as LAYER_LAWS
from .layers import LayerCase as LayerCase
from .layers import LayerLaw as LayerLaw
from .layers import LayerTrial as LayerTrial
from .layers import applying_to as applying_to
from .layers import check_layer as check_layer
from .layers import layer_exemption_stands as layer_exemption_stands
from .layers import layer_law as layer_law
from .operations import GYRO_OPERATIONS as GYRO_OPERATIONS
from .operations import OPERATIONS as OPERATIONS
from .quotients import full_gradcheck as full_gradcheck
from .slopes import SlopeCheck as SlopeCheck
from .slopes import check_gradient as check_gradient
from .slopes import check_hessian as check_hessian
from .slopes import check_retraction as check_retraction
from .trial import LAWS as LAWS
from .trial import Case as Case
from .trial import Law as Law
from .trial import Trial as Trial
from .trial import applying as applying
from .trial import law as law

SCALES = (1e-8, 1e-3, 0.1, 0.5, 1.0)


def check_law(case: Case, name: str, **draw: Any) -> None:
    """Hold one draw (`shape`, `dtype`, `seed`, `scale`, `batch`) of `case` to one law."""
    LAWS[name](Trial(case, **{"shape": case.shapes[0], **draw}))


def check_manifold(
    manifold: Manifold,
    *shapes: tuple[int, ...],
    laws: Collection[str] | None = None,
    exempt: Mapping[str, str] | None = None,
    seeds: Iterable[int] = range(3),
    **row: Any,
) -> tuple[str, ...]:
    """Hold `manifold` to all laws (or to `laws`), for points of the given shapes, at least one.

    Raises ``AssertionError`` at the first that fails, naming law, manifold, shape, dtype, seed and residual. Left out
    are laws in `exempt` (name -> reason), laws about operations that raise ``NotImplementedError``, and, unless asked
    for, laws that need what the row does not state. `row` states it, in fields of `Case`: `order` of the retraction,
    `isometries`, `cut` (a direction to the cut locus), `off` (takes a point off the manifold; by default doubling),
    `tolerance` (law name or "*" -> multiple of eps), `missing` (operation -> reason), `invariant`, and more.
    Returns the names of the laws that hold.
    """
    if not shapes:
        raise ValueError("check_manifold: name at least one point shape, as in check_manifold(Sphere(), (3,))")
    unknown = {*(laws or ()), *(exempt or ())} - LAWS.keys()
    if unknown:
        raise ValueError(
            f"check_manifold: no such law: {', '.join(sorted(unknown))}; torchriemann.testing.LAWS has all"
        )
    case, held, seeds = Case(manifold, shapes, exempt=exempt or {}, **row), [], list(seeds)
    for entry in applying(case):
        if laws is not None and entry.name not in laws:
            continue
        if entry.needs and getattr(case, entry.needs) is None:
            if laws is None:
                continue
            raise AssertionError(f"{entry.name} of {manifold!r} needs {entry.needs}=... in the row; see Case")
        draws = [
            Trial(case, shape, dtype, seed, SCALES[-1 - seed % len(SCALES)])
            for seed in seeds[: entry.examples]
            for dtype in entry.dtypes
            for shape in (shapes if entry.examples is None else shapes[:1])
        ]
        try:
            for draw in draws:
                entry(draw)
        except NotImplementedError:
            if laws is not None:
                raise
            continue  # the manifold says that it has no such operation
        held.append(entry.name)
    return tuple(held)


def exemption_stands(case: Case, name: str) -> bool:
    """Whether an exempted law indeed fails, or is undefined, for some of five draws."""
    for seed in range(5):
        try:
            check_law(case, name, seed=seed, scale=1.0)
        except (AssertionError, NotImplementedError, ValueError, RuntimeError):
            return True
    return False


BATCHES = ((10,), (), (3, 4))  # many points a draw: an operation on ten takes little longer than on one


def draws(case: Case, entry: Law, count: int) -> list[Trial]:
    """`count` trials that go through the shapes of the row, the dtypes of the law, the scales and the batches side by
    side, so that few of them meet each one; where in turn they start, and the seeds, is up to the name of the law.
    The draws of a law that is costly are as many as it allows, of two points each, in the first shape."""
    costly, start = entry.examples is not None, zlib.crc32(entry.name.encode())
    shapes, dtypes = case.shapes[:1] if costly else case.shapes, entry.dtypes
    return [
        Trial(
            case,
            shapes[(start + k) % len(shapes)],
            dtypes[(start // 8 + k) % len(dtypes)],
            (start + k) % 2**31,
            SCALES[(start // 16 + k) % len(SCALES)],
            (2,) if costly else BATCHES[(start // 128 + k) % len(BATCHES)],
        )
        for k in range(count if entry.examples is None else min(count, entry.examples))
    ]


def trials(case: Case, entry: Law) -> Any:
    """A hypothesis strategy of trials for `case` under the law `entry`: it draws the shape, the dtype, the seed, the
    scale and the batch, and the tensors are made from the seed."""
    from hypothesis import strategies as st

    costly = entry.examples is not None
    return st.builds(
        Trial,
        case=st.just(case),
        shape=st.sampled_from(case.shapes[:1] if costly else case.shapes),
        dtype=st.sampled_from(entry.dtypes),
        seed=st.integers(0, 2**31 - 1),
        scale=st.sampled_from(SCALES),
        batch=st.just((2,)) if costly else st.sampled_from([(3,), (), (2, 2)]),
    )


_MODULES = (
    bad_items,
    behaviour,
    curves,
    derivatives,
    gyro,
    layer_state,
    layer_values,
    maps,
    metric,
    precision,
    quotients,
    statistics,
    transforms,
)  # entering their laws into LAWS and LAYER_LAWS is what they are for
