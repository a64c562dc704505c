"""Generated diffusion tensors: a bundle of fibres that turns, one that crosses it, and what a scanner makes of them.

Diffusion is in square micrometres a millisecond: 1.7 along a fibre and 0.3 across, 0.8 in the tissue around. The signal
in direction g is the sum of exp(-b g^T D g) over what a voxel holds, and a tensor is the least squares fit to the
logarithms of 32 signals. So no field is made by any of the metrics that are compared on it.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

ALONG, ACROSS, AROUND, WEIGHTING = 1.7, 0.3, 0.8, 1.0  # the last is b, in milliseconds a square micrometre


def fractional_anisotropy(x: Tensor) -> Tensor:
    """0 for a multiple of the identity, 1 for rank one: sqrt(n/(n - 1)) |x - tr(x)/n I|/|x|. ``*B,n,n -> *B``."""
    n = x.shape[-1]
    mean = x.diagonal(dim1=-2, dim2=-1).mean(-1)
    deviation = x - mean[..., None, None] * torch.eye(n, dtype=x.dtype)
    norm = torch.linalg.matrix_norm
    return math.sqrt(n / (n - 1)) * norm(deviation) / norm(x)


def principal_axis(x: Tensor) -> Tensor:
    """The eigenvector of the largest eigenvalue. ``*B,n,n -> *B,n``."""
    return torch.linalg.eigh(x)[1][..., -1]


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Between the lines of unit vectors, in degrees. ``*B,n -> *B``."""
    return (a * b).sum(-1).abs().clamp(max=1).acos().rad2deg()


def fibre(direction: Tensor) -> Tensor:
    """The prolate spheroid along a unit vector. ``*B,3 -> *B,3,3``."""
    outer = direction.unsqueeze(-1) * direction.unsqueeze(-2)
    return (ALONG - ACROSS) * outer + ACROSS * torch.eye(3, dtype=torch.float64)


def gradients(count: int = 32) -> Tensor:
    """Unit vectors spread over half of the sphere. ``count,3``."""
    i = torch.arange(count, dtype=torch.float64)
    z, phi = (i + 0.5) / count, math.pi * (3 - math.sqrt(5)) * i
    r = (1 - z.square()).sqrt()
    return torch.stack([r * phi.cos(), r * phi.sin(), z], -1)


def fitted(signal: Tensor, g: Tensor) -> Tensor:
    """The tensors for which g^T D g is nearest to -log(signal)/b. ``*B,count -> *B,3,3``."""
    products = (g.unsqueeze(-1) * g.unsqueeze(-2)).flatten(1)
    # Of nine unknowns; the solution of least norm is symmetric.
    return (-signal.log() / WEIGHTING @ torch.linalg.pinv(products).mT).unflatten(-1, (3, 3))


def crossing(side: int) -> tuple[Tensor, Tensor]:
    """What voxels hold: tensors ``side,side,3,3,3`` of the turning bundle, the straight one and the tissue, and shares
    ``side,side,3``. The first turns by a right angle about a corner, and rises out of the plane on its way."""
    row, column = torch.meshgrid(*[(torch.arange(side, dtype=torch.float64) + 0.5) / side] * 2, indexing="ij")
    x, y = column, 1 - row
    turn, slope = torch.atan2(y, x), math.radians(15)
    tilt = 0.5 * (2 * turn).sin()
    arc = torch.stack([-turn.sin() * tilt.cos(), turn.cos() * tilt.cos(), tilt.sin()], -1)
    straight = torch.tensor([math.cos(slope), math.sin(slope), 0.0], dtype=torch.float64).expand_as(arc)
    middle = torch.stack([torch.hypot(x, y) - 0.72, (y - 0.3) * math.cos(slope) - x * math.sin(slope)], -1)
    covered = torch.sigmoid((0.13 - middle.abs()) * 3 * side)  # an edge takes about a voxel
    both = covered.prod(-1, keepdim=True)
    shares = torch.cat([covered - both / 2, (1 - covered).prod(-1, keepdim=True)], -1)
    around = AROUND * torch.eye(3, dtype=torch.float64).expand(side, side, 3, 3)
    return torch.stack([fibre(arc), fibre(straight), around], -3), shares


@dataclass(frozen=True)
class Field:
    """Tensors ``side,side,3,3`` without noise, scans of them ``*B,side,side,3,3``, where one bundle fills a voxel."""

    clean: Tensor
    noisy: Tensor
    bundle: Tensor


def scan(side: int, noise: float, scans: int) -> Field:
    """Scans with noise of this deviation in both parts of a complex signal, which is 1 for b = 0."""
    tensors, shares = crossing(side)
    g = gradients()
    signal = (shares.unsqueeze(-1) * (-WEIGHTING * torch.einsum("kp,...pq,kq->...k", g, tensors, g)).exp()).sum(-2)
    generator = torch.Generator().manual_seed(0)
    draws = noise * torch.randn(2, scans, *signal.shape, generator=generator, dtype=torch.float64)
    seen = torch.hypot(signal + draws[0], draws[1])
    return Field(fitted(signal, g), fitted(seen, g), shares[..., :2].amax(-1) > 0.9)
