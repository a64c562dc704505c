r"""Square roots of positive definite matrices without eigenvectors: iteration, Taylor polynomial, Padé quotient.

Each matrix is divided by a scale of its own: its mean eigenvalue, or its Frobenius norm over what a method bears above
one, if that is more. (The norm alone, as in the papers, makes all eigenvalues of a well conditioned matrix small, where
series are poor.) With ``A = X^2`` and ``Z = X^-1``:

- Newton-Schulz, coupled (Higham 2008, Functions of Matrices, eq. 6.35): ``T = (3 I - Z Y)/2``, ``Y <- Y T``,
  ``Z <- T Z`` from ``Y = A``, ``Z = I``. Of the error of ZY every step leaves ``3/4 r^2``.
- Taylor: ``(1 - z)^(1/2)`` and ``(1 - z)^(-1/2)`` in ``z = I - A`` (Song, Sebe, Wang 2022, arXiv:2201.08663, eq. 5).
- Padé, diagonal (ibid. eq. 9): with ``N = 2 m + 1`` it is ``sum_k C(N, 2k) a^k / sum_k C(N, 2k+1) a^k``, whose terms
  are positive, and whose relative error is ``2 q^N`` with ``q = (1 - sqrt a)/(1 + sqrt a)``.

Derivatives solve the Lyapunov equation ``X D + D X = G`` by the sign iteration (ibid. eq. 15), as exact as the root is.
An item that is done is left alone, so that its result does not depend on its neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .matrices import identity_like, sym
from .operators import Operand, define
from .self_adjoint import SelfAdjointMap
from .series import safe_norm
from .spectral import symmetric_function
from .spectral_functions import INVERSE_SQRT, SEMIDEFINITE_SQRT
from .tracing import transforms_or_forward_mode, variation

# What rounding may have left below zero, in eps of the norm.
VANISHING = SEMIDEFINITE_SQRT.vanishing
_LIFT = 4.0  # in eps of the mean eigenvalue; 16 show in float32 at condition 1e6
# Rounds that reach an eigenvalue of 1e-8 (float64: 1e-16), which grows by 9/4 in each, and those to end.
_ROUNDS = {torch.float32: 28, torch.float64: 52}
# The largest eigenvalue that each takes. Iterations converge below 3, the series below 2; of the quotient 4 bounds the
# condition of its denominator to 4e3.
_MOST = {"newton_schulz": 1.5, "taylor": 1.5, "pade": 4.0}
_DEGREES = {"newton_schulz": 0, "taylor": 10, "pade": 5}
MAX_DEGREE = {"taylor": 1000, "pade": 8}  # the denominator of the quotient has a condition number of 4^degree
ITERATIVE = tuple(_DEGREES)


def semidefinite_root(A: Tensor) -> Tensor:
    """A^(1/2) from the eigendecomposition, in which negative eigenvalues within rounding of zero are zero.

    The derivative in directions within the null space, where it would be infinite, is zero, and null is an eigenvalue
    that rounding explains, above zero too.
    """
    norm = safe_norm(A.detach(), (-2, -1), keepdim=True)
    # A power of two rounds nothing: small eigenvalues of ill-conditioned matrices feel the rounding of entries.
    scale = torch.exp2(torch.where(norm == 0, 1.0, norm).log2().floor())
    return symmetric_function(A / scale, SEMIDEFINITE_SQRT) * scale.sqrt()


def iterative_root(A: Tensor, inverse: bool, method: str, degree: int | None) -> Tensor:
    """A^(1/2) or A^(-1/2) by one of `ITERATIVE`. ``*B,n,n -> *B,n,n``."""
    A = sym(A)
    option = "inverse_sqrt" if inverse else "sqrt"
    parts = _roots_operator(A.detach(), option, method, _DEGREES[method] if degree is None else degree)
    if torch.compiler.is_compiling() and transforms_or_forward_mode():
        exact = _exact(A, option)
        return parts[1] + variation(exact)
    return _root(A, option, *parts)


def _scale(A: Tensor, most: float) -> Tensor:
    """What brings the mean eigenvalue to one and none above `most`. ``*B,n,n -> *B,1,1``."""
    mean = A.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    return torch.maximum(mean, safe_norm(A, (-2, -1), keepdim=True) / most)


def _exact(A: Tensor, option: str) -> Tensor:
    return semidefinite_root(A) if option == "sqrt" else symmetric_function(A, INVERSE_SQRT)


# ---- values -------------------------------------------------------------------------------------------------------


def _roots(A: Tensor, option: str, method: str, degree: int) -> tuple[Tensor, Tensor]:
    """The root X, of which derivatives are made, and the result: X again, or its inverse. NaN for a matrix that is not
    positive definite, or semidefinite where the root is asked for."""
    norm = _scale(A, _MOST[method])
    inverse, A = option == "inverse_sqrt", A / torch.where(norm == 0, 1.0, norm)
    identity = identity_like(A)
    least = 0.0 if inverse else VANISHING * torch.finfo(A.dtype).eps
    failed = torch.linalg.cholesky_ex(A + least * identity)[1] != 0
    root, result = _VALUES[method](A, identity, degree, inverse)
    scale = torch.where(failed[..., None, None], torch.nan, norm).sqrt()
    return sym(root) * scale, sym(result) / scale if inverse else sym(root) * scale


class _Progress:
    """Which items of an iteration are done, by the norms of their residuals: at the step after one below sqrt(eps), or
    where rounding keeps it from falling. One that grows before is of a matrix that is singular."""

    def __init__(self, identity: Tensor) -> None:
        self.identity = identity
        self.last = identity.new_full((), torch.inf)
        self.done = torch.zeros((), dtype=torch.bool, device=identity.device)
        self.ends = self.done

    def step(self, product: Tensor) -> Tensor:
        """(3 I - P)/2 of the product that goes to the identity; the identity for items that are done."""
        residual = torch.linalg.matrix_norm(self.identity - product, keepdim=True)
        self.done = self.ends | ~(residual < 1.01 * self.last)  # in this sense NaN is done
        small = residual < torch.finfo(product.dtype).eps ** 0.5
        self.ends = self.done | small | ((self.last < 0.25) & (residual > 0.5 * self.last))
        self.last = residual
        return torch.where(self.done, self.identity, 1.5 * self.identity - 0.5 * product)


def _newton_schulz(A: Tensor, identity: Tensor, _degree: int, inverse: bool) -> tuple[Tensor, Tensor]:
    # An eigenvalue that rounding left below zero has no root, and the iteration wanders. So all are lifted by as much,
    # and of the root is taken what that adds to first order.
    lift = 0.0 if inverse else _LIFT * torch.finfo(A.dtype).eps
    y, z, progress = A + lift * identity, identity.expand_as(A), _Progress(identity)
    for _ in range(_ROUNDS[A.dtype]):
        t = progress.step(z @ y)
        y, z = y @ t, t @ z
        if progress.ends.all():
            break
    return y if inverse else y - 0.5 * lift * z, z


def _taylor(A: Tensor, identity: Tensor, degree: int, inverse: bool) -> tuple[Tensor, Tensor]:
    power = -0.5 if inverse else 0.5
    series = [math.prod((k - power) / (k + 1) for k in range(j)) for j in range(degree + 1)]
    result = _polynomial(series, identity - A, identity)
    return A @ result if inverse else result, result


def _pade(A: Tensor, identity: Tensor, degree: int, inverse: bool) -> tuple[Tensor, Tensor]:
    odd = 2 * degree + 1
    even_terms, odd_terms = (
        _polynomial([math.comb(odd, k) / 2**odd for k in range(first, odd + 1, 2)], A, identity) for first in (0, 1)
    )
    root = _quotient(even_terms, odd_terms)
    return root, _quotient(odd_terms, even_terms) if inverse else root


def _polynomial(coefficients: list[float], z: Tensor, identity: Tensor) -> Tensor:
    value = coefficients[-1] * identity.expand_as(z)
    for c in reversed(coefficients[:-1]):
        value = value @ z + c * identity
    return value


def _quotient(numerator: Tensor, denominator: Tensor) -> Tensor:
    return torch.cholesky_solve(numerator, torch.linalg.cholesky_ex(denominator)[0])


_VALUES: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "newton_schulz": _newton_schulz,
    "taylor": _taylor,
    "pade": _pade,
}

_roots_operator = define(
    "matrix_roots",
    _roots,
    (Operand("matrices", 2),),
    lambda A, *_: (A.new_empty(A.shape), A.new_empty(A.shape)),
    numbers={"option": str, "method": str, "degree": int},
    count=2,
)


# ---- derivatives --------------------------------------------------------------------------------------------------


def _lyapunov(root: Tensor, c: Tensor) -> Tensor:
    """The solution of ``X D + D X = C`` for symmetric C: [[X, C], [0, -X]] has the sign [[I, 2 D], [0, -I]]."""
    norm = _scale(root, _MOST["newton_schulz"])
    norm = torch.where(norm == 0, 1.0, norm)
    b, progress = root / norm, _Progress(identity_like(root))
    for _ in range(_ROUNDS[root.dtype]):
        t = progress.step(b @ b)
        half = t @ c
        moved = half + half.mT - 1.5 * c + 0.5 * (b @ c @ b)
        b, c = b @ t, torch.where(progress.done, c, sym(moved))
        if progress.ends.all():
            break
    return 0.5 * c / norm


_lyapunov_operator = define(
    "lyapunov_iteration", _lyapunov, (Operand("root", 2), Operand("c", 2)), lambda root, c: c.new_empty(c.shape)
)


def _value(root: Tensor, result: Tensor, option: str) -> Tensor:
    return result.clone()


def _first(g: Tensor, root: Tensor, result: Tensor, option: str) -> Tensor:
    """D X[G] solves ``X D + D X = G``; D Z[G] = -Z D X[G] Z, the same equation for -Z G Z."""
    g = sym(g)
    return _lyapunov_operator(root, g if option == "sqrt" else -sym(result @ g @ result))


def _second(g: Tensor, h: Tensor, root: Tensor, result: Tensor, option: str) -> Tensor:
    """The equations differentiated: ``X D + D X = -2 sym(DX[G] DX[H])``, and of Z the like."""
    by_g, by_h = (_first(direction, root, result, option) for direction in (g, h))
    if option == "sqrt":
        return -_lyapunov_operator(root, 2 * sym(by_g @ by_h))
    # Z D + D Z = 2 sym(Z^2 G Z^2 H Z^2 - DZ[G] DZ[H]) between two factors X.
    z, square = result, result @ result
    crossed = z @ sym(g) @ square @ sym(h) @ z - root @ by_g @ by_h @ root
    return _lyapunov_operator(root, 2 * sym(crossed))


_root = SelfAdjointMap(
    "matrix_root",
    (2, 2),
    _value,
    _first,
    _second,
    _exact,
    "matrix roots have first and second derivatives, not third ones",
)
