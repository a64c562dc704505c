r"""Parallel transport along geodesics of kernel metrics of symmetric matrices.

With the frame L of `kernel_metric` a parallel vector is ``V = L z`` with ``z' = S z``. With ``U = L^-T z`` and X' = W,

    S = N - N^T,    N z = 1/2 (L^-1 DC[L z] Y + DL^T[W] U),

where DC[E] is the derivative of the cometric in X along E. S is skew, so that Gauss's method, which keeps quadratic
invariants, keeps lengths: of positive definite matrices to 1e-14 at a condition of 30, and at 1e4 to 3e-12, measured
at the ends as numbers.

Derivatives are those of the numerical solution, by Newton's corrections of the equations at the nodes, with which
second ones are right; a third one is wrong.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .kernel_cometric import Cometric
from .kernel_flow import JET_SIZES, STATES, centers, flat, sizes, unscaled
from .kernel_jets import Jet, coordinates, jet_along, matrices, shapes, symplectic
from .kernel_map import exponentials, hamiltonian_gradient, lowered, raised, raised_along
from .kernel_metric import from_frame, to_frame
from .kernel_steps import MATRIX, STAGES, WEIGHTS, Path, follow
from .kernel_tables import kernel_differences, kernel_values
from .kernel_tangents import Expansion, energy, solved_along, tangents
from .matrices import identity_like, scaled_parts, sym, symmetric_from_vector, symmetric_vector
from .operators import Operand, define
from .tracing import derivative_wanted_of_items, variation

_CORRECTIONS = 3


def transport(X: Tensor, W: Tensor, V: Tensor, c: Cometric) -> tuple[Tensor, Tensor]:
    """The end of the geodesic of `kernel_flow.flow`, and V transported along it. ``*B,n,n``, of one batch."""
    dtype, c = X.dtype, unscaled(c)
    X, W, V = sym(X.double()), sym(W.double()), sym(V.double())
    center = centers(X)
    X = X - center
    start, z = torch.stack([X, lowered(X, W, c)], -3), to_frame(X, V, c)
    if any(map(derivative_wanted_of_items, (X, W, V))):
        parts = _jet_operator(start.detach(), c.key, *sizes(c))
        end, z = Carried(Jet(*parts[:_JET]), *parts[_JET:]).moved(coordinates(variation(start)), z, c)
    else:
        end, z = _operator(start.detach(), z.detach(), c.key)
    end = end[..., 0, :, :]
    return (end + center).to(dtype), from_frame(end, z, c).to(dtype)


# ---- the equation ---------------------------------------------------------------------------------------------


def turned(Z: Tensor, z: Tensor, c: Cometric) -> Tensor:
    """S z at states ``*B,2,n,n``, with derivatives. ``*B,n,n``."""
    X, Y = Z.unbind(-3)
    root, inner = c.to_power(0.5), _spherical(c, X.shape[-1])
    W, E = raised(X, Y, c), from_frame(X, z, c)
    U = raised(X, scaled_parts(z, 1.0, 1 / inner), c.to_power(-0.5))
    of_vector = raised_along(X, E, Y, c) - raised_along(X, W, scaled_parts(z, 1.0, inner), root)
    of_covector = 0.5 * raised_along(X, W, U, root) - raised(X, hamiltonian_gradient(X, Y, c, U), root)
    return 0.5 * to_frame(X, of_vector, c) + scaled_parts(of_covector, 1.0, inner)


def _spherical(c: Cometric, n: int) -> float:
    return (1 + n * c.trace) ** -0.5


class Turning(NamedTuple):
    """S at nodes, in eigenvectors Q of X: the frame and its inverse without their trace, ``*B,n,n``, and ``*B,n,n,n``
    tables with ``1/2 (DC[E] Y)'_ij = sum_k F_ikj E'_ik`` and ``1/2 (D(c^(1/2))[W] U)'_ij = sum_k G_ikj U'_kj``, of
    which the symmetric parts are meant. A trace adds ``<M, E'> diag(w)`` to the former."""

    Q: Tensor
    frame: Tensor
    inverse: Tensor
    F: Tensor
    G: Tensor
    M: Tensor
    w: Tensor

    def apply(self, z: Tensor, spherical: float) -> Tensor:
        """S z, of several z at each node. ``*B,l,n,n``."""
        Q, frame, inverse = (a.unsqueeze(-3) for a in self[:3])
        z = Q.mT @ z @ Q
        narrow, wide = scaled_parts(z, 1.0, spherical), scaled_parts(z, 1.0, 1 / spherical)
        E, U, F, G = frame * narrow, inverse * wide, self.F, self.G.movedim(-1, -3)
        by_E, by_U = (E.movedim(-3, -2) @ F).movedim(-2, -3), (U.movedim(-1, -3) @ G.mT).movedim(-3, -1)
        from_E, from_U = (U.movedim(-3, -2) @ F.mT).movedim(-2, -3), (narrow.movedim(-1, -3) @ G).movedim(-3, -1)
        M, w = self.M.unsqueeze(-3), torch.diag_embed(self.w).unsqueeze(-3)
        by_E = by_E + (M * E).sum((-2, -1), keepdim=True) * w
        from_E = from_E + (w * U).sum((-2, -1), keepdim=True) * M
        outer = scaled_parts(inverse * sym(by_E - from_U), 1.0, 1 / spherical)
        inner = scaled_parts(sym(by_U) - frame * sym(from_E), 1.0, spherical)
        return Q @ (outer + inner) @ Q.mT


