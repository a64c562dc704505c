r"""The logarithm of the Stiefel manifold for every metric of the one-parameter family.

Forward. The problem is reduced to m x m blocks, m = p + min(p, n - p), in an orthonormal basis [x, Q] that holds y.
For beta = 1/2 it is a matrix completion: find the rotation V with first columns [x, Q]^T y whose logarithm has a zero
lower block (Zimmermann, arXiv:1604.05054). For other beta Newton's method follows the solution from 1/2 to beta.
The iteration is one operator to the compiler and to functorch, so it may look at its residuals and stop.

Derivatives. The solved equation ``exp_x(u) = y`` is differentiated, not the iteration: two Newton steps with the
constant inverse of d exp_x at the solution. One step is right to first order, the second to second order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .frames import block, identity_like, matrix_exp, newton_schulz_step, so_log
from .matrices import skew, sym
from .operators import Operand, define
from .series import sinc_sqrt
from .stiefel_geodesic import geodesic_end, norm_bound, skew_adjoint_exp
from .tracing import derivative_wanted


def logarithm(x: Tensor, y: Tensor, beta: float) -> Tensor:
    """The shortest u with exp_x(u) = y; see `Stiefel.logmap`. ``*B,n,p``."""
    x, y = torch.broadcast_tensors(x, y)
    frame, a, b = solve(x.detach(), y.detach(), beta)
    u = frame @ torch.cat([a, b], -2)
    if not derivative_wanted(x) and not derivative_wanted(y):
        return u
    # LAPACK raises on NaN; u itself keeps it.
    inverse = _DexpInverse(frame, a.nan_to_num(nan=0.0), b.nan_to_num(nan=0.0), beta)
    for _ in range(2):
        correction = inverse(y - geodesic_end(x, u, beta))
        # Value zero: next to a conjugate point the inverse enlarges rounding errors.
        moved = u + (correction - correction.detach())
        projected = moved - x @ sym(x.mT @ moved)
        u = u.detach() + (projected - projected.detach())
    return u


def _solve(x: Tensor, y: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    """An orthonormal [x, Q], the skew A and B with log = x A + Q B; NaN where no iteration converged."""
    n, p = x.shape[-2:]
    batch, q = x.shape[:-2], min(p, n - p)
    x, y = x.reshape(-1, n, p), y.reshape(-1, n, p)
    # LAPACK raises on NaN, for the whole batch.
    finite = (x.isfinite() & y.isfinite()).all(-1).all(-1)[:, None, None]
    x, y = (torch.where(finite, z, torch.eye(n, p, dtype=x.dtype, device=x.device)) for z in (x, y))
    # Points rounded to half precision are off by 1e-2, where no residual would vanish; two steps leave 1e-9.
    x, y = (newton_schulz_step(newton_schulz_step(z)) for z in (x, y))
    overlap = x.mT @ y
    if p == n:
        frame, b = x.clone(), overlap[..., :0, :].clone()
        a = so_log(overlap)
        # At an angle of pi `so_log` is no logarithm, and between the components there is none.
        off = (matrix_exp(a) - overlap).abs().amax((-2, -1), keepdim=True)
        a = torch.where(off < 10 * torch.finfo(a.dtype).eps ** 0.5, a, torch.nan)
    else:
        # Householder QR of both at once: its later columns are normal to x whatever the rank of y - x M.
        frame = torch.cat([x, torch.linalg.qr(torch.cat([x, y - x @ overlap], -1))[0][..., p : p + q]], -1)
        target = torch.cat([overlap, frame[..., p:].mT @ y], -2)
        a, b = _follow(*_canonical(target), target, beta)
    a = torch.where(finite, a, torch.nan)
    shapes = ((n, p + q), (p, p), (q, p))
    return tuple(z.reshape(*batch, *s) for z, s in zip((frame, a, b), shapes, strict=True))  # type: ignore


def _empty(x: Tensor, y: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor]:
    n, p = x.shape[-2:]
    batch, q = x.shape[:-2], min(p, n - p)
    return x.new_empty(*batch, n, p + q), x.new_empty(*batch, p, p), x.new_empty(*batch, q, p)


solve = define("stiefel_log", _solve, (Operand("x", 2), Operand("y", 2)), _empty, numbers={"beta": float}, count=3)


# ---- beta = 1/2: matrix completion ----------------------------------------------------------------------------

# Each step halves the error at 0.97 of the injectivity radius, gains two digits at 0.5; Newton's method takes over.
_COMPLETION_STEPS = 40


def _completion(target: Tensor) -> Tensor:
    """The rotation with first columns `target` whose lower right block is as near as can be to positive."""
    p = target.shape[-1]
    q = torch.linalg.qr(target, mode="complete")[0][..., p:]
    left, _, right = torch.linalg.svd(q[..., p:, :])
    q = q @ (right.mT @ left.mT)
    # Special Procrustes: where the determinant is -1 flip the direction of the smallest singular value.
    sign = torch.linalg.det(torch.cat([target, q], -1)).sign()[..., None, None]
    last = left[..., -1:]
    return torch.cat([target, q - (1 - sign) * ((q @ last) @ last.mT)], -1)


def _canonical(target: Tensor) -> tuple[Tensor, Tensor]:
    """(A, B) of the canonical logarithm: rotate the completion until the lower block of its logarithm is zero.

    A step solves S G + G S = C, S = B B^T/12 - I/2, the second-order expansion of the exact Newton equation
    (arXiv:2103.12046, section 5), and rotates by the Cayley transform of G.
    """
    p = target.shape[-1]
    v = _completion(target)
    tolerance = 8 * torch.finfo(v.dtype).eps
    log = so_log(v)
    for _ in range(_COMPLETION_STEPS):
        b, c = log[..., p:, :p], log[..., p:, p:]
        size = c.square().sum((-2, -1), keepdim=True).sqrt()
        done = size <= tolerance * (1 + b.square().sum((-2, -1), keepdim=True).sqrt())
        if bool(done.all()):
            break
        identity = identity_like(c)
        s, e = torch.linalg.eigh(b @ b.mT / 12 - 0.5 * identity)
        g = 0.5 * skew(e @ ((e.mT @ c @ e) / (s.unsqueeze(-1) + s.unsqueeze(-2))) @ e.mT)
        turned = v[..., p:] @ torch.linalg.solve_ex(identity - g, identity + g)[0]
        v = torch.cat([v[..., :p], torch.where(done, v[..., p:], turned)], -1)
        log = so_log(v)
    return log[..., :p, :p], log[..., p:, :p]


# ---- any beta: shooting, then Newton's method along a path of metrics --------------------------------------------

_SHOTS = 20
_NEWTON_STEPS = 24
_LONGEST_STEP = 0.7  # beyond the injectivity radius a full step often leads away
# Newton's method finds the solution at the next beta if its ratio to the last one is at most this.
_HOMOTOPY_RATIO = 1.5


def _follow(a: Tensor, b: Tensor, target: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """From the solution for beta = 1/2 to that for `beta`; NaN where the last residual is not small."""
    a, b = a.clone(), b.clone()
    missed = _shoot(a, b, target, beta)
    if len(missed) > 0:
        c, d, goal = a[missed], b[missed], target[missed]
        stages = math.ceil(abs(math.log(2 * beta)) / math.log(_HOMOTOPY_RATIO))
        for stage in range(1, stages):
            _newton(c, d, goal, 0.5 * (2 * beta) ** (stage / stages), 2)
        solved = _newton(c, d, goal, beta, _NEWTON_STEPS) < 100 * _tolerance(goal)
        a[missed], b[missed] = torch.where(solved[:, None, None], c, torch.nan), d
    return a, b


def _tolerance(target: Tensor) -> float:
    """The residual that rounding alone may leave."""
    return 16 * torch.finfo(target.dtype).eps * math.sqrt(target.shape[-2])


def _generator(a: Tensor, b: Tensor, beta: float) -> Tensor:
    corner = a.new_zeros((*a.shape[:-2], b.shape[-2], b.shape[-2]))
    return block([[2 * beta * a, -b.mT], [b, corner]])


def _shoot(a: Tensor, b: Tensor, target: Tensor, beta: float) -> Tensor:
    """Add the residual, transported back, while that halves it; in place. Returns the items it does not solve.

    The transport inverts d exp up to curvature, so that the error shrinks by |u|^2/6 or so a step (arXiv:2103.12046,
    section 4, there with projections for transports).
    """
    p = target.shape[-1]
    items = torch.arange(len(a), device=a.device)
    unsolved = torch.ones_like(items, dtype=torch.bool)
    c, d, last = a, b, a.new_full((len(a),), math.inf)
    for _ in range(_SHOTS):
        moved, turn = matrix_exp(_generator(c, d, beta)), matrix_exp((1 - 2 * beta) * c)
        residual = target[items] - moved[..., :p] @ turn
        size = residual.abs().amax((-2, -1))
        solved = size < _tolerance(target)
        a[items[solved]], b[items[solved]], unsolved[items[solved]] = c[solved], d[solved], False
        # Below the tolerance, too, go on as long as it pays.
        going = (size < 0.5 * last).nonzero().squeeze(-1)
        items, last, c, d = items[going], size[going], c[going], d[going]
        if len(items) == 0:
            break
        back = moved[going].mT @ residual[going] @ turn[going].mT
        e, f = _transport_back(skew(back[..., :p, :]), back[..., p:, :], c, d, beta)
        c, d = c + e, d + f
    return unsolved.nonzero().squeeze(-1)


def _transport_back(e: Tensor, f: Tensor, a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """exp(-L) of `geodesic_transport`, on blocks."""

    left = torch.cat([(4 * beta - 1) * a, -b.mT], -1)
    moved = skew_adjoint_exp(left, beta * b, -beta * a, torch.cat([e, f], -2), norm_bound(a, b, beta))
    return moved[..., : e.shape[-2], :], moved[..., e.shape[-2] :, :]


def _newton(a: Tensor, b: Tensor, target: Tensor, beta: float, steps: int) -> Tensor:
    """At most `steps` steps on the items that need them, in place. Returns the largest residual of each item."""
    m, p = target.shape[-2:]
    frame = identity_like(target @ target.mT)
    size = a.new_zeros(len(a))
    for step in range(steps + 1):
        residual = target - geodesic_end(frame[..., :p], torch.cat([a, b], -2), beta)
        size = residual.abs().amax((-2, -1))
        active = ((size > _tolerance(target)) & (size < math.inf)).nonzero().squeeze(-1)
        if step == steps or len(active) == 0:
            break
        delta = _DexpInverse(frame.expand(len(active), m, m), a[active], b[active], beta)(residual[active])
        length = delta.square().sum((-2, -1), keepdim=True).sqrt()
        delta = delta * (_LONGEST_STEP / length).clamp(max=1.0)
        a[active] += skew(delta[..., :p, :])
        b[active] += delta[..., p:, :]
    return size


# ---- the differential of exp ------------------------------------------------------------------------------------


def _skew_eigh(k: Tensor) -> tuple[Tensor, Tensor]:
    """Real w and unitary U with K = U diag(i w) U^H."""
    w, u = torch.linalg.eigh(torch.complex(torch.zeros_like(k), -k))
    return w, u


def _conjugate(u: Tensor) -> Tensor:
    """Not `conj`: views of a lazy conjugate lose it in an operator called by a fresh torch.compile (2.13)."""
    return torch.complex(u.real, -u.imag)


def _adjoint(u: Tensor) -> Tensor:
    return _conjugate(u.mT)


def _images(u: Tensor, factor: Tensor, first: Tensor, second: Tensor, columns: int) -> Tensor:
    """U (factor * U^H (e_c e_d^T - e_d e_c^T) U) U^H, its first `columns`, for all pairs (c, d).

    ``-> *B,pairs,m,columns``.
    """
    c, d = u[..., first, :], u[..., second, :]
    outer = _conjugate(c).unsqueeze(-1) * d.unsqueeze(-2)
    core = factor.unsqueeze(-3) * (outer - _adjoint(outer))
    # Two large products, not one of small matrices for each pair.
    right = core.flatten(-3, -2) @ _adjoint(u)[..., :columns]
    right = right.unflatten(-2, core.shape[-3:-1]).transpose(-3, -2)
    image = u @ right.flatten(-2)
    return image.real.unflatten(-1, right.shape[-2:]).transpose(-3, -2)


# Complex numbers in the largest intermediate of the dense system: more are slower and fill the memory.
_CHUNK = 2**21


def _dexp_inverse(a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """e^-W, e^-P, the inverse of the dense system and the map of normal directions of `_DexpInverse`.

    With exp_x(u) = e^W X e^P on the reduced problem, W = [[2 beta A, -B^T], [B, 0]] and P = (1 - 2 beta) A,

        e^-W d(e^W X e^P) e^-P = psi(ad W)[dW] X + X phi(ad P)[dP],  psi(z) = (1 - e^-z)/z,  phi(z) = (e^z - 1)/z,

    a dense system for the p(p-1)/2 entries of dA and the p min(p, n - p) of dB, set up in the eigenbases of W and P.
    Directions normal to [x, Q] separate: there d exp is right multiplication by a p x p matrix.
    """
    w, u = _skew_eigh(_generator(a, b, beta))
    angle, turn = _skew_eigh((1 - 2 * beta) * a)
    back = (u * torch.exp(-1j * w).unsqueeze(-2) @ _adjoint(u)).real
    turn_back = (turn * torch.exp(-1j * angle).unsqueeze(-2) @ _adjoint(turn)).real
    # int_0^1 e^(sW) ds, whose first block carries the normal directions.
    half = 0.5 * w
    mean = torch.exp(1j * half) * sinc_sqrt(half.square())
    first = u[..., : a.shape[-1], :]
    normal = turn_back @ torch.linalg.inv_ex((first * mean.unsqueeze(-2) @ _adjoint(first)).real)[0]
    return back, turn_back, _system_inverse(w, u, angle, turn, beta), normal


def _dexp_shapes(a: Tensor, b: Tensor, beta: float) -> tuple[Tensor, ...]:
    q, p = b.shape[-2:]
    sizes = (p + q, p, p * (p - 1) // 2 + p * q, p)
    back, turn_back, inverse, normal = (a.new_empty((*a.shape[:-2], m, m)) for m in sizes)
    return back, turn_back, inverse, normal


_inverse_operator = define(
    "stiefel_dexp_inverse",
    _dexp_inverse,
    [Operand("a", 2), Operand("b", 2)],
    _dexp_shapes,
    numbers={"beta": float},
    count=4,
)


def _system_inverse(w: Tensor, u: Tensor, angle: Tensor, turn: Tensor, beta: float) -> Tensor:
    """The inverse of the dense system, a part of the batch at a time."""
    batch, p, m = w.shape[:-1], angle.shape[-1], w.shape[-1]
    size = p * (p - 1) // 2 + p * (m - p)
    flat = (z.reshape(-1, *z.shape[len(batch) :]) for z in (w, u, angle, turn))
    parts = zip(*(z.split(max(1, _CHUNK // max(1, m * m * size))) for z in flat), strict=True)
    inverses = [torch.linalg.inv_ex(_system(w, u, angle, turn, beta))[0] for w, u, angle, turn in parts]
    return torch.cat(inverses).reshape(*batch, size, size)


def _system(w: Tensor, u: Tensor, angle: Tensor, turn: Tensor, beta: float) -> Tensor:
    """Row k holds the coordinates of the image of the k-th basis vector."""
    m, p = u.shape[-1], angle.shape[-1]
    rows, columns = torch.triu_indices(p, p, 1, device=w.device)
    k, grid = len(rows), torch.arange((m - p) * p, device=w.device)
    lower, left = p + torch.div(grid, p, rounding_mode="floor"), grid % p
    gap = 0.5 * (w.unsqueeze(-1) - w.unsqueeze(-2))
    psi = torch.exp(-1j * gap) * sinc_sqrt(gap.square())
    image = _images(u, psi, torch.cat([rows, lower]), torch.cat([columns, left]), p)
    matrix = _coordinates(torch.cat([2 * beta * image[..., :k, :, :], image[..., k:, :, :]], -3))
    if beta == 0.5 or k == 0:
        return matrix
    gap = 0.5 * (angle.unsqueeze(-1) - angle.unsqueeze(-2))
    phi = torch.exp(1j * gap) * sinc_sqrt(gap.square())
    extra = (1 - 2 * beta) * _images(turn, phi, rows, columns, p)[..., rows, columns]
    return torch.cat([torch.cat([matrix[..., :k, :k] + extra, matrix[..., :k, k:]], -1), matrix[..., k:, :]], -2)


def _coordinates(v: Tensor) -> Tensor:
    """The entries above the diagonal of the skew upper block, then those of the lower block. ``*B,m,p``."""
    p = v.shape[-1]
    rows, columns = torch.triu_indices(p, p, 1, device=v.device)
    return torch.cat([skew(v[..., :p, :])[..., rows, columns], v[..., p:, :].flatten(-2)], -1)


class _DexpInverse:
    """The inverse of d(exp_x)_u as a constant linear map from ambient vectors at exp_x(u) to tangent vectors at x."""

    def __init__(self, frame: Tensor, a: Tensor, b: Tensor, beta: float) -> None:
        self.frame, self.p = frame, a.shape[-1]
        self.rows, self.columns = torch.triu_indices(self.p, self.p, 1, device=a.device)
        self.back, self.turn_back, self.inverse, self.normal = _inverse_operator(a, b, beta)

    def __call__(self, r: Tensor) -> Tensor:
        p = self.p
        inside = self.frame.mT @ r
        z = (_coordinates(self.back @ inside @ self.turn_back).unsqueeze(-2) @ self.inverse).squeeze(-2)
        k = len(self.rows)
        flat = torch.zeros_like(inside[..., :p, :]).flatten(-2)
        upper = flat.index_copy(-1, self.rows * p + self.columns, z[..., :k]).unflatten(-1, (p, p))
        lower = z[..., k:].reshape(inside[..., p:, :].shape)
        u = self.frame @ torch.cat([upper - upper.mT, lower], -2)
        return u if self.frame.shape[-1] == r.shape[-2] else u + (r - self.frame @ inside) @ self.normal
