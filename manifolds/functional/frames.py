"""Orthonormal frames: roots of Gram matrices, factorisations without a synchronisation, invariant sampling.

Everything here works on the small p x p side of an n x p frame, by matrix products and triangular solves.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..precision import widen
from .decompositions import eigh, eigh_of_plain
from .matrices import identity_like
from .near_identity import inverse_triangle_near_identity
from .operators import Operand, define
from .singular_values import polar_factor
from .tracing import derivative_wanted, values_at_hand, values_readable, variation


def block(rows: list[list[Tensor]]) -> Tensor:
    """A matrix from its blocks."""
    return torch.cat([torch.cat(row, -1) for row in rows], -2)


def polish(y: Tensor) -> Tensor:
    """`newton_schulz_step` that answers NaN where it cannot reach the manifold: a frame that is off by more than
    0.5 eps^(1/3) would be silently wrong after it."""
    gram = y.mT @ y
    identity = identity_like(gram)
    off = (gram - identity).detach().abs().amax((-2, -1), keepdim=True)
    limit = 0.5 * torch.finfo(y.dtype).eps ** (1 / 3)
    # Written on the p x p factor, and so that NaN stays NaN.
    step = 1.5 * identity - 0.5 * gram
    mendable = off < 0.2
    if free_to_look(gram) and limit < float(torch.where(mendable, off, 0.0).amax()):
        return polish(y @ torch.where(mendable, step, torch.nan))  # what is farther off must not come near by chance
    return y @ torch.where(off > limit, torch.nan, step)


def free_to_look(gram: Tensor) -> bool:
    """Whether numbers may steer the work: no derivative may depend on a look."""
    return gram.numel() > 0 and values_at_hand(gram) and not derivative_wanted(gram)


def newton_schulz_step(y: Tensor) -> Tensor:
    """Y (3I - Y^T Y)/2: squares the deviation E = Y^T Y - I to -3/4 E^2 + O(E^3). ``*B,n,p -> *B,n,p``."""
    return y @ (1.5 * identity_like(y) - 0.5 * (y.mT @ y))


# With the scaling below the smallest eigenvalue in [1/c, 1] is lifted by up to 27/4 a step, then converges
# quadratically: 11 and 14 steps reach rounding for Gram matrices of condition 1e6 and 1e8.
_ROOT_STEPS = {torch.float32: 11, torch.float64: 14}


def _scales(bound: Tensor, tolerance: float, look: bool) -> list[Any]:
    """The scaling of each step. With `look` as many numbers as the worst matrix needs to reach the tolerance, else a
    tensor over the batch for each step of the table."""
    low: Any = bound.rsqrt()  # smallest singular value of the iterate's square root
    least = most = _ROOT_STEPS[bound.dtype]
    if look:
        # A matrix that is not finite, whose bound is NaN or infinite, must not drive the others.
        low, least, most = float(torch.where(low > 0, low, 1.0).min()), 1, 3 * most
    scales = []
    while len(scales) < least or (look and len(scales) < most and not 1 - low < tolerance):
        scale = (3 / (1 + low + low * low)) ** 0.5
        low = 0.5 * scale * low * (3 - (scale * low) ** 2)
        scales.append(scale)
    return scales


def inverse_sqrt(gram: Tensor, tolerance: float | None = None) -> tuple[Tensor, Tensor]:
    """(S^-1/2, S^1/2) of Gram matrices with eigenvalues not below one. ``*B,p,p -> 2 x *B,p,p``.

    Coupled Newton-Schulz (Higham 2008, eq. 6.35) with the stable scaling of Chen and Chow (2014): matrix products
    only, hence differentiable to every order and without a synchronisation. `tolerance` (default eps) is the error
    that the caller can bear, because a step of its own follows. To a compiler it is one operator, and the equation
    ``Z S Z = I`` is differentiated in two Newton steps: first and second derivatives.
    """
    eps = torch.finfo(gram.dtype).eps
    if not torch.compiler.is_compiling():
        return _newton_schulz_roots(gram, eps if tolerance is None else tolerance)
    wanted = derivative_wanted(gram)
    roots = _roots_operator(gram.detach(), eps if tolerance is None or wanted else tolerance)
    return _differentiable_roots(gram, *roots) if wanted else roots


def inverse_root(gram: Tensor, tolerance: float) -> Tensor:
    """S^-1/2 alone, of a Gram matrix as in `inverse_sqrt`."""
    if not torch.compiler.is_compiling():
        return _newton_schulz_inverse(gram, tolerance)
    if derivative_wanted(gram):
        return inverse_sqrt(gram, tolerance)[0]
    return _inverse_root_operator(gram.detach(), tolerance)


def _differentiable_roots(gram: Tensor, inverse: Tensor, root: Tensor) -> tuple[Tensor, Tensor]:
    """The detached roots of `gram` with its derivatives, in corrections of value zero."""
    q, weight = _sylvester_operator(gram.detach())
    identity = identity_like(gram)
    for _ in range(2):  # d(Z S Z) = dZ S^1/2 + S^1/2 dZ + Z dS Z
        off = q.mT @ (inverse @ gram @ inverse - identity) @ q
        change = q @ (weight * off) @ q.mT
        inverse = inverse - variation(change)
    product = gram @ inverse
    return inverse, root + variation(product)


def _newton_schulz_roots(gram: Tensor, tolerance: float) -> tuple[Tensor, Tensor]:
    z, y, t, bound = _newton_schulz(gram, tolerance)
    root = bound.sqrt()
    return z / root, (y @ t) * root


def _newton_schulz_inverse(gram: Tensor, tolerance: float) -> Tensor:
    z, _, _, bound = _newton_schulz(gram, tolerance)
    return z * bound.rsqrt()


def _newton_schulz(gram: Tensor, tolerance: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The scaled inverse root, the last iterate of the root and the factor that it lacks, and the scale."""
    identity = identity_like(gram)
    # The largest row sum bounds the eigenvalues; it is near one for the small steps of an optimizer. Detached: the
    # result does not depend on it.
    bound = gram.detach().abs().sum(-1, keepdim=True).amax(-2, keepdim=True)
    y, z, t = gram / bound, identity, identity
    for step, scale in enumerate(_scales(bound, tolerance, free_to_look(gram))):
        y = y @ t if step else y
        product = z @ y if step else y
        t = 1.5 * scale * identity - (0.5 * scale**3) * product
        z = t @ z if step else t
    return z, y, t, bound


