"""Gyro-operations of subspaces: by direct rotations and functions of p x p matrices, and by matrix exponentials.

    python benchmarks/grassmann_gyro.py [--quick]

240 subspaces of dimension 8 in R^128, float64, one thread. *Translation* adds them to the means of 8 channels, 30 items
a channel, as normalisation does, or each to a subspace of its own. *Scaling* multiplies each by a number of its
channel. The other form is that of the papers (arXiv:2305.04560): the logarithm B at the origin, then
exp([[0, -B^T], [B, 0]]) of size n by `torch.linalg.matrix_exp`. Drift is max|x^T x - 1| of the results, off their
largest difference from ours, between projectors.
"""

from common import Contender, Line, fix_allocator, measure, publish, show

fix_allocator()

import argparse  # noqa: E402

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from torchriemann.manifolds import Grassmann  # noqa: E402

torch.set_num_threads(1)
torch.set_default_dtype(torch.float64)
N, P, ITEMS, CHANNELS = 128, 8, 30, 8
SPACE = Grassmann()


def subspaces(*batch: int, seed: int) -> Tensor:
    """With principal angles to the origin of up to about one."""
    generator = torch.Generator().manual_seed(seed)
    return SPACE.from_normal(0.07 * torch.randn(*batch, N - P, P, generator=generator))


def rotation(B: Tensor) -> Tensor:
    """The matrix exponential of the generator [[0, -B^T], [B, 0]]. ``*B,n-p,p -> *B,n,n``."""
    generator = B.new_zeros((*B.shape[:-2], N, N))
    generator[..., P:, :P], generator[..., :P, P:] = B, -B.mT
    return torch.linalg.matrix_exp(generator)


def added(x: Tensor, y: Tensor) -> Tensor:
    return rotation(SPACE.to_normal(x)) @ y


def scaled(t: Tensor, x: Tensor) -> Tensor:
    return rotation(t[..., None, None] * SPACE.to_normal(x))[..., :P]


def line(name: str, ours, theirs, bar: float) -> Line:
    def contender(label, run):
        def facts():
            x = run()
            off = (SPACE.projector(x) - SPACE.projector(ours())).abs().max().item()
            return {"drift": (x.mT @ x - torch.eye(P)).abs().max().item(), "off": off}

        return Contender(label, run, facts)

    exponential = "matrix exponential"
    return Line(name, [contender("torchriemann", ours), contender(exponential, theirs)], {exponential: bar})


def lines() -> list[Line]:
    means, own, x = subspaces(CHANNELS, seed=0), subspaces(ITEMS, CHANNELS, seed=1), subspaces(ITEMS, CHANNELS, seed=2)
    t = torch.linspace(0.5, 1.2, CHANNELS).expand(ITEMS, CHANNELS)
    return [
        line("translation by 8 means", lambda: SPACE.gyroadd(means, x), lambda: added(means, x), 5.0),
        line("translation item by item", lambda: SPACE.gyroadd(own, x), lambda: added(own, x), 5.0),
        line("scaling", lambda: SPACE.gyroscale(t, x), lambda: scaled(t, x), 30.0),
    ]


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found = []
    for entry in lines():
        found.append(measure(entry, rounds=3 if quick else 9, block=1 if quick else 3))
        show(found[-1])
    if not quick:
        publish("grassmann_gyro", found)


if __name__ == "__main__":
    main()
