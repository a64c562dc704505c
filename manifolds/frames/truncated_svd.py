"""Truncated singular value decompositions that are updated: frames that follow a matrix as it grows."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..functional.frames import newton_schulz_step
from ..functional.truncated_svd import (
    cut_off,
    identity_beside,
    low_rank_added,
    residual_basis,
    rows_appended,
    stacked_core,
    thin_svd,
    turned_product,
)
from ..precision import widen


class TruncatedSVD(NamedTuple):
    r"""``u diag(s) v^T``, the best approximation of rank k of a matrix that is not kept: `u` ``*B,n,k`` and `v`
    ``*B,m,k`` with orthonormal columns, `s` ``*B,k`` descending.

    `of_matrix` starts one. `append_rows`, `append_columns` and `add_low_rank` give that of the changed matrix and leave
    this one as it is, each at a cost of O((n + m) k^2) for up to k rows. u and v are points of `Grassmann` and
    `Stiefel`: ``Grassmann().dist(old.v, new.v)`` says how far the row space moved.

    **How good it is.** Each update is the best approximation of rank k of what it is given, such as of
    ``[l u diag(s) v^T; rows]`` with the forgetting factor l, so it is exact to rounding as long as the rank of the
    whole is at most k. What updates cut off, d_i in the Frobenius norm, adds up at most: after t updates the error of
    the whole is at most ``sum_i l^(t-i) d_i``. Of rows alone, the scatter matrix A^T A is never overestimated: less
    ``v diag(s^2) v^T`` it has eigenvalues between zero and ``sum_i l^(2(t-i)) d_i^2``.

    Frames stay orthonormal to some eps, however many updates there are. Computed in float32 at least; columns have no
    stated sign; without derivatives. It is a tuple: ``torch.save(tuple(svd), file)``, and ``TruncatedSVD(*torch.load(
    file))`` as torch loads weights. Zha and Simon 1999, doi 10.1137/S1064827597329266; Brand 2006, doi
    10.1016/j.laa.2005.07.021.
    """

    u: Tensor
    s: Tensor
    v: Tensor

    @property
    def rank(self) -> int:
        """k."""
        return self.s.shape[-1]

    @staticmethod
    def of_matrix(x: Tensor, rank: int) -> TruncatedSVD:
        """That of a dense or sparse matrix, of as high a rank as it has rows and columns, at most `rank`. ``*B,n,m``.

        Raises ``ValueError`` if `x` is no matrix, or `rank` no positive integer.
        """
        where = "TruncatedSVD.of_matrix"
        _check_matrix(where, "x", x, None, None)
        _check_rank(where, rank)
        x = _dense(x, widen(x))
        return TruncatedSVD(*cut_off(thin_svd(x), rank))

    def to_matrix(self) -> Tensor:
        """u diag(s) v^T, in full. ``-> *B,n,m``."""
        return (self.u * self.s.unsqueeze(-2)) @ self.v.mT

    def append_rows(self, rows: Tensor, *, rank: int | None = None, forgetting: float | Tensor = 1.0) -> TruncatedSVD:
        """That of ``[forgetting A; rows]``. ``*B,r,m``, dense, or one sparse matrix.

        Args:
            rows: r new rows.
            rank: of the result, at most that; by default that of this one. Up to r more may be asked for.
            forgetting: the factor in (0, 1] of all that was there, a number or ``*B``.

        Raises ``ValueError`` if shapes do not fit, or `rank` and `forgetting` are not what they should be.
        """
        where, self = f"{type(self).__name__}.append_rows", self._widened()
        rank, s = _options(where, self.s, rank, forgetting)
        _check_matrix(where, "rows", rows, self.v, None)
        return TruncatedSVD(*rows_appended(self.u, s, self.v, _dense(rows, s.dtype), rank))

    def append_columns(
        self, columns: Tensor, *, rank: int | None = None, forgetting: float | Tensor = 1.0
    ) -> TruncatedSVD:
        """That of ``[forgetting A, columns]``. ``*B,n,c``, and all else as `append_rows`."""
        where = f"{type(self).__name__}.append_columns"
        _check_matrix(where, "columns", columns, None, self.u)
        return self._swapped().append_rows(columns.transpose(-2, -1), rank=rank, forgetting=forgetting)._swapped()

    def add_low_rank(
        self, a: Tensor, b: Tensor, *, rank: int | None = None, forgetting: float | Tensor = 1.0
    ) -> TruncatedSVD:
        """That of ``forgetting A + a b^T``. ``*B,n,c; *B,m,c``, and all else as `append_rows`."""
        where, self = f"{type(self).__name__}.add_low_rank", self._widened()
        rank, s = _options(where, self.s, rank, forgetting)
        a, b = _factors(where, a, b, self.u, self.v)
        return TruncatedSVD(*low_rank_added(self.u, s, self.v, a, b, rank))

    def _widened(self) -> TruncatedSVD:
        """The same in float32 at least; where it was less, with frames that are orthonormal to the rounding of that."""
        dtype = widen(self.s)
        if dtype == self.s.dtype:
            return self
        u, s, v = (t.to(dtype) for t in self)
        return TruncatedSVD(*low_rank_added(u, s, v, u[..., :0], v[..., :0], self.rank))

    def _swapped(self) -> TruncatedSVD:
        """That of the transpose."""
        return TruncatedSVD(self.v, self.s, self.u)


class ProductSVD(NamedTuple):
    r"""A `TruncatedSVD` for updates by a few rows or columns, at a cost of O((n + m) k r) for r of them in the place of
    O((n + m) k^2): ``u = u_large u_small`` and ``v = v_large v_small``, of which a turn changes the small factor
    ``*B,k,k``, and r columns the large one by a matrix of rank r.

    The methods are those of `TruncatedSVD` and give the same up to rounding. After k rows and columns, or where a small
    factor comes near a singular matrix, an update multiplies the factors and makes u and v orthonormal anew; one of k
    rows or more, or that changes the rank, is that of `TruncatedSVD`. So is every one under `torch.compile` and
    `vmap`, where numbers cannot be looked at. It pays where n + m is large and r well below k.

    ``ProductSVD.of(svd)`` starts one. Brand 2006, doi 10.1016/j.laa.2005.07.021; Deng et al. 2024, "Fast Updating
    Truncated SVD for Representation Learning with Sparse Matrices", arXiv:2401.09703, whose columns of the large factor
    are sparse too.
    """

    u_large: Tensor
    u_small: Tensor
    s: Tensor
    v_large: Tensor
    v_small: Tensor
    pending: int = 0  # rows and columns since the frames were made orthonormal

    @staticmethod
    def of(svd: TruncatedSVD) -> ProductSVD:
        """The same decomposition."""
        return ProductSVD(svd.u, identity_beside(svd.u), svd.s, svd.v, identity_beside(svd.v))

    @property
    def rank(self) -> int:
        """k."""
        return self.s.shape[-1]

    @property
    def u(self) -> Tensor:
        """u_large u_small. ``*B,n,k``."""
        return self.u_large @ self.u_small

    @property
    def v(self) -> Tensor:
        """v_large v_small. ``*B,m,k``."""
        return self.v_large @ self.v_small

    def multiplied(self) -> TruncatedSVD:
        """The factors multiplied, and made orthonormal."""
        if self.pending == 0:
            return TruncatedSVD(self.u_large, self.s, self.v_large)
        return TruncatedSVD(newton_schulz_step(self.u), self.s, newton_schulz_step(self.v))

    def to_matrix(self) -> Tensor:
        """u diag(s) v^T, in full. ``-> *B,n,m``."""
        return self.multiplied().to_matrix()

    def append_rows(self, rows: Tensor, *, rank: int | None = None, forgetting: float | Tensor = 1.0) -> ProductSVD:
        """That of ``[forgetting A; rows]``, as `TruncatedSVD.append_rows`."""
        where, self = f"{type(self).__name__}.append_rows", self._widened()
        wanted, s = _options(where, self.s, rank, forgetting)
        _check_matrix(where, "rows", rows, self.v_large, None)
        if self._is_few(rows.shape[-2], wanted):
            columns = _dense(rows, s.dtype).mT
            found = residual_basis(self.v_large, self.v_small, columns)
            if found is not None:
                p, q, t = found
                right = torch.cat([torch.cat([identity_beside(self.v_small), p], -1), _below(t, self.rank)], -2)
                core = stacked_core(s, right[..., : self.rank], right[..., self.rank :])
                moved = self._turned(core, None, q, rows.shape[-2])
                if moved is not None:
                    return moved
        return ProductSVD.of(self.multiplied().append_rows(rows, rank=rank, forgetting=forgetting))

    def append_columns(
        self, columns: Tensor, *, rank: int | None = None, forgetting: float | Tensor = 1.0
    ) -> ProductSVD:
        """That of ``[forgetting A, columns]``, as `TruncatedSVD.append_columns`."""
        where = f"{type(self).__name__}.append_columns"
        _check_matrix(where, "columns", columns, None, self.u_large)
        return self._swapped().append_rows(columns.transpose(-2, -1), rank=rank, forgetting=forgetting)._swapped()

    def add_low_rank(
        self, a: Tensor, b: Tensor, *, rank: int | None = None, forgetting: float | Tensor = 1.0
    ) -> ProductSVD:
        """That of ``forgetting A + a b^T``, as `TruncatedSVD.add_low_rank`."""
        where, self = f"{type(self).__name__}.add_low_rank", self._widened()
        wanted, s = _options(where, self.s, rank, forgetting)
        a, b = _factors(where, a, b, self.u_large, self.v_large)
        if self._is_few(a.shape[-1], wanted):
            left = residual_basis(self.u_large, self.u_small, a)
            right = None if left is None else residual_basis(self.v_large, self.v_small, b)
            if left is not None and right is not None:
                (p, q, t), (p_right, q_right, t_right) = left, right
                added = torch.cat([p, t], -2) @ torch.cat([p_right, t_right], -2).mT
                old = torch.cat([s, torch.zeros_like(t[..., 0, :])], -1)
                moved = self._turned(torch.diag_embed(old) + added, q, q_right, a.shape[-1])
                if moved is not None:
                    return moved
        return ProductSVD.of(self.multiplied().add_low_rank(a, b, rank=rank, forgetting=forgetting))

    def _is_few(self, count: int, rank: int) -> bool:
        return rank == self.rank and 0 < count and self.pending + count < self.rank

    def _turned(self, core: Tensor, q_left: Tensor | None, q_right: Tensor | None, count: int) -> ProductSVD | None:
        """The decomposition of ``[u q_left] core [v q_right]^T``; None where a product would be ill-conditioned."""
        a, t, b = cut_off(thin_svd(core), self.rank)
        left = turned_product(self.u_large, self.u_small, a, q_left)
        right = None if left is None else turned_product(self.v_large, self.v_small, b, q_right)
        return None if left is None or right is None else ProductSVD(*left, t, *right, self.pending + count)

    def _widened(self) -> ProductSVD:
        """The same in float32 at least."""
        return self if widen(self.s) == self.s.dtype else ProductSVD.of(self.multiplied()._widened())

    def _swapped(self) -> ProductSVD:
        return ProductSVD(self.v_large, self.v_small, self.s, self.u_large, self.u_small, self.pending)


# ---- arguments ------------------------------------------------------------------------------------------------


def _below(t: Tensor, k: int) -> Tensor:
    """[0, T] with k zero columns."""
    return torch.cat([t.new_zeros((*t.shape[:-1], k)), t], -1)


def _dense(x: Tensor, dtype: torch.dtype) -> Tensor:
    return (x.to_dense() if x.layout != torch.strided else x).to(dtype)


def _factors(where: str, a: Tensor, b: Tensor, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """a and b of ``a b^T``, checked."""
    _check_matrix(where, "a", a, None, u)
    _check_matrix(where, "b", b, None, v)
    if a.shape[-1] != b.shape[-1]:
        raise ValueError(f"{where}: a and b must have as many columns, got {tuple(a.shape)} and {tuple(b.shape)}")
    return _dense(a, u.dtype), _dense(b, u.dtype)


def _check_matrix(where: str, name: str, x: object, like_columns: Tensor | None, like_rows: Tensor | None) -> None:
    """Raise unless `x` is a matrix with as many columns as `like_columns` has rows, or rows as `like_rows` has, and the
    same batch."""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.dim() < 2:
        got = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"{where}: {name} must be real matrices *B,n,m, got {got}")
    for at, like in ((-1, like_columns), (-2, like_rows)):
        if like is not None and (x.shape[at] != like.shape[-2] or x.shape[:-2] != like.shape[:-2]):
            side = "rows" if at == -2 else "columns"
            raise ValueError(
                f"{where}: {name} must have {like.shape[-2]} {side} and the batch {tuple(like.shape[:-2])}, got shape "
                f"{tuple(x.shape)}"
            )


def _check_rank(where: str, rank: object) -> None:
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise ValueError(f"{where}: rank must be a positive integer, got {rank!r}")


def _options(where: str, s: Tensor, rank: int | None, forgetting: float | Tensor) -> tuple[int, Tensor]:
    """The rank of the result, and `s` as far as it is remembered."""
    if rank is not None:
        _check_rank(where, rank)
    if not isinstance(forgetting, Tensor):
        if isinstance(forgetting, bool) or not isinstance(forgetting, (int, float)) or not 0 < forgetting <= 1:
            raise ValueError(f"{where}: forgetting must be a factor in (0, 1], got {forgetting!r}")
        return rank or s.shape[-1], forgetting * s
    if forgetting.shape not in ((), s.shape[:-1]):
        raise ValueError(
            f"{where}: forgetting must be a number or a tensor of the batch {tuple(s.shape[:-1])}, got shape "
            f"{tuple(forgetting.shape)}"
        )
    return rank or s.shape[-1], forgetting.unsqueeze(-1).to(s.dtype) * s