def _sylvester_basis(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Q and w with ``dZ = Q (w * Q^T K Q) Q^T`` where ``dZ S^1/2 + S^1/2 dZ = K``."""
    values, q = eigh_of_plain(gram)
    half = values.clamp(min=torch.finfo(values.dtype).tiny).sqrt()
    return q, (half.unsqueeze(-1) + half.unsqueeze(-2)).reciprocal()


def _two_alike(gram: Tensor, *_: float) -> tuple[Tensor, Tensor]:
    return gram.new_empty(gram.shape), gram.new_empty(gram.shape)


_sylvester_operator = define("root_sylvester_basis", _sylvester_basis, [Operand("gram", 2)], _two_alike, count=2)
_inverse_root_operator = define(
    "inverse_root",
    _newton_schulz_inverse,
    [Operand("gram", 2)],
    lambda gram, _: gram.new_empty(gram.shape),
    numbers={"tolerance": float},
)
_roots_operator = define(
    "inverse_sqrt",
    _newton_schulz_roots,
    [Operand("gram", 2)],
    _two_alike,
    numbers={"tolerance": float},
    count=2,
)


def qr_step(w: Tensor) -> Tensor:
    """The Q factor of `cholesky_qr`."""
    gram = w.mT @ w
    inverse = inverse_triangle_near_identity(gram) if free_to_look(gram) else None
    return cholesky_qr(w, gram)[0] if inverse is None else w @ inverse


def cholesky_qr(w: Tensor, gram: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Thin QR with positive diagonal, W = Q R, from the Cholesky factor of W^T W. ``*B,n,p -> *B,n,p and *B,p,p``.

    One Gram product, one p x p factorisation and one product with the p x p inverse, for W near orthonormal, such as
    x + u with a tangent u. A second pass for long u, where the error has grown with the squared condition number. Still
    longer ones, of which the Gram matrix forgets directions, by Householder reflections, where numbers can be looked
    at; else NaN.
    """
    gram = w.mT @ w if gram is None else gram
    look = free_to_look(gram)
    largest = float(gram.amax()) if look else math.inf  # the largest entry is on the diagonal
    if look and too_long(gram, largest):
        return positive_qr(w)
    q, r = _cholesky_pass(w, gram)
    if largest <= _ONE_PASS:
        return q, r
    # A long step squares the condition number into the error; the second pass starts near orthonormal, or is no mend.
    gram = q.mT @ q
    off = (gram - identity_like(gram)).detach().abs().amax((-2, -1), keepdim=True)
    lost = forgets_directions(r.mT @ r) | ~(off < 0.5)
    q, again = _cholesky_pass(q, gram)
    return torch.where(lost, torch.nan, q), again @ r


# Squared length of a column, times eps, beyond which a Gram matrix I + u^T u is not the whole truth about x + u: the
# error of what is computed from it is of that order.
_LOOK, _NAN = 1e-3, 1e-2


def too_long(gram: Tensor, largest: float) -> bool:
    """Whether these Gram matrices of x + u, with that largest entry, should not be used."""
    if not math.isfinite(largest):  # of a matrix that is lost, and says nothing of the others
        largest = float(gram.nan_to_num(nan=0.0, posinf=0.0).amax())
    return _LOOK / torch.finfo(gram.dtype).eps < largest


def forgets_directions(gram: Tensor) -> Tensor:
    """Where frames made from this Gram matrix of x + u may be wrong though orthonormal. ``*B,p,p -> *B,1,1`` (bool)."""
    return gram.detach().amax((-2, -1), keepdim=True) > _NAN / torch.finfo(gram.dtype).eps


def positive_qr(w: Tensor) -> tuple[Tensor, Tensor]:
    """Thin QR with positive diagonal by Householder reflections: LAPACK's signs depend on the matrix. ``*B,n,p``."""
    q, r = torch.linalg.qr(w)
    sign = torch.where(r.diagonal(dim1=-2, dim2=-1) < 0, -1.0, 1.0).to(w.dtype)
    return q * sign.unsqueeze(-2), r * sign.unsqueeze(-1)


_ONE_PASS = 10.0  # largest squared column up to which one pass leaves a few eps


def _cholesky_pass(w: Tensor, gram: Tensor) -> tuple[Tensor, Tensor]:
    lower = torch.linalg.cholesky_ex(gram)[0]  # cholesky itself reads its error code back: a synchronisation
    inverse = torch.linalg.solve_triangular(lower, identity_like(gram), upper=False)
    return w @ inverse.mT, lower.mT


def sampled_dtypes(dtype: torch.dtype | None) -> tuple[torch.dtype, torch.dtype]:
    """The dtype asked for, and the one to factorise in: LAPACK has no half precision."""
    dtype = torch.get_default_dtype() if dtype is None else dtype
    if not dtype.is_floating_point:
        raise ValueError(f"random: dtype must be a floating-point type, got {dtype}")
    return dtype, widen(dtype)


def haar_frame(
    *size: int,
    generator: torch.Generator | None = None,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Orthonormal n x p frames from the invariant law. ``size = (*B, n, p)``.

    Householder QR of a Gaussian matrix with the diagonal of R made positive (Mezzadri 2007, arXiv:math-ph/0609050):
    LAPACK's own signs depend on the matrix and would not be uniform.
    """
    dtype, wide = sampled_dtypes(dtype)
    return positive_qr(torch.randn(size, generator=generator, dtype=wide, device=device))[0].to(dtype).contiguous()


def orthogonal_complement(x: Tensor) -> Tensor:
    """An orthonormal basis of the complement of a frame. ``*B,n,p -> *B,n,n-p``.

    ``[-z^T; I - z (I + S)^-1 z^T]`` for x O = [S; z] with O orthogonal and S symmetric, not negative: smooth in x where
    the first p rows of x are nonsingular, which a Householder factorisation is not.
    """
    n, p = x.shape[-2:]
    turned = x @ polar_factor(x[..., :p, :]).mT
    top, z = turned[..., :p, :], turned[..., p:, :]
    # Not by torch's solve, whose forward derivative is wrong under two levels of vmap.
    inner = torch.linalg.inv_ex(identity_like(x) + 0.5 * (top + top.mT))[0] @ z.mT
    eye = torch.eye(n - p, dtype=x.dtype, device=x.device)
    return torch.cat([-z.mT, eye - z @ inner], -2)


def normal_basis(x: Tensor) -> Tensor:
    """q_i e_j^T, i major, with q the complement: the n x p matrices with x^T u = 0. ``*B,n,p -> *B,(n-p)p,n,p``."""
    n, p = x.shape[-2:]
    outer = orthogonal_complement(x).mT[..., :, None, :, None] * identity_like(x)[:, None, :]  # [i, j, n, p]
    return outer.reshape(*x.shape[:-2], (n - p) * p, n, p)


def so_log(v: Tensor) -> Tensor:
    """The skew logarithm of a rotation with angles below pi, in real arithmetic. Not differentiable. ``*B,m,m``.

    With the eigenvectors q of the symmetric part, (V + V^T)/2 q = cos(t) q and |(V - V^T)/2 q| = sin(t), so that
    ``log V = skew(V) sum_q t/sin(t) q q^T``. The sine is taken per eigenvector: sqrt(1 - cos^2) loses half the digits
    near pi. At an angle of pi, where the logarithm is not unique, the result is finite but not a logarithm.
    """
    turning = 0.5 * (v - v.mT)
    cosine, q = eigh(0.5 * (v + v.mT))
    pushed = turning @ q
    sine = pushed.square().sum(-2).sqrt()
    tiny = torch.finfo(v.dtype).tiny
    ratio = torch.where(sine > tiny, torch.atan2(sine, cosine) / torch.where(sine > tiny, sine, 1.0), 1.0)
    log = (pushed * ratio.unsqueeze(-2)) @ q.mT
    return 0.5 * (log - log.mT)


# Taylor degree 16 in blocks of four, by six products; the first omitted term is 2e-16 at norm 0.8.
_EXP_NORM = 0.8
_EXP_COEFFICIENTS = tuple(1 / math.factorial(k) for k in range(17))
_EXP_SQUARINGS = 10  # norms up to 800, where numbers cannot be looked at
# Elsewhere as many as are needed, up to norms of 5e4 and 8e8: beyond, float32 has lost its last digit.
_EXP_MOST_SQUARINGS = {torch.float32: 16, torch.float64: 30}


def matrix_exp(a: Tensor) -> Tensor:
    """exp(A) by scaling and squaring: products only, differentiable to every order. ``*B,m,m``.

    In place of torch.linalg.matrix_exp, whose degree-8 branch is wrong in the tenth digit (float64) or the fifth
    (float32) for a single matrix (pytorch issue 196592, torch 2.13 and 2.14), and which synchronises. The error grows
    with the norm; above 8e8 (float32: 5e4), and above 800 where a compiled derivative or functorch's transforms are
    asked for, the result is NaN. To a compiler it is one operator where no derivative is wanted.
    """
    if torch.compiler.is_compiling() and not derivative_wanted(a):
        return _exp_operator(a.detach())
    return _scaling_and_squaring(a)


def _scaling_and_squaring(a: Tensor) -> Tensor:
    # In three dimensions a product is one node of a graph.
    b = a.reshape(-1, *a.shape[-2:])
    identity = identity_like(b).expand_as(b)
    norm = b.detach().abs().sum(-2, keepdim=True).amax(-1, keepdim=True)
    # Detached and a power of two: the result does not depend on it, and it rounds nothing.
    readable = values_readable(a) and a.numel() > 0
    most = _EXP_MOST_SQUARINGS[a.dtype] if readable else _EXP_SQUARINGS
    needed = (norm / _EXP_NORM).log2().ceil()
    squarings = needed.clamp(0, most)
    small = _taylor(b * torch.exp2(-squarings), identity)
    steps = int(squarings.nan_to_num(0.0).max()) if readable else _EXP_SQUARINGS
    # Each item squares the identity until as many steps are left as it needs: no unused square overflows.
    idle = steps - squarings
    e = torch.where(idle <= 0, small, identity) if steps > 0 else small
    for k in range(1, steps + 1):
        e = torch.where(idle == k, small, torch.bmm(e, e))
    return torch.where(needed <= most, e, torch.nan).reshape(a.shape)


def _taylor(b: Tensor, identity: Tensor) -> Tensor:
    """The sum of the first 17 terms. ``N,m,m``."""
    c = _EXP_COEFFICIENTS
    b2 = torch.bmm(b, b)
    b3, b4 = torch.bmm(b2, b), torch.bmm(b2, b2)

    def quarter(k: int) -> Tensor:
        return (c[k] * identity).add(b, alpha=c[k + 1]).add(b2, alpha=c[k + 2]).add(b3, alpha=c[k + 3])

    e = quarter(12).add(b4, alpha=c[16])
    for k in (8, 4, 0):
        e = torch.baddbmm(quarter(k), e, b4)
    return e


_exp_operator = define("matrix_exp", _scaling_and_squaring, [Operand("a", 2)], lambda a: a.new_empty(a.shape))
