r"""Parallel transport along the geodesics of the Bures-Wasserstein metric.

``P = G G^T`` makes the metric that of the quotient of all invertible G, with the Frobenius product, by rotations from
the right (Bhatia, Jain and Lim, arXiv:1712.01504): the geodesic ``(I + tS) P (I + tS)`` lifts to the straight line
``G(t) = (I + tS) L``, and a tangent vector V to the horizontal ``Y = S_V G``, ``V = Y G^T + G Y^T``, of equal length.
Transport keeps Y horizontal and moves it in vertical directions only. With the projection on horizontal matrices as
``H(t)``, it is ``Y' = [H', H] Y`` (Kato), whose generator is skew on all matrices and comes to

    K Y = G' W(G^T Y - Y^T G) - G W(G'^T Y - Y^T G'),      W(M) the solution of  G^T G W + W G^T G = M.

No closed form is known but for commuting P and S, where Y turns no way. K is integrated by Gauss's method with
8 nodes (order 16) on each of two intervals, which keeps the lengths of all solutions: the transport is isometric to the
accuracy to which its linear equations are solved, whatever its own error is. The equations are solved by fixed-point
sweeps; K is integrable in closed bounds, so that these converge like those of an initial value problem.

Time. ``I + tS`` is singular somewhere before 0 and behind 1, the nearer the farther apart the eigenvalues of T = I + S
are. In the logarithm of the ratio of its extreme eigenvalues the singularities are as far from the way as they can be:
``t = q/(m (1 - q) + q)``, ``q = ((M/m)^z - 1)/(M/m - 1)`` for z from 0 to 1.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .bures_wasserstein import (
    identity_plus,
    lyapunov,
    lyapunov_in_frame,
    sylvester_frame,
)
from .cholesky import cholesky
from .decompositions import eigh
from .matrices import sym
from .operators import Operand, define
from .tracing import derivative_wanted, variation
from .triangular import lower_inverse

INTERVALS, STAGES = 2, 8
# By dtype: in float64 to 1e-12 for endpoints of condition 1e4, and to rounding for 1e2.
SWEEPS = {torch.float32: 9, torch.float64: 14}
_ORDERS = 2  # of derivatives that are right


def _gauss() -> tuple[list, list, list]:
    """Nodes, weights and the matrix of Gauss's method on [0, 1], by Legendre polynomials."""
    x, w = np.polynomial.legendre.leggauss(STAGES)
    values = np.polynomial.legendre.legvander(x, STAGES)
    below = np.concatenate([-np.ones((STAGES, 1)), values[:, :-2]], 1)
    integrals = (values[:, 1:] - below) / (2 * np.arange(STAGES) + 1)  # of P_k, from -1 to the nodes
    integrals[:, 0] = x + 1
    matrix = integrals @ ((np.arange(STAGES) + 0.5)[:, None] * values[:, :-1].T * w)
    return ((x + 1) / 2).tolist(), (w / 2).tolist(), (matrix / 2).tolist()


_NODES, _WEIGHTS, _MATRIX = _gauss()  # constants of graphs


def _times(s: Tensor) -> tuple[Tensor, Tensor]:
    """The times of all nodes, and their derivatives in z. ``*B,n,n -> *B,m``, no derivative."""
    values = eigh(identity_plus(s), positive=True)[0]
    low, high = values[..., :1], values[..., -1:]
    ratio = (high / low).log()
    nodes = [(k + node) / INTERVALS for k in range(INTERVALS) for node in _NODES]
    z = torch.tensor(nodes, dtype=s.dtype, device=s.device)
    same = ratio == 0
    width = torch.where(same, 1.0, ratio)
    q = torch.where(same, z, torch.expm1(z * width) / torch.expm1(width))
    speed = torch.where(same, 1.0, width * torch.exp(z * width) / torch.expm1(width))
    below = low * (1 - q) + q
    return q / below, speed * low / below.square()


class _Path(NamedTuple):
    """G and G' at all nodes, ``*B,m,n,n``, and the frame of G^T G."""

    g: Tensor
    velocity: Tensor
    frame: Tensor
    sums: Tensor


class _Generator(NamedTuple):
    """K at some nodes, constants: with F the frame, [G F, G' F]^T, [G' F, -G F], F and 1/(sums of eigenvalues)."""

    left: Tensor
    right: Tensor
    frame: Tensor
    weights: Tensor

    @classmethod
    def of(cls, path: _Path) -> _Generator:
        g, velocity = path.g.detach() @ path.frame, path.velocity.detach() @ path.frame
        left, right = torch.cat([g, velocity], -1).mT, torch.cat([velocity, -g], -1)
        return cls(left, right, path.frame, path.sums.reciprocal().unsqueeze(-3))

    def on(self, interval: int) -> _Generator:
        """That of the nodes of one interval."""
        first = interval * STAGES
        parts = [part.narrow(-3, first, STAGES) for part in (self.left, self.right, self.frame)]
        weights = self.weights.narrow(-4, first, STAGES)
        return _Generator(*(part.contiguous() for part in (*parts, weights)))  # products would copy them every time

    def reversed(self) -> _Generator:
        """That of the way back."""
        return _Generator(self.left.flip(-3), -self.right.flip(-3), self.frame.flip(-3), self.weights.flip(-4))

    def __call__(self, y: Tensor) -> Tensor:
        m = (self.left @ (y @ self.frame)).unflatten(-2, (2, -1))
        w = (m - m.mT) * self.weights
        return self.right @ w.flatten(-3, -2) @ self.frame.mT


