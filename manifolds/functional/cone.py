"""The cone of positive definite matrices: projection, and matrices with a given spectrum."""

from __future__ import annotations

import torch
from torch import Tensor

from .definite import positive_definite
from .frames import positive_qr
from .matrices import identity_like, sym
from .spectral import symmetric_function
from .spectral_functions import POSITIVE_PART
from .tracing import values_at_hand


def _plus_diagonal(x: Tensor, shift: Tensor) -> Tensor:
    """x + shift I. ``*B,n,n; *B -> *B,n,n``."""
    return x + shift[..., None, None] * identity_like(x)


def raised(x: Tensor) -> Tensor:
    """Symmetric `x` itself where it is positive definite; else with eigenvalues of at least 16 n eps of the largest
    magnitude, and the identity for zero."""
    definite = positive_definite(x)[..., None, None]
    if values_at_hand(x) and bool(definite.all()):
        return x
    size = torch.linalg.vector_norm(x.detach(), torch.inf, (-2, -1))
    n = x.shape[-1]
    # The norm of a matrix is between its largest entry and n times that. The factorisation of the result, and its
    # rounding, need some n eps of it.
    floor = torch.where(size == 0, 1.0, 16 * n * torch.finfo(x.dtype).eps * size)
    other = torch.where(definite, 0.0, x)  # in the other items no eigenvalues are sought
    lifted = _plus_diagonal(symmetric_function(_plus_diagonal(other, -floor), POSITIVE_PART), floor)
    return torch.where(definite, x, sym(lifted))


def lifted(x: Tensor) -> Tensor:
    """Symmetric `x` itself where it is positive definite, by more than the rounding of an eigenvalue in float64; else,
    if that is enough to be, with 4 n eps times the trace added to every eigenvalue, and n of the least numbers."""
    n, wide = x.shape[-1], x.detach().double()
    trace = wide.diagonal(dim1=-2, dim2=-1).sum(-1)
    inside = positive_definite(_plus_diagonal(wide, -n * torch.finfo(wide.dtype).eps * trace))
    if values_at_hand(x) and bool(inside.all()):
        return x
    info = torch.finfo(x.dtype)
    # Next to zero rounding is absolute.
    higher = _plus_diagonal(x, (4 * n * info.eps * trace + n * info.tiny * info.eps).to(x.dtype))
    return torch.where((inside | ~positive_definite(higher))[..., None, None], x, higher)


def definite_in(x: Tensor, dtype: torch.dtype) -> Tensor:
    """x + eps tr(x) I, of which the nearest numbers of `dtype` are positive definite; of a multiple of x that fits."""
    n, info, at = x.shape[-1], torch.finfo(dtype), x.detach()
    size = at.abs().amax((-2, -1))
    fits = info.max / (1 + 2 * n * info.eps) / size
    x = x * torch.where((fits < 1) & size.isfinite(), fits, 1.0)[..., None, None]
    # The rounding is a matrix of norm eps/2 tr(x) at most: |x_ij| <= sqrt(x_ii x_jj). Next to zero it is absolute.
    trace = x.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    return _plus_diagonal(x, info.eps * trace + n * info.tiny * info.eps)


def inside_cone(x: Tensor, margin: float) -> Tensor:
    """`x` where it is positive definite by more than `margin` times its trace, else that much more of the identity."""
    shift = margin * x.detach().diagonal(dim1=-2, dim2=-1).sum(-1)
    inside = positive_definite(_plus_diagonal(x.detach(), -shift))
    return torch.where(inside[..., None, None], x, _plus_diagonal(x, shift))


def with_spectrum(noise: Tensor, places: Tensor, condition: float) -> Tensor:
    """Eigenvectors from standard normal `noise` ``*B,n,n``, eigenvalues from uniform `places` in [0, 1) ``*B,n``: on a
    logarithmic scale between condition^(-1/2) and condition^(1/2), both of which occur where n > 1."""
    ends = torch.linspace(0, 1, 2, dtype=places.dtype, device=places.device).expand(*places.shape[:-1], 2)
    places = torch.cat([ends, places[..., 2:]], -1) if places.shape[-1] > 1 else torch.full_like(places, 0.5)
    frame = positive_qr(noise)[0]
    return sym((frame * (condition ** (places - 0.5)).unsqueeze(-2)) @ frame.mT)