def turning(Z: Tensor, c: Cometric) -> Turning:
    """At states without derivative. ``*B,2,n,n``."""
    X, Y = Z.unbind(-3)
    x, Q = eigh_of_plain(X)
    Y, root = Q.mT @ Y @ Q, c.to_power(0.5)
    W, F = kernel_values(x, c) * Y, kernel_differences(x, c) * Y.unsqueeze(-3)
    M, w = torch.zeros_like(Y), torch.zeros_like(x)
    if c.trace:
        weights, slopes = exponentials(x, c)
        factor = c.trace_factor(x.shape[-1])
        total = factor * (weights * Y.diagonal(dim1=-2, dim2=-1)).sum(-1)[..., None, None]
        W = W + torch.diag_embed(total.squeeze(-1) * weights)
        F = F + 0.5 * identity_like(X).unsqueeze(-3) * (total * slopes).unsqueeze(-2)
        M, w = 0.5 * factor * slopes * Y, weights
    frame = kernel_values(x, root)
    return Turning(Q, frame, 1 / frame, F, kernel_differences(x, root) * W.unsqueeze(-1), M, w)


def _turning_along(path: Path, c: Cometric) -> Turning:
    """At all nodes, ``B,R,8,*``; zero at those of steps that were not taken."""
    taken = path.lengths > 0

    def filled(a: Tensor) -> Tensor:
        whole = a.new_zeros((*taken.shape, *a.shape[1:]))
        whole[taken] = a
        return whole

    return Turning(*map(filled, turning(path.states[taken], c)))


# ---- derivatives ----------------------------------------------------------------------------------------------


class Carried(NamedTuple):
    """Of geodesics ``*B`` the jet, the lengths of the steps, the derivative of the field at the nodes and S there, the
    transport until each node and until the end, as matrices in coordinates."""

    jet: Jet
    lengths: Tensor
    generator: Tensor
    skew: Tensor
    nodes: Tensor
    end: Tensor

    def moved(self, v: Tensor, z: Tensor, c: Cometric) -> tuple[Tensor, Tensor]:
        """The end of the geodesic from the start moved by v, a `variation`, and z at it. ``*B,2,n,n; *B,n,n``."""
        at, z = self.jet, symmetric_vector(z)
        states = at.states + matrices(self._displaced(v, c))

        def change(z: Tensor) -> Tensor:
            Z = symmetric_from_vector(z)
            return variation(symmetric_vector(turned(states, Z, c) - turned(at.states, Z, c)))

        carried = _applied(self.nodes, z.unsqueeze(-2))
        carried = carried + self._response(change(carried), self.skew, self.nodes, self.nodes.mT)
        pulled = _applied(self.nodes.mT, change(carried))
        z = _applied(self.end, z + (at.weights.unsqueeze(-1) * pulled).sum(-2))
        return matrices(at.moved(v, c)), symmetric_from_vector(z)

    def _displaced(self, v: Tensor, c: Cometric) -> Tensor:
        """How far the states at the nodes move, to second order in v. ``*B,k,2m``."""
        at = self.jet
        e = Expansion(at.center, at.half, at.table, at.exponential)
        first = _applied(at.tangents, v.unsqueeze(-2))
        value, pull, *_ = torch.func.vjp(lambda d: energy(at.states + matrices(d), e, c), first)
        bent = variation(symplectic(pull(torch.ones_like(value))[0])) - _applied(self.generator, first)
        return first + self._response(bent, self.generator, at.tangents, _symplectic_inverse(at.tangents))

    def _response(self, force: Tensor, generator: Tensor, nodes: Tensor, inverse: Tensor) -> Tensor:
        """At the nodes the solution of ``w' = A w + force`` from zero, by the method of the steps.

        Variation of constants with what solves ``V' = A V`` is not quite that: it leaves 1e-4 of it, and as much of
        the rest when it is corrected by the defect.
        """
        found = _applied(nodes, self._summed(_applied(inverse, force)))
        for _ in range(_CORRECTIONS):
            defect = self._summed(_applied(generator, found) + force) - found
            found = found + defect + _applied(nodes, self._summed(_applied(inverse, _applied(generator, defect))))
        return found

    def _summed(self, slopes: Tensor) -> Tensor:
        """Their integrals until the nodes. ``*B,k,m``."""
        slopes, h = slopes.unflatten(-2, (-1, STAGES)), self.lengths[..., None, None]
        inner, whole = h * (MATRIX.to(h.device) @ slopes), h * (WEIGHTS.to(h.device) @ slopes).unsqueeze(-2)
        return (inner + whole.cumsum(-3) - whole).flatten(-3, -2)


