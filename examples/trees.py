"""Trees, how well distances render them, and Sarkar's construction.

A tree is the list of its parents: node 0 is the root (parent -1), and every parent comes before its children.
"""

import math

import torch
from torch import Tensor

Tree = list[int]


# ---- shapes -----------------------------------------------------------------------------------------------------


def balanced(branching: int, depth: int) -> Tree:
    """Every inner node has `branching` children."""
    inner = (branching**depth - 1) // (branching - 1)
    return [-1] + [node for node in range(inner) for _ in range(branching)]


def random_recursive(size: int, seed: int) -> Tree:
    """Every node hangs on an earlier one, all equally likely."""
    draws = torch.rand(size, generator=torch.Generator().manual_seed(seed)).tolist()
    return [-1] + [int(node * draws[node]) for node in range(1, size)]


def preferential(size: int, seed: int) -> Tree:
    """Every node hangs on an earlier one, with probability proportional to its degree: few hubs, many leaves."""
    draws = torch.rand(size, generator=torch.Generator().manual_seed(seed)).tolist()
    tree, ends = [-1, 0], [0, 1]
    for node in range(2, size):
        parent = ends[int(draws[node] * len(ends))]
        tree.append(parent)
        ends += [parent, node]
    return tree


def caterpillar(size: int, spine: int) -> Tree:
    """A path of `spine` nodes, and the others as leaves on it, dealt out evenly."""
    return [-1, *range(spine - 1), *(node % spine for node in range(spine, size))]


def star_of_paths(size: int, arms: int) -> Tree:
    """A root with `arms` paths, as equally long as `size` allows."""
    return [-1, *(max(0, node - arms) for node in range(1, size))]


# ---- distances and how well they are met ------------------------------------------------------------------------


def hops(tree: Tree) -> Tensor:
    """Number of edges between every two nodes, ``n,n`` in float64."""
    d = torch.zeros(len(tree), len(tree), dtype=torch.float64)
    for node in range(1, len(tree)):
        d[node, :node] = d[:node, node] = d[tree[node], :node] + 1
    return d


def pairs(size: int) -> tuple[Tensor, Tensor]:
    """Both ends of all pairs of different nodes."""
    i, j = torch.triu_indices(size, size, 1)
    return i, j


def square(d: Tensor, size: int) -> Tensor:
    """Distances of `pairs`, as a symmetric matrix."""
    i, j = pairs(size)
    full = d.new_zeros(size, size)
    full[i, j] = full[j, i] = d
    return full


def average_distortion(ratio: Tensor) -> float:
    """Mean of |d / d_tree - 1| over the pairs."""
    return float((ratio - 1).abs().mean())


def worst_distortion(ratio: Tensor) -> float:
    """Largest over smallest ratio d / d_tree; NaN if one is NaN."""
    return float(ratio.max() / ratio.min())


def mean_average_precision(d: Tensor, tree: Tree) -> float:
    """How well the nearest nodes are the neighbours in the tree: 1 if all neighbours of all nodes come first.

    For a node u and its neighbour v: the share of neighbours among the nodes that are at least as near as v; averaged
    over v, then over u (arXiv:1804.03329, section 2).
    """
    size = len(tree)
    child = torch.arange(1, size)
    parent = torch.tensor(tree[1:])
    adjacent = torch.zeros(size, size, dtype=torch.bool)
    adjacent[child, parent] = adjacent[parent, child] = True
    u, v = adjacent.nonzero(as_tuple=True)
    nearer = d[u] <= d[u, v].unsqueeze(-1)
    nearer[torch.arange(len(u)), u] = False
    precision = (nearer & adjacent[u]).sum(-1) / nearer.sum(-1)
    mean = torch.zeros(size, dtype=precision.dtype).index_add_(0, u, precision) / adjacent.sum(-1)
    return float(mean.mean())


# ---- Sarkar's construction --------------------------------------------------------------------------------------


def sarkar(tree: Tree, manifold, edge: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """Points ``n,P`` of a hyperbolic plane: children at distance `edge`, all edges of a node at equal angles.

    Each child is one step from its parent, in the parent's frame: no isometry is carried along. The longer the edge,
    the nearer the distances come to those of the tree, and the farther out lie the leaves (Sarkar 2011,
    doi 10.1007/978-3-642-25878-7_34).
    """
    children: dict[int, list[int]] = {}
    for node, parent in enumerate(tree[1:], start=1):
        children.setdefault(parent, []).append(node)
    x = manifold.from_normal(torch.zeros(len(tree), 2, dtype=dtype))
    for node, brood in children.items():
        if node == 0:
            first, edges = 0.0, len(brood)
        else:
            back = manifold.logmap_frame(x[node], x[tree[node]])
            first, edges = math.atan2(float(back[1]), float(back[0])), len(brood) + 1
        turns = torch.arange(edges - len(brood), edges, dtype=torch.float64)
        angles = first + 2 * math.pi * turns / edges
        step = edge * torch.stack([angles.cos(), angles.sin()], -1).to(dtype)
        x[brood] = manifold.expmap_frame(x[node], step)
    return x
