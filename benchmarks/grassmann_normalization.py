"""Batch normalisation of subspaces, forward and backward: ours, and the same layer built on matrix exponentials.

    python benchmarks/grassmann_normalization.py [--quick]

A batch of 30 in 8 channels of subspaces of dimension 10 in R^93, one thread, whose time on the processor is taken;
calls in turn. The other layer computes the same formulas with the gyro-operations of the papers (arXiv:2305.04560):
the logarithm B at the origin, here by the same code, then exp([[0, -B^T], [B, 0]]) of size 93 by
`torch.linalg.matrix_exp`, one a channel to translate and one an item to scale. Off is the largest difference of its
outputs from ours, between projectors, and of its gradients in the input, over the largest of them.
"""

from common import Contender, Line, fix_allocator, measure, publish, show

fix_allocator(OMP_NUM_THREADS="1")

import argparse  # noqa: E402
import math  # noqa: E402
import time  # noqa: E402

import torch  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from torchriemann.layers import GyroBatchNorm  # noqa: E402
from torchriemann.manifolds import Grassmann  # noqa: E402
from torchriemann.manifolds.mean_start import mean_guess  # noqa: E402

BATCH, CHANNELS, N, P = 30, 8, 93, 10
SPACE = Grassmann()


def rotation(B: Tensor) -> Tensor:
    """exp([[0, -B^T], [B, 0]]). ``*B,n-p,p -> *B,n,n``."""
    zero = [B.new_zeros((*B.shape[:-2], m, m)) for m in (P, N - P)]
    return torch.linalg.matrix_exp(torch.cat([torch.cat([zero[0], -B.mT], -1), torch.cat([B, zero[1]], -1)], -2))


class ExponentialBatchNorm(nn.Module):
    """``GyroBatchNorm(Grassmann(), (93, 10), 8, stats_grad=...)`` in training, by matrix exponentials."""

    def __init__(self, stats_grad: str, dtype: torch.dtype, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.detach, self.eps, self.momentum = stats_grad == "detach", eps, momentum
        self.scale = nn.Parameter(torch.zeros(CHANNELS, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(CHANNELS, N - P, P, dtype=dtype))
        self.register_buffer("running_mean", SPACE.origin(CHANNELS, N, P, dtype=dtype))
        self.register_buffer("running_var", torch.ones(CHANNELS, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        with torch.set_grad_enabled(not self.detach):
            mean = self.step(mean_guess(SPACE, x.detach(), x.new_full(x.shape[:2], 1 / len(x))), x)
        deviations = self.deviations(mean, x)
        variance = deviations.square().sum((-2, -1)).mean(0)
        if self.detach:
            variance = variance.detach()
        self.follow(mean.detach(), variance.detach())
        factor = self.scale.exp() * (variance + self.eps).rsqrt()
        return rotation(self.bias) @ rotation(factor[:, None, None] * deviations)[..., :P]

    def deviations(self, mean: Tensor, x: Tensor) -> Tensor:
        """Normal coordinates of (-)M (+) x."""
        return SPACE.to_normal(rotation(-SPACE.to_normal(mean)) @ x)

    def step(self, mean: Tensor, x: Tensor) -> Tensor:
        """A Karcher step."""
        return rotation(SPACE.to_normal(mean)) @ rotation(self.deviations(mean, x).mean(0))[..., :P]

    @torch.no_grad()
    def follow(self, mean: Tensor, variance: Tensor) -> None:
        way = self.momentum * self.deviations(self.running_mean, mean)
        self.running_mean = rotation(SPACE.to_normal(self.running_mean)) @ rotation(way)[..., :P]
        self.running_var = self.running_var + self.momentum * (variance - self.running_var)


def line(stats_grad: str, dtype: torch.dtype) -> Line:
    generator = torch.Generator().manual_seed(0)
    z = 0.5 / math.sqrt(N - P) * torch.randn(BATCH, CHANNELS, N - P, P, generator=generator, dtype=dtype)
    x = SPACE.from_normal(z).requires_grad_()
    weights = torch.randn(N, N, generator=generator, dtype=dtype)
    ours = GyroBatchNorm(SPACE, (N, P), CHANNELS, stats_grad=stats_grad, dtype=dtype)
    layers = {"torchriemann": ours, "matrix exponential": ExponentialBatchNorm(stats_grad, dtype)}

    def step(layer: nn.Module) -> tuple[Tensor, ...]:
        y = layer(x)
        return y.detach(), *torch.autograd.grad(((weights @ y) * y).sum(), [x, *layer.parameters()])

    def facts(layer: nn.Module) -> dict[str, float]:
        values, gradients = [], []
        for one in (layer, ours):
            one.load_state_dict(GyroBatchNorm(SPACE, (N, P), CHANNELS, dtype=dtype).state_dict(), strict=False)
            y, gradient, *_ = step(one)
            values.append(SPACE.projector(y))
            gradients.append(gradient)
        off = (gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()
        return {"off": (values[0] - values[1]).abs().max().item(), "gradients_off": off.item()}

    contenders = [Contender(name, lambda m=m: step(m), lambda m=m: facts(m)) for name, m in layers.items()]
    return Line(f"{stats_grad}, {str(dtype).removeprefix('torch.')}", contenders, {"matrix exponential": 5.0})


def main() -> None:
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found = []
    for stats_grad in ("last_step", "detach"):
        for dtype in (torch.float64, torch.float32):
            rounds, block = (3, 1) if quick else (9, 3)
            found.append(measure(line(stats_grad, dtype), rounds=rounds, block=block, clock=time.thread_time))
            show(found[-1])
    if not quick:
        publish("grassmann_normalization", found)


if __name__ == "__main__":
    main()