def _generated(path: _Path, y: Tensor) -> Tensor:
    """K Y with derivatives in the path."""
    gram = sym(path.g.mT @ path.g)

    def turn(by: Tensor) -> Tensor:
        m = by.mT @ y
        return lyapunov_in_frame(gram, m - m.mT, path.frame, path.sums)

    return path.velocity @ turn(path.g) - path.g @ turn(path.velocity)


def _integrated(y: Tensor, generator: _Generator, change: Tensor | None) -> tuple[Tensor, Tensor]:
    """The stages ``*B,m,n,n`` and the end of ``Y' = K Y + change``, by Gauss's method. Linear in Y and the change."""
    weights, matrix = (torch.tensor(a, dtype=y.dtype, device=y.device) / INTERVALS for a in (_WEIGHTS, _MATRIX))
    y, stages, n = y.unsqueeze(-3), [], y.shape[-1]

    def combined(rows: Tensor, slopes: Tensor) -> Tensor:
        return (rows @ slopes.flatten(-2)).unflatten(-1, (n, n))

    for interval in range(INTERVALS):
        at = generator.on(interval)
        added = 0.0 if change is None else change.narrow(-3, interval * STAGES, STAGES)
        stage = y
        for _ in range(SWEEPS[y.dtype]):
            stage = y + combined(matrix, at(stage) + added)
        y = y + combined(weights.unsqueeze(0), at(stage) + added)
        stages.append(stage)
    return torch.cat(stages, -3), y.squeeze(-3)


def _root(p: Tensor) -> Tensor:
    """Some G with ``G G^T = P``; which one is no matter."""
    root = cholesky(p.detach())
    if derivative_wanted(p):
        half = 0.5 * lower_inverse(root).mT
        for _ in range(_ORDERS):
            root = root + variation(p - root @ root.mT) @ half
    return root


def bures_transport(p: Tensor, s: Tensor, v: Tensor) -> Tensor:
    """V, tangent at P, transported along the geodesic to ``(I + S) P (I + S)``. ``*B,n,n``.

    Linear in V, and isometric to 1e-11 for endpoints of condition 1e4. First and second derivatives. NaN where I + S is
    not positive definite. An eigendecomposition and some 90 products of matrices a node, of which there are 16.
    """
    if torch.compiler.is_compiling() and not any(map(derivative_wanted, (p, s, v))):
        return _transport_operator(p, s, v)  # one node instead of hundreds
    return _transported(p, s, v)


def _transported(p: Tensor, s: Tensor, v: Tensor) -> Tensor:
    return bures_transport_saving(p, s, v)[0]


def bures_transport_saving(p: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`bures_transport`, and the lifted vector at all nodes and at the end."""
    p, s = sym(p), sym(s)
    time, speed = _times(s)
    lifted, last, g, velocity = _lifted(p, s, v, time, speed)
    path = _Path(g, velocity, *sylvester_frame(sym(g.mT @ g)))
    generator = _Generator.of(path)
    stages, end = _integrated(lifted, generator, None)
    for _ in range(_ORDERS if derivative_wanted(p) or derivative_wanted(s) else 0):
        change = variation(_generated(path, stages) - generator(stages))
        stages, end = _integrated(lifted, generator, change)
    return 2 * sym(end @ last.mT), stages, end


def _lifted(p: Tensor, s: Tensor, v: Tensor, time: Tensor, speed: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The lifted vector at the start, G at the end, and G and G' at the nodes."""
    root = _root(p)
    turned = s @ root
    time, speed = (t[..., None, None] for t in (time, speed))
    g = root.unsqueeze(-3) + time * turned.unsqueeze(-3)
    return lyapunov(p, sym(v)) @ root, root + turned, g, speed * turned.unsqueeze(-3)


def bures_transport_backward(
    grad: Tensor, p: Tensor, s: Tensor, v: Tensor, stages: Tensor, end: Tensor
) -> tuple[Tensor, ...]:
    """By the adjoint of Gauss's method, which is itself with the nodes in reverse order and -K, and so goes back from
    the end: ``sum b_j <Z_j, dK_j Y_j>`` of the adjoint stages Z and the stages Y, and Z_0 in the lifted vector."""
    p, s, grad = sym(p), sym(s), 2 * sym(grad)
    time, speed = _times(s)
    _, last, g, velocity = _lifted(p, s, v, time, speed)
    frame = sylvester_frame(sym(g.mT @ g))
    back = _Generator.of(_Path(g, velocity, *frame)).reversed()
    adjoint, start = _integrated(grad @ last, back, None)
    weights = torch.tensor(_WEIGHTS, dtype=p.dtype, device=p.device).repeat(INTERVALS)[:, None, None] / INTERVALS

    def pieces(p: Tensor, s: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        lifted, last, g, velocity = _lifted(p, s, v, time, speed)
        return lifted, last, _generated(_Path(g, velocity, *frame), stages)

    pull_back = torch.func.vjp(pieces, p, s, v)[1]
    gp, gs, gv = pull_back((start, grad @ end, weights * adjoint.flip(-3)))
    return sym(gp), sym(gs), sym(gv)


_transport_operator = define(
    "bures_wasserstein_transport",
    _transported,
    (Operand("points", 2), Operand("displacements", 2), Operand("vectors", 2)),
    lambda p, s, v: v.new_empty(torch.broadcast_shapes(p.shape, s.shape, v.shape)),
)
