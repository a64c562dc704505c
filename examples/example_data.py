"""The data of the examples: the digits that ship with scikit-learn, and generated classes within classes."""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn


def digits(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A random split, pixels in [0, 1]: training images, training labels, test images, test labels."""
    x, y = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    x = x.float() / 16
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))
    return x[order[:900]], y[order[:900]], x[order[900:]], y[order[900:]]


COARSE, FINE = 10, 4


def coarse_fine(bases: Tensor, per_class: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Points, coarse labels, fine labels.

    Coarse class c lies around the 4-dimensional subspace ``bases[c]`` of R^64. Its fine class j is a Gaussian around
    twice the j-th basis vector, with deviation 0.5 within the subspace and 0.3 in all directions.
    """
    coarse = torch.arange(COARSE).repeat_interleave(per_class)
    fine = torch.arange(len(coarse)) % FINE
    inside = 2 * nn.functional.one_hot(fine, FINE) + 0.5 * torch.randn(len(coarse), FINE, generator=generator)
    x = (bases[coarse] @ inside.unsqueeze(-1)).squeeze(-1)
    return x + 0.3 * torch.randn(x.shape, generator=generator), coarse, FINE * coarse + fine


class GeneratedData:
    """Training, probe (400 labels) and test set around the same random subspaces."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        bases = torch.linalg.qr(torch.randn(COARSE, 64, FINE, generator=generator))[0]
        x, coarse, _ = coarse_fine(bases, 120, generator)
        self.probe = coarse_fine(bases, 40, generator)
        self.test = coarse_fine(bases, 200, generator)
        shuffled = torch.randperm(len(x), generator=generator)
        self.train = x[shuffled], coarse[shuffled]
