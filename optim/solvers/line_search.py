"""Line search for the strong Wolfe conditions, on numbers: it knows neither tensors nor manifolds."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Callable
from typing import Any

_EXPAND = 10.0  # at most this much further a trial, as torch does
_SHRINK = 0.2  # towards the last good point, after a trial without a value
_MARGIN = 0.1  # share of the bracket next to its ends in which no trial is made


@dataclasses.dataclass(frozen=True)
class Trial:
    """Value and slope of phi at `t`, and whatever the caller wants back with them."""

    t: float
    value: float
    slope: float
    content: Any = None

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value) and math.isfinite(self.slope)


def strong_wolfe(
    evaluate: Callable[[float], Trial],
    start: Trial,
    t: float,
    *,
    c1: float = 1e-4,
    c2: float = 0.9,
    noise: float = 0.0,
    max_trials: int = 25,
) -> tuple[Trial, bool]:
    """A point with ``phi(t) <= phi(0) + c1 t phi'(0) + noise`` and ``|phi'(t)| <= c2 |phi'(0)|``.

    Brackets, then zooms in by cubic interpolation (Nocedal and Wright 2006, section 3.5). The left end of the bracket
    always satisfies the first condition and descends, the right end violates it, ascends or has no value; such a
    bracket contains a point that is sought. `noise` is the rounding of phi: within it values are not compared, slopes
    decide, which are accurate to the very minimum (the approximate Wolfe conditions of Hager and Zhang 2005,
    doi 10.1137/030601880). A trial that is infinite or NaN shortens the step.

    Args:
        evaluate: phi, as a function of t > 0.
        start: phi at 0; without a negative slope there is no trial.
        t: the first trial, positive.
        max_trials: evaluations at most.

    Returns:
        The point and True; where there were too few trials the lowest that satisfies the first condition, or `start` if
        none is lower, and False.
    """
    low, high, before, best = start, None, start, start
    width, bisect = math.inf, False
    for _ in range(max_trials if start.slope < 0 else 0):
        trial = evaluate(t)
        if trial.finite and trial.value <= start.value + c1 * t * start.slope + noise:
            best = trial if trial.value < best.value else best
            if abs(trial.slope) <= -c2 * start.slope:
                return trial, True
            if trial.slope < 0:
                before, low = low, trial
            else:
                high = trial
        else:
            high = trial
        if high is None:
            t = _further(before, low)
            continue
        if high.t - low.t <= 2 * sys.float_info.epsilon * high.t:
            break
        t = _between(low, high, noise, bisect)
        # A bracket that did not lose a third twice over is halved (More and Thuente 1994).
        bisect, width = high.t - low.t > 0.66 * width, high.t - low.t
    return best, False


def _further(before: Trial, low: Trial) -> float:
    """Where the slope would vanish, if it went on growing as it did."""
    growth = (low.slope - before.slope) / (low.t - before.t)
    longest = _EXPAND * low.t
    return min(max(low.t - low.slope / growth, 1.2 * low.t), longest) if growth > 0 else longest


def _between(low: Trial, high: Trial, noise: float, bisect: bool) -> float:
    """A trial inside the bracket."""
    width = high.t - low.t
    if not high.finite:
        return low.t + _SHRINK * width
    share = 0.5 if bisect else (_minimum(low, high, noise) - low.t) / width
    return low.t + min(max(share, _MARGIN), 1 - _MARGIN) * width


def _minimum(a: Trial, b: Trial, noise: float) -> float:
    """Minimiser of the cubic through both ends, or where the slope vanishes if the values differ by rounding only."""
    width = b.t - a.t
    if abs(a.value - b.value) <= noise:
        return a.t - a.slope * width / (b.slope - a.slope) if b.slope > 0 else a.t + 0.5 * width
    mean = 3 * (a.value - b.value) / width + a.slope + b.slope
    discriminant = mean * mean - a.slope * b.slope
    if discriminant < 0:
        return a.t + 0.5 * width
    root = math.sqrt(discriminant)
    denominator = b.slope - a.slope + 2 * root
    return b.t - width * (b.slope + root - mean) / denominator if denominator > 0 else a.t + 0.5 * width
