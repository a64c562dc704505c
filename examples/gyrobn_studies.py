"""The three studies, one arm at a time, so that arms can run side by side."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from gyrobn_data import TRAIN, Shifted, nodes, stacked
from gyrobn_training import classify, deep, search
from torch import Tensor

from torchriemann.layers import GyroBatchNorm
from torchriemann.manifolds import GyroManifold, SPDAffineInvariant, SPDLogCholesky, SPDLogEuclidean


@dataclass(frozen=True)
class Setting:
    """How much is run. Mostly there are ten seeds; of the depth study `--full` alone runs as many."""

    seeds: int = 10
    deep_seeds: int = 3
    steps: int = 150
    epochs: int = 80
    depth: int = 6
    layers: tuple[int, ...] = (2, 5, 8)
    items: int = 30
    thin: int = 1  # one of so many windows
    widen: bool = True
    bf16: bool = False


FULL = Setting(deep_seeds=10, epochs=120)
QUICK = Setting(3, 3, 12, 4, 4, (2, 3), 8, 20, widen=False)


@dataclass(frozen=True)
class Arm:
    """Which statistics, in which geometry, whether dispersions are made equal too."""

    manifold: GyroManifold
    statistics: str  # none, shared, domain
    scaled: bool = True


AFFINE, LOG, CHOLESKY = SPDAffineInvariant(), SPDLogEuclidean(), SPDLogCholesky()
ARMS = {
    "none": Arm(LOG, "none"),
    "shared, affine-invariant": Arm(AFFINE, "shared"),
    "domain, affine, centred": Arm(AFFINE, "domain", scaled=False),
    "domain, affine-invariant": Arm(AFFINE, "domain"),
    "domain, log-Eucl., centred": Arm(LOG, "domain", scaled=False),
    "domain, log-Euclidean": Arm(LOG, "domain"),
    "domain, log-Ch., centred": Arm(CHOLESKY, "domain", scaled=False),
    "domain, log-Cholesky": Arm(CHOLESKY, "domain"),
}
RECORDED_ARMS = (
    "none", "shared, affine-invariant", "domain, affine, centred", "domain, affine-invariant", "domain, log-Euclidean",
    "domain, log-Cholesky",
)  # fmt: skip
DEEP_ARMS = ("none", "none, He init", "BatchNorm of logs", "GyroBN")
MORE_DEEP_ARMS = ("BatchNorm of logs, He init", "GyroBN, He init")


def features(arm: Arm, x: Tensor, train: int | None) -> Tensor:
    """Normal coordinates ``S,D,n,d`` of matrices ``S,D,n,P`` that are normalised with the statistics of their domain,
    which takes no labels, or of the first `train` domains together. A seed is a channel of the layer. It learns
    nothing: the linear map that comes next has a bias and a factor of its own."""
    space, shape = arm.manifold, x.shape[3:]
    seeds, domains, items = x.shape[:3]
    rows = x.permute(1, 2, 0, 3, 4)  # D,n,S,P
    if arm.statistics == "none":
        return space.to_normal(x)
    shared = arm.statistics == "shared"
    many = None if shared else domains
    norm = GyroBatchNorm(space, tuple(shape), seeds, affine=False, num_domains=many, dtype=x.dtype)
    if shared:
        norm.refit(rows[:train].flatten(0, 1))
    else:
        for domain in range(domains):
            norm.refit(rows[domain], domain)
    if not arm.scaled:
        assert isinstance(norm.running_var, Tensor)
        norm.running_var.fill_(1.0)
    norm.eval()
    y = norm(rows, None if shared else torch.arange(domains))
    return space.to_normal(y).permute(2, 0, 1, 3)


def rows(x: Tensor, label: Tensor, domains: list[int]) -> tuple[Tensor, Tensor]:
    """All items of these domains: ``S,D,n,... -> S,Dn,...``."""
    return x[:, domains].flatten(1, 2), label[:, domains].flatten(1, 2)


def outcome(rate: float | list[float], right: Tensor, lost: int) -> dict[str, Any]:
    """As it goes into the tables."""
    return {"rate": rate, "right": [float(value) for value in right], "lost": lost}


def coordinates(arm: str, data: Shifted, train: int | None, setting: Setting) -> Tensor:
    """In float32."""
    with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
        return features(ARMS[arm], data.x.float(), train).float()


def shift_study(kind: str, arm: str, setting: Setting) -> dict[str, Any]:
    """Eight domains to train with, of which two choose the rate; eight others to test."""
    data = stacked(kind, setting.seeds, items=setting.items)
    x, label = coordinates(arm, data, TRAIN, setting), data.label
    test = rows(x, label, list(range(TRAIN, x.shape[1])))

    def trial(rates: list[float], train: int = TRAIN - 2) -> tuple[Tensor, Tensor]:
        tests = [rows(x, label, list(range(TRAIN - 2, TRAIN))), test]
        found = classify(rows(x, label, list(range(train))), tests, rates, False, setting.steps, setting.bf16)
        return found[0], found[1]

    rate, _, lost = search(trial, [3e-3, 1e-2, 3e-2, 1e-1, 3e-1], setting.widen)
    return outcome(rate, trial([rate], TRAIN)[1][0], lost)


def recordings_study(arm: str, left_out: int, one: Shifted, setting: Setting) -> dict[str, Any]:
    """A network with a hidden layer, trained on three recordings and tested on the other. The rate is best on average
    where networks of three seeds are trained on two of them and look at the third."""
    seen = [i for i in range(one.x.shape[1]) if i != left_out]
    few = replace(setting, seeds=min(3, setting.seeds))

    every = None if ARMS[arm].statistics == "shared" else coordinates(arm, one, None, setting)

    def scores(rates: list[float], train: list[int], test: int, s: Setting) -> Tensor:
        if every is None:  # the statistics that recordings share are those of the ones to train with
            order = [*train, *(i for i in range(one.x.shape[1]) if i not in train)]
            ranked = coordinates(arm, Shifted(one.x[:, order], one.label), len(train), s)
            x = ranked[:, torch.tensor(order).argsort()]
        else:
            x = every
        x, label = x.expand(s.seeds, -1, -1, -1), one.label.expand(s.seeds, -1, -1)
        return classify(rows(x, label, train), [rows(x, label, [test])], rates, True, s.steps, s.bf16)[0]

    def trial(rates: list[float]) -> tuple[Tensor, Tensor]:
        found = [scores(rates, [i for i in seen if i != held], held, few) for held in seen]
        valid = torch.stack(found).mean(0)
        return valid, valid

    rate, _, lost = search(trial, [1e-3, 3e-3, 1e-2, 3e-2], setting.widen)
    return outcome(rate, scores([rate], seen, left_out, setting)[0], lost)


def depth_study(arm: str, layers: int, setting: Setting) -> dict[str, Any]:
    """Accuracy on the unlabelled nodes at the rate that is best on a fifth of the labelled ones."""
    data = nodes(setting.deep_seeds, setting.depth)

    def trial(rates: list[float]) -> tuple[Tensor, Tensor]:
        valid, test = deep(arm, layers, data, rates, setting.epochs, setting.bf16)
        return valid, test

    return outcome(*search(trial, [3e-3, 1e-2, 3e-2], setting.widen))
