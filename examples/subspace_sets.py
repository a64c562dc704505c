"""Subspaces seen by cameras: those of image sets of digits, and generated ones."""

import math
from dataclasses import dataclass

import torch
from example_data import digits
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from torchriemann.manifolds import Grassmann

SIZE, SPAN, IMAGES = 24, 2, 12  # planes in R^24, each the span of 12 images
CLASSES = {"digits": 10, "generated": 8}
PARTS = ("train", "valid", "test")
CAMERAS = (12, 4, 8)
SPACE = Grassmann()


@dataclass(frozen=True)
class Subspaces:
    """Bases ``D,n,S,16,3`` of D cameras in S draws, and the classes ``D,n``, which are those of every draw."""

    x: Tensor
    label: Tensor


def optics(cameras: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """How a camera sees 8 x 8 images: rolled, and lit from one side. Grid and gain, ``D,8,8,2`` and ``D,8,8``."""
    angle = torch.rand(cameras, generator=generator).sub(0.5).mul(math.pi / 3)
    zero = torch.zeros(cameras)
    turn = torch.stack([angle.cos(), -angle.sin(), zero, angle.sin(), angle.cos(), zero], -1).view(-1, 2, 3)
    side = torch.linspace(-1, 1, 8)
    slope = torch.randn(cameras, 2, 1, 1, generator=generator) * 0.6
    gain = (slope[:, 0] * side + slope[:, 1] * side.unsqueeze(-1)).exp()
    return affine_grid(turn, [cameras, 1, 8, 8], align_corners=False), gain


def photographs(
    pool: tuple[Tensor, Tensor], cameras: int, sets: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Sets of noisy images of one class, ``D,n,8,64``, and the classes ``n``, as many of each."""
    images, of_image = pool
    label = torch.arange(sets) % CLASSES["digits"]
    members = torch.stack([(of_image == k).float() for k in range(CLASSES["digits"])])[label]
    chosen = members.repeat(cameras, 1).multinomial(IMAGES, generator=generator)
    x = images[chosen].view(cameras, sets * IMAGES, 8, 8)
    grid, gain = optics(cameras, generator)
    x = grid_sample(x, grid, align_corners=False) * gain.unsqueeze(1)
    x = x + 0.15 * torch.randn(x.shape, generator=generator)
    return x.view(cameras, sets, IMAGES, 64), label


def image_sets(seed: int, sets: int) -> dict[str, Subspaces]:
    """The span of the three leading singular vectors of a set of images. The parts have no image and no camera in
    common. Coordinates are the leading principal ones of the photographs to train with, about zero."""
    x, y, *test = digits(seed)
    pools = ((x[:650], y[:650]), (x[650:], y[650:]), (test[0], test[1]))
    generator = torch.Generator().manual_seed(seed)
    taken = [photographs(pool, d, sets, generator) for pool, d in zip(pools, CAMERAS, strict=True)]
    axes = torch.linalg.svd(taken[0][0].flatten(0, 2), full_matrices=False).Vh[:SIZE].mT
    return {
        part: Subspaces(torch.linalg.svd((photos @ axes).mT, full_matrices=False).U[..., :SPAN], label)
        for part, (photos, label) in zip(PARTS, taken, strict=True)
    }


def generated(seed: int, sets: int, noise: float = 0.14, turn: float = 0.1) -> dict[str, Subspaces]:
    """Subspaces around the prototype of their class, ``noise`` and the prototypes Gaussian in normal coordinates; each
    camera turns the whole space by the exponential of a skew matrix with entries of deviation ``turn``."""
    generator = torch.Generator().manual_seed(seed)
    normal = SPACE.normal_shape((SIZE, SPAN))
    prototype = 0.16 * torch.randn(CLASSES["generated"], *normal, generator=generator)
    label = torch.arange(sets) % CLASSES["generated"]
    parts = {}
    for part, cameras in zip(PARTS, CAMERAS, strict=True):
        z = noise * torch.randn(cameras, sets, *normal, generator=generator)
        x = SPACE.expmap_frame(SPACE.from_normal(prototype)[label], z)
        skew = turn * torch.randn(cameras, 1, SIZE, SIZE, generator=generator)
        parts[part] = Subspaces(torch.linalg.matrix_exp(skew - skew.mT) @ x, label)
    return parts


def stacked(kind: str, seeds: int, sets: int) -> dict[str, Subspaces]:
    """One draw a seed."""
    draw = image_sets if kind == "digits" else generated
    draws = [draw(seed, sets) for seed in range(seeds)]
    return {
        part: Subspaces(torch.stack([d[part].x for d in draws], 2), draws[0][part].label.expand(cameras, -1))
        for part, cameras in zip(PARTS, CAMERAS, strict=True)
    }
