r"""Taylor polynomials of second order of the flow of a kernel metric, which torch differentiates through every
transform: the flow is an operator of what has no derivative.

In coordinates ``z = (X, Y)`` of `symmetric_vector`, with J_j the derivative of the flow until the node j, with weights
w_j of the quadrature and with the standard symplectic matrix O, of which J_j is an isometry, the end of the geodesic
from z + v is to second order in v

    end(z) + J (v + O grad_v S(v)),    S(v) = sum_j w_j (H(z_j + J_j v) less its Taylor polynomial of second order),

by variation of constants: z' = O grad H. S is a cubic form. It is formed of `energy`, a polynomial of matrices.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .kernel_cometric import Cometric
from .kernel_steps import STAGES, WEIGHTS, Path
from .kernel_tangents import Expansion, along, energy, tangents
from .matrices import symmetric_from_vector, symmetric_vector
from .tracing import variation

# Of graphs, whose sizes are fixed: an item that takes more steps has derivatives of NaN there.
GRAPH_STEPS, GRAPH_DEGREE = 8, 48


class Jet(NamedTuple):
    """The end of geodesics ``*B,2,n,n``, J there and the sum of the quadratic parts of H ``*B,2m,2m``, and at the nodes
    the weights ``*B,k``, the states ``*B,k,2,n,n``, J ``*B,k,2m,2m`` and the kernel as a polynomial."""

    end: Tensor
    tangent: Tensor
    quadratic: Tensor
    weights: Tensor
    states: Tensor
    tangents: Tensor
    center: Tensor
    half: Tensor
    table: Tensor
    exponential: Tensor

    def moved(self, v: Tensor, c: Cometric) -> Tensor:
        """The end in coordinates, of the start moved by v: a `variation`. ``*B,2m -> *B,2m``."""
        return coordinates(self.end) + (self.tangent @ (v + self.bent(v, c)).unsqueeze(-1)).squeeze(-1)

    def bent(self, v: Tensor, c: Cometric) -> Tensor:
        """O grad S(v), quadratic in v. ``*B,2m``."""
        e = Expansion(self.center, self.half, self.table, self.exponential)

        def total(v: Tensor) -> Tensor:
            steps = (self.tangents @ v[..., None, :, None]).squeeze(-1)
            return (self.weights * energy(self.states + matrices(steps), e, c)).sum(-1)

        value, pull, *_ = torch.func.vjp(total, v)
        cubic = variation(pull(torch.ones_like(value))[0]) - (self.quadratic @ v.unsqueeze(-1)).squeeze(-1)
        return symplectic(cubic)


def symplectic(z: Tensor) -> Tensor:
    """O z: (Y, -X) of (X, Y). ``*B,2m``."""
    X, Y = z.chunk(2, -1)
    return torch.cat([Y, -X], -1)


def coordinates(Z: Tensor) -> Tensor:
    """``*B,2,n,n -> *B,2m``."""
    return symmetric_vector(Z).flatten(-2)


def matrices(z: Tensor) -> Tensor:
    """``*B,2m -> *B,2,n,n``."""
    return symmetric_from_vector(z.unflatten(-1, (2, -1)))


def jet(path: Path, c: Cometric, steps: int, degree: int) -> Jet:
    """Of geodesics ``B``. `steps` and `degree` fix the sizes; zero stands for what is needed."""
    return jet_along(path, c, steps, degree)[0]


def jet_along(path: Path, c: Cometric, steps: int, degree: int) -> tuple[Jet, Path, Tensor]:
    """`jet`, the path with that many steps, and the derivative of the field at its nodes ``B,k,2m,2m``."""
    most = path.lengths.shape[1]
    usable = path.end.flatten(1).isfinite().all(1) & ((path.lengths > 0).sum(1) <= (steps or most))
    steps, m2 = steps or most, coordinates(path.end[:1]).shape[-1]
    path = _resized(path, usable, steps)
    second, e = along(path, c, degree)
    identity, generator = torch.eye(m2, dtype=path.end.dtype, device=path.end.device), second.generator()
    nodes, end = tangents(path, generator, identity.expand(len(usable), -1, -1))
    weights = path.lengths.unsqueeze(-1) * WEIGHTS.to(path.lengths.device)
    nodes, weights = nodes.flatten(1, 2), weights.flatten(1, 2)
    quadratic = (weights[..., None, None] * (nodes.mT @ second.hessian().flatten(1, 2) @ nodes)).sum(1)
    end = torch.where(usable[:, None, None], end, torch.nan)
    found = Jet(path.end, end, quadratic, weights, path.states.flatten(1, 2), nodes, *(a.flatten(1, 2) for a in e))
    return found, path, generator.flatten(1, 2)


def _resized(path: Path, usable: Tensor, steps: int) -> Path:
    """With as many steps for each; none where a path is not usable."""
    states, lengths = path.states[:, :steps], path.lengths[:, :steps]
    missing = steps - lengths.shape[1]
    states = torch.cat([states, states.new_zeros((len(states), missing, *states.shape[2:]))], 1)
    lengths = torch.cat([lengths, lengths.new_zeros((len(lengths), missing))], 1)
    lengths = torch.where(usable.unsqueeze(-1), lengths, 0.0)
    return Path(torch.where((lengths > 0)[:, :, None, None, None, None], states, 0.0), lengths, path.end)


def shapes(start: Tensor, steps: int, degree: int) -> Jet:
    """Empty tensors of the shapes of a jet from ``*B,2,n,n``, of fixed sizes."""
    batch, n, k = start.shape[:-3], start.shape[-1], steps * STAGES
    m2 = n * (n + 1)

    def new(*size: int) -> Tensor:
        return start.new_empty((*batch, *size))

    return Jet(
        *(new(2, n, n), new(m2, m2), new(m2, m2), new(k), new(k, 2, n, n), new(k, m2, m2)),
        *(new(k), new(k), new(k, degree + 1, degree + 1), new(k, degree + 1)),
    )
