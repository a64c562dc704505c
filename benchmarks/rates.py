"""Which rate of RiemannianAdam is which rate of torch's Adam.

    python benchmarks/rates.py [--quick]

Every problem is solved twice over a grid of rates: points by RiemannianAdam, and coordinates of the same points
(vectors that are normalised, matrices that are orthonormalised by QR, normal coordinates) by torch's Adam. "equal
progress" is the ratio of the rates that come to the same loss in the same number of steps, while a higher rate is still
better (the median over the rates of Adam), in units of the root of the dimension of a point; "best" is the ratio of the
two best rates of the grids, whose steps are factors of 2.
"""

import argparse
import math
import statistics

import torch
from common import environment, publish
from sklearn.datasets import load_digits
from torch import nn

from torchriemann import Grassmann, Lorentz, ManifoldParameter, Sphere
from torchriemann.optim import RiemannianAdam

STEPS = 100
OURS, TORCHS = [2.0**k for k in range(-8, 8)], [2.0**k for k in range(-11, 4)]


def orthonormal(z):
    return torch.linalg.qr(z)[0]


def normalized(z):
    return nn.functional.normalize(z, dim=-1)


def itself(x):
    return x


def plane(n, p):
    """The plane of most variance: points on the Grassmann manifold."""

    def make(g):
        data = torch.randn(400, n, generator=g) * torch.linspace(3, 0.3, n)
        c, m = data.mT @ data / 400, Grassmann()
        best = torch.linalg.eigvalsh(c)[-p:].sum()
        return m, m.random(n, p, generator=g), itself, orthonormal, lambda x, k: (best - (x * (c @ x)).sum()) / best

    return make


def classes(manifold, shape, chart, scores):
    """Ten points that classify the 8 x 8 digits in batches of 128."""

    def make(g):
        pixels, labels = map(torch.as_tensor, load_digits(return_X_y=True))
        pixels = normalized((pixels - pixels.mean(0)).float())
        order = torch.randint(len(pixels), (STEPS, 128), generator=g)

        def loss(w, k):
            batch = slice(None) if k is None else order[k]
            return nn.functional.cross_entropy(16 * scores(pixels[batch], w), labels[batch])

        return manifold, manifold.random(*shape, generator=g), itself, chart, loss

    return make


def tree(n):
    """31 nodes of a binary tree in hyperbolic space, by the stress of their distances."""

    def make(g):
        d = torch.full((31, 31), torch.inf).fill_diagonal_(0)
        for i in range(1, 31):
            d[i, (i - 1) // 2] = d[(i - 1) // 2, i] = 1
        for k in range(31):
            d = torch.minimum(d, d[:, k : k + 1] + d[k : k + 1])
        h = Lorentz()
        x = h.from_normal(0.1 * torch.randn(31, n, generator=g))
        return h, x, h.to_normal, h.from_normal, lambda x, k: (h.cdist(x, x) - d).square().mean()

    return make


PROBLEMS = {
    "plane in R^64, p = 4": (plane(64, 4), 240),
    "plane in R^16, p = 2": (plane(16, 2), 28),
    "digits, a direction a class": (classes(Sphere(), (10, 64), normalized, lambda x, w: x @ w.mT), 63),
    "digits, a subspace a class": (
        classes(Grassmann(), (10, 64, 4), orthonormal, lambda x, w: (x @ w).square().sum(-1).mT),
        240,
    ),
    "tree in H^4": (tree(4), 4),
    "tree in H^20": (tree(20), 20),
}


def final_loss(make, lr, seed, riemannian):
    """After STEPS steps with a cosine schedule; infinite where it is not finite."""
    manifold, start, to_chart, from_chart, loss = make(torch.Generator().manual_seed(seed))
    p = ManifoldParameter(start, manifold) if riemannian else nn.Parameter(to_chart(start).clone())
    points = itself if riemannian else from_chart
    optimizer = RiemannianAdam([p], lr=lr) if riemannian else torch.optim.Adam([p], lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    for k in range(STEPS):
        optimizer.zero_grad()
        loss(points(p), k).backward()
        optimizer.step()
        schedule.step()
    value = loss(points(p), None).item()
    return value if math.isfinite(value) else math.inf


def equal_progress(ours, torchs):
    """The median of the ratios of rates that give equal losses, where both losses fall with the rate."""
    ratios = []
    falling = [lr for lr in TORCHS[1:] if torchs[lr] < 0.9 * torchs[lr / 2] and torchs[lr] > 2 * min(torchs.values())]
    for lr in falling:
        for low, high in zip(OURS, OURS[1:], strict=False):
            if ours[high] <= torchs[lr] <= ours[low]:
                share = math.log(ours[low] / torchs[lr]) / math.log(ours[low] / ours[high])
                ratios.append(low * 2**share / lr)
                break
    return statistics.median(ratios) if ratios else math.nan


def row(name, seeds):
    """One problem: the ratios, and the best rates with their losses."""
    make, dimension = PROBLEMS[name]
    ours, torchs = (
        {lr: statistics.mean(final_loss(make, lr, s, riemannian) for s in seeds) for lr in grid}
        for riemannian, grid in ((True, OURS), (False, TORCHS))
    )
    best, peer = min(OURS, key=lambda lr: ours[lr]), min(TORCHS, key=lambda lr: torchs[lr])
    return {
        "name": name,
        "dimension": dimension,
        "equal progress / sqrt(dimension)": equal_progress(ours, torchs) / dimension**0.5,
        "best / sqrt(dimension)": best / peer / dimension**0.5,
        "best rate, RiemannianAdam": best,
        "loss": ours[best],
        "best rate, torch's Adam": peer,
        "its loss": torchs[peer],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one seed, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(environment())
    rows = []
    for name in PROBLEMS:
        rows.append(row(name, [0] if quick else [0, 1]))
        print(rows[-1], flush=True)
    if not quick:
        publish("rates", rows)


if __name__ == "__main__":
    main()
