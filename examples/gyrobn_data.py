"""Data whose domains differ: generated covariance matrices, recordings, and the features of a tree."""

from dataclasses import dataclass

import torch
from correlation_data import Windows
from torch import Tensor
from trees import balanced

SIZE, CLASSES, TRAIN, DOMAINS, ITEMS = 6, 4, 8, 16, 30
SHIFTS = ("sqrt", "chol", "neutral", "sqrt, powers")
BRANCHES, FEATURES, DEPTH = 9, 16, 6


@dataclass(frozen=True)
class Shifted:
    """Covariance matrices ``S,D,n,P`` of S draws of D domains, with the classes ``S,D,n``."""

    x: Tensor
    label: Tensor


def symmetric(*size: int, generator: torch.Generator) -> Tensor:
    """Gaussian in the Frobenius norm: a variance of one for each orthonormal coordinate."""
    g = torch.randn(*size, generator=generator, dtype=torch.float64)
    return (g + g.mT) / 2


def power(x: Tensor, exponent: Tensor | float) -> Tensor:
    """Of positive definite matrices."""
    values, vectors = torch.linalg.eigh(x)
    return (vectors * (values**exponent).unsqueeze(-2)) @ vectors.mT


def congruent(a: Tensor, x: Tensor) -> Tensor:
    """A x A^T, symmetric to the bit."""
    y = a @ x @ a.mT
    return (y + y.mT) / 2


def shifted(kind: str, seed: int, domains: int = DOMAINS, items: int = ITEMS) -> Shifted:
    """Items around the prototype of their class, mixed by their domain: by the square root or the Cholesky factor of a
    random matrix, or by a general one; with "powers" each domain also has its own power, between 1/2 and 2."""
    generator = torch.Generator().manual_seed(seed)
    prototype = torch.linalg.matrix_exp(symmetric(CLASSES, SIZE, SIZE, generator=generator) * 0.5)
    label = torch.arange(items).remainder(CLASSES).expand(domains, items)
    noise = torch.linalg.matrix_exp(0.35 * symmetric(domains, items, SIZE, SIZE, generator=generator))
    x = congruent(power(prototype, 0.5)[label], noise)
    matrix = torch.linalg.matrix_exp(0.8 * symmetric(domains, 1, SIZE, SIZE, generator=generator))
    general = torch.randn(domains, 1, SIZE, SIZE, generator=generator, dtype=torch.float64)
    exponent = torch.rand(domains, 1, 1, generator=generator, dtype=torch.float64) * 1.5 + 0.5
    if kind == "sqrt, powers":
        x = power(x, exponent)
    mixing = {"chol": torch.linalg.cholesky(matrix), "neutral": torch.linalg.matrix_exp(0.4 * general)}
    return Shifted(congruent(mixing.get(kind, power(matrix, 0.5)), x), label)


def stacked(kind: str, seeds: int, **sizes: int) -> Shifted:
    """One draw a seed."""
    draws = [shifted(kind, seed, **sizes) for seed in range(seeds)]
    return Shifted(torch.stack([d.x for d in draws]), torch.stack([d.label for d in draws]))


def by_recording(data: Windows) -> Shifted:
    """One draw, the recordings as domains."""
    count = len(data.recording.unique())
    return Shifted(data.covariance.unflatten(0, (count, -1))[None], data.gesture.unflatten(0, (count, -1))[None])


@dataclass(frozen=True)
class Nodes:
    """Features ``n,S,16`` of the nodes of a tree, one draw a seed; which subtree they belong to, ``n,S``."""

    train: Tensor
    train_label: Tensor
    valid: Tensor
    valid_label: Tensor
    test: Tensor
    test_label: Tensor


def nodes(seeds: int, depth: int = DEPTH, noise: float = 0.5) -> Nodes:
    """A ternary tree; features walk at random from parent to child and are seen with noise. The classes are the nine
    subtrees below depth 2. A quarter of the nodes is labelled, of which a fifth serves to choose the rate."""
    tree = balanced(3, depth)
    branch = [-1] * len(tree)
    for node, parent in enumerate(tree):
        branch[node] = node - 4 if 4 <= node < 4 + BRANCHES else branch[parent] if parent >= 0 else -1
    label = torch.tensor(branch)
    features, labels = [], []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        walk = torch.randn(len(tree), FEATURES, generator=generator)
        for node, parent in enumerate(tree[1:], start=1):
            walk[node] += walk[parent]
        walk = (walk + noise * torch.randn(len(tree), FEATURES, generator=generator)) / FEATURES**0.5
        order = torch.randperm(len(tree), generator=generator)
        order = order[label[order] >= 0]
        features.append(walk[order])
        labels.append(label[order])
    x, y = torch.stack(features, 1), torch.stack(labels, 1)
    fifth = len(x) // 20
    cuts = (4 * fifth, fifth, len(x) - 5 * fifth)
    (a, b, c), (i, j, k) = x.split(cuts), y.split(cuts)
    return Nodes(a, i, b, j, c, k)
