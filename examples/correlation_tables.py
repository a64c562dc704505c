"""The tables of the example of correlation matrices: one a measurement, a row a way."""

from collections.abc import Callable
from typing import Any


def table(head: str, rows: dict[str, dict[str, str]], width: int) -> str:
    """A row a way."""
    columns = next(iter(rows.values()))
    lines = [f"{head:26}" + "".join(f"{name:>{width}}" for name in columns)]
    lines += [f"{name:26}" + "".join(f"{cell:>{width}}" for cell in cells.values()) for name, cells in rows.items()]
    return "\n".join(lines)


def change(value: float) -> str:
    """0 for what is rounding."""
    return "0" if value == 0 else "rounding" if value < 1e-10 else f"{value:.2g}"


def folds(values: list[float]) -> str:
    """Mean and worst."""
    return f"{sum(values) / len(values):.1f} ({min(values):.0f})"


def tables(results: dict[str, dict[str, Any]], source: str) -> str:
    """All of them."""
    forms: dict[str, tuple[str, Callable[[Any], str], int]] = {
        "kept": ("change of a mean", change, 14),
        "between": ("determinants", lambda v: f"{v:.3g}", 20),
        "gestures": ("right, % (worst fold)", folds, 17),
        "assets": ("mean of windows, %", lambda v: f"{v:.1f}", 19),
        "costs": ("a mean, ms", lambda v: f"{v:.3g}", 27),
    }
    parts = [f"gestures: {source}"]
    for part, (head, form, width) in forms.items():
        rows = {n: {k: form(v) for k, v in found[part].items()} for n, found in results.items() if part in found}
        parts.append(table(head, rows, width))
    return "\n\n".join(parts)
