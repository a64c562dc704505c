r"""The metric ``1/2 tr(S_V W)`` beyond its geodesics: orthonormal bases, volumes, curvature.

In eigenvectors of P it is ``1/2 sum V'_ij W'_ij/(a_i + a_j)``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .bures_wasserstein import identity_plus, lyapunov, sylvester, sylvester_frame
from .cholesky import cholesky
from .decompositions import eigenvalues
from .matrices import sym


def bures_noise(p: Tensor, noise: Tensor) -> Tensor:
    """A tangent vector with standard normal coordinates in an orthonormal basis, from a matrix of standard normal
    entries. ``*B,n,n``, no derivative."""
    q, sums = sylvester_frame(sym(p))
    return sym(sylvester(sym(noise), q, (2 * sums).rsqrt()))


def bures_basis(p: Tensor) -> Tensor:
    """An orthonormal basis: that of the symmetric matrices in the Frobenius product, made orthonormal in the metric by
    Cholesky's method, which is smooth where eigenvectors are not. ``*B,n,n -> *B,d,n,n``."""
    n = p.shape[-1]
    rows, columns = torch.tril_indices(n, n, device=p.device)
    k = torch.arange(len(rows), device=p.device)
    flat = torch.zeros(len(rows), n, n, dtype=p.dtype, device=p.device)
    flat[k, rows, columns] = flat[k, columns, rows] = torch.where(rows == columns, 1.0, 0.5**0.5).to(p.dtype)
    dual = lyapunov(p.unsqueeze(-3), flat)
    gram = 0.5 * dual.flatten(-2) @ flat.flatten(-2).mT
    root = cholesky(gram)
    basis = torch.linalg.solve_triangular(root, flat.flatten(-2).expand(*root.shape[:-1], n * n), upper=False)
    return basis.unflatten(-1, (n, n))


def bures_log_volume(p: Tensor, s: Tensor) -> Tensor:
    r"""log |det| of the derivative of the exponential map at P along the vector of S, between orthonormal bases.

    With a the eigenvalues of P, b those of the end ``(I + S) P (I + S)`` and c those of ``P (I + S)``,
    ``sum_{i <= j} log(c_i + c_j) - (log(a_i + a_j) + log(b_i + b_j))/2``: the derivative of the end in S is
    ``X -> X C + C^T X`` with C = P (I + S), that of the vector ``X -> X P + P X``, and the metric is half the inverse
    of such a map at each end. ``*B,n,n -> *B``.
    """
    dtype, p = p.dtype, sym(p).double()  # float32 finds the least eigenvalues to eps of the largest only
    root, a = cholesky(p), identity_plus(s.double())
    ends = [eigenvalues(sym(m)) for m in (p, a @ p @ a, root.mT @ a @ root)]
    at_p, at_end, across = (_log_sums(values) for values in ends)
    return (across - 0.5 * (at_p + at_end)).to(dtype)


def _log_sums(a: Tensor) -> Tensor:
    """sum_{i <= j} log(a_i + a_j); NaN where one is not positive."""
    sums = (a.unsqueeze(-1) + a.unsqueeze(-2)).log()
    positive = torch.where(a[..., 0] > 0, 1.0, torch.nan).to(a.dtype)
    return 0.5 * (sums.sum((-2, -1)) + sums.diagonal(dim1=-2, dim2=-1).sum(-1)) * positive


def bures_curvature(p: Tensor, u: Tensor, v: Tensor) -> Tensor:
    """``3/2 sum a_i a_j/(a_i + a_j) [S_u, S_v]'_ij^2`` of orthonormal vectors of the plane of u and v, NaN where they
    span none (Takatsu 2011, "Wasserstein geometry of Gaussian measures"): three quarters of the squared vertical part
    of a bracket (O'Neill). In float64: it is a difference of products. ``*B,n,n -> *B``."""
    dtype = p.dtype
    p, u, v = torch.broadcast_tensors(*(sym(a).double() for a in (p, u, v)))
    su, sv = lyapunov(p.unsqueeze(0), torch.stack([u, v])).unbind(0)

    def product(a: Tensor, b: Tensor) -> Tensor:
        return (a @ p * b).sum((-2, -1), keepdim=True)

    su, sv = su / product(su, su).sqrt(), sv / product(sv, sv).sqrt()
    for least in (64 * torch.finfo(p.dtype).eps, 0.0):  # a second time, for rounding that the division enlarged
        sv = sv - product(su, sv) * su
        length = product(sv, sv).clamp_min(0).sqrt()
        sv = sv / torch.where(length > least, length, torch.nan)
    bracket = su @ sv - sv @ su
    return (1.5 * (bracket * (p @ lyapunov(p, bracket) @ p)).sum((-2, -1))).to(dtype)