def _applied(matrix: Tensor, vector: Tensor) -> Tensor:
    return (matrix @ vector.unsqueeze(-1)).squeeze(-1)


def _symplectic_inverse(J: Tensor) -> Tensor:
    """-O J^T O."""
    (a, b), (c, d) = (block.chunk(2, -1) for block in J.chunk(2, -2))
    return torch.cat([torch.cat([d.mT, -b.mT], -1), torch.cat([-c.mT, a.mT], -1)], -2)


# ---- operators ------------------------------------------------------------------------------------------------


def _carry(start: Tensor, z: Tensor, key: str) -> tuple[Tensor, ...]:
    c = Cometric.named(key)
    path, spherical = follow(start, c), _spherical(c, z.shape[-1])
    at = _turning_along(path, c)

    def slopes(r: int, z: Tensor) -> Tensor:
        return Turning(*(a[:, r] for a in at)).apply(z.unsqueeze(-3), spherical).squeeze(-3)

    end = solved_along(path, slopes, z)[1]
    followed = path.end.flatten(1).isfinite().all(1)
    return path.end, torch.where(followed[:, None, None], end, torch.nan)


def _carry_jet(start: Tensor, key: str, steps: int, degree: int) -> tuple[Tensor, ...]:
    c = Cometric.named(key)
    at, path, generator = jet_along(follow(start, c), c, steps, degree)
    m = generator.shape[-1] // 2
    basis = symmetric_from_vector(torch.eye(m, dtype=start.dtype, device=start.device))
    skew = _turning_along(path, c).apply(basis, _spherical(c, start.shape[-1]))
    skew = symmetric_vector(skew).mT
    identity = torch.eye(m, dtype=start.dtype, device=start.device).expand(len(start), -1, -1)
    nodes, end = tangents(path, skew, identity)
    end = torch.where(at.tangent[:, :1, :1].isfinite(), end, torch.nan)
    return *at, path.lengths, generator, skew.flatten(1, 2), nodes.flatten(1, 2), end


def _carried_shapes(start: Tensor, key: str, steps: int, degree: int) -> tuple[Tensor, ...]:
    at = shapes(start, steps, degree)
    m = at.tangent.shape[-1] // 2
    batch, k = start.shape[:-3], at.weights.shape[-1]
    others = ((steps,), (k, 2 * m, 2 * m), (k, m, m), (k, m, m), (m, m))
    return *at, *(start.new_empty((*batch, *size)) for size in others)


_JET = len(Jet._fields)
_operator = define(
    "kernel_transport",
    flat(_carry, 3),
    (*STATES, Operand("z", 2)),
    lambda start, z, key: (start.new_empty(start.shape), z.new_empty(z.shape)),
    numbers={"kernel": str},
    count=2,
)
_jet_operator = define(
    "kernel_transport_jet",
    flat(_carry_jet, 3),
    STATES,
    _carried_shapes,
    numbers=JET_SIZES,
    count=_JET + len(Carried._fields) - 1,
)
