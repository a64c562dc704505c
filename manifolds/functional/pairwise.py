"""Tables of all pairs of two sets of points, in tiles: no temporary grows with the number of pairs times the dimension,
neither in the forward nor in the backward pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_legacy_batchedtensor  # pyright: ignore[reportMissingImports]
from torch.autograd import Function, forward_ad
from torch.utils.checkpoint import checkpoint

from .tracing import transforms_are_on

_TILE = 1 << 18  # entries of a broadcast tile: a cache holds its temporaries, and a launch costs less than their work
_WHOLE = 4  # tiles up to which one broadcast is faster than tiles that a backward pass makes again

Pairing = Callable[[Tensor, Tensor], Tensor]


def table(pairing: Pairing, x: Tensor, y: Tensor, ndim: int) -> Tensor:
    """``pairing(x_i, y_j)`` for all i, j. ``(*B,N,P), (*B,M,P) -> *B,N,M``, P the last `ndim` dimensions.

    `pairing` broadcasts and gives one number a pair. Its temporaries are those of one tile, whose size follows from
    the shapes alone (of a few tiles, where that is all); a backward pass makes them again instead of keeping them.
    Second derivatives and the transforms of `torch.func` keep what they need of all tiles. To a compiler, which fuses
    loops of its own, it is one call.
    """
    place = -ndim - 1

    def tile(rows: Tensor, columns: Tensor) -> Tensor:
        return pairing(rows.unsqueeze(place), columns.unsqueeze(place - 1))

    if torch.compiler.is_compiling():
        return tile(x, y)
    sizes = _tile_shape(x, y, place)
    if x.shape[place] * y.shape[place] <= _WHOLE * math.prod(sizes):
        return tile(x, y)
    if transforms_are_on() or forward_ad._current_level >= 0:
        return _joined(tile, x, y, place, sizes)
    if torch.is_grad_enabled():
        if _records(tile, x, y, place):
            return _joined(_recomputed(tile), x, y, place, sizes)
        if x.requires_grad or y.requires_grad:
            return _Table.apply(x, y, tile, place, sizes)  # type: ignore[return-value]
    return _filled(tile, x, y, place, sizes)


def _tile_shape(x: Tensor, y: Tensor, place: int) -> tuple[int, int]:
    """Rows and columns of a tile, as square as may be: beside its pairs it costs what they cost."""
    point = math.prod(x.shape[place + 1 :])
    batch = math.prod(torch.broadcast_shapes(x.shape[:place], y.shape[:place]))
    pairs = max(1, _TILE // max(1, batch * point))
    rows, columns = max(1, x.shape[place]), max(1, y.shape[place])
    height = min(rows, math.isqrt(pairs))
    width = min(columns, pairs // height)
    return min(rows, pairs // width), width


def _records(tile: Pairing, x: Tensor, y: Tensor, place: int) -> bool:
    """Whether autograd records what `tile` makes of constants: it holds a tensor, such as a curvature, that learns."""
    return tile(x.detach().narrow(place, 0, 1), y.detach().narrow(place, 0, 1)).requires_grad


def _recomputed(tile: Pairing) -> Pairing:
    return lambda rows, columns: checkpoint(tile, rows, columns, use_reentrant=False, preserve_rng_state=False)


def _joined(tile: Pairing, x: Tensor, y: Tensor, place: int, sizes: tuple[int, int]) -> Tensor:
    """The table from tiles that are tensors of their own, for whoever differentiates them."""
    # Split once, so that the gradients of the parts are put together once.
    columns = y.split(sizes[1], place)
    return torch.cat([torch.cat([tile(rows, c) for c in columns], -1) for rows in x.split(sizes[0], place)], -2)


def _tiles(x: Tensor, y: Tensor, place: int, sizes: tuple[int, int]) -> Iterator[tuple[slice, slice, Tensor, Tensor]]:
    """Where a tile lies, and its points."""
    height, width = sizes
    for i in range(0, x.shape[place], height):
        for j in range(0, y.shape[place], width):
            rows, columns = slice(i, min(i + height, x.shape[place])), slice(j, min(j + width, y.shape[place]))
            yield rows, columns, _part(x, place, rows), _part(y, place, columns)


def _part(z: Tensor, place: int, s: slice) -> Tensor:
    return z.narrow(place, s.start, s.stop - s.start)


def _filled(tile: Pairing, x: Tensor, y: Tensor, place: int, sizes: tuple[int, int]) -> Tensor:
    """The table with every tile written to its place. Tiles that are kept, or anything else that is, would lie between
    the temporaries, and the C library's allocator could not use the memory of those again."""
    result = None
    for rows, columns, a, b in _tiles(x, y, place, sizes):
        part = tile(a, b)
        if result is None:
            result = part.new_empty((*part.shape[:-2], x.shape[place], y.shape[place]))
        result[..., rows, columns] = part
    assert result is not None
    return result


class _Table(Function):
    """`_filled` with its derivative, in which `tile` holds nothing that learns."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, tile: Pairing, place: int, sizes: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(x, y)
        ctx.recipe = (tile, place, sizes)
        return _filled(tile, x, y, place, sizes)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, y, (tile, place, sizes) = *ctx.saved_tensors, ctx.recipe
        learned = [z for z, wanted in zip((x, y), ctx.needs_input_grad, strict=False) if wanted]
        # A further derivative needs a graph, and gradients that come in a vmap cannot be added up in place.
        if torch.is_grad_enabled() or is_legacy_batchedtensor(gradient):
            with torch.enable_grad():
                joined = _joined(_recomputed(tile), x, y, place, sizes)
            found = iter(torch.autograd.grad(joined, learned, gradient, create_graph=torch.is_grad_enabled()))
        else:
            found = iter(_added_up(tile, x, y, place, sizes, gradient, ctx.needs_input_grad))
        return *(next(found) if wanted else None for wanted in ctx.needs_input_grad[:2]), None, None, None


def _added_up(
    tile: Pairing, x: Tensor, y: Tensor, place: int, sizes: tuple[int, int], gradient: Tensor, wanted: tuple[bool, ...]
) -> list[Tensor]:
    """The gradients of the arguments that are wanted."""
    totals = [torch.zeros_like(z) for z, w in zip((x, y), wanted, strict=False) if w]
    for rows, columns, *points in _tiles(x, y, place, sizes):
        with torch.enable_grad():
            points = [p.detach().requires_grad_(w) for p, w in zip(points, wanted, strict=False)]
            part = tile(*points)
        learned = [p for p, w in zip(points, wanted, strict=False) if w]
        found = torch.autograd.grad(part, learned, gradient[..., rows, columns])
        places = [s for s, w in zip((rows, columns), wanted, strict=False) if w]
        for total, g, s in zip(totals, found, places, strict=True):
            _part(total, place, s).add_(g)
    return totals
