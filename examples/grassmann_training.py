"""Networks on subspaces, and how they are trained: all seeds at once, as channels of one network."""

from dataclasses import dataclass
from typing import Any

import torch
from gyrobn_training import Weights, loss_of, right, search
from subspace_sets import SIZE, SPACE, SPAN, Subspaces
from torch import Tensor, nn

from torchriemann.layers import FRMap, GrassmannPool, GyroBatchNorm, GyroTranslation, ProjMap, ReOrth
from torchriemann.optim import RiemannianAdam, param_groups

CHANNELS, MAPPED = 4, 16
NETWORKS = ("linear", "GyroGr", "GrNet")
NORMS = ("none", "GyroBN", "GyroBN, tangent", "cameras")


@dataclass(frozen=True)
class Setting:
    """How much is run."""

    seeds: int = 5
    search_seeds: int = 2
    sets: int = 50  # of a camera
    steps: int = 60
    batch: int = 40
    rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    widen: bool = True
    bf16: bool = False


FULL = Setting(seeds=10, search_seeds=5, steps=200)
QUICK = Setting(3, 1, 10, 3, 10, (1e-2,), widen=False)


class PairPool(nn.Module):
    """Mean pooling of the projector ``x x^T`` over 2 x 2 windows, and the leading eigenvectors of what that leaves.

    The pooled matrix is ``a a^T`` up to a factor, with the sums of pairs of rows a: their span is that of the
    eigenvectors, by a thin factorisation in the place of an eigendecomposition. ``*B,n,p -> *B,n/2,p``."""

    def __init__(self) -> None:
        super().__init__()
        self.orthonormal = ReOrth()

    def forward(self, x: Tensor) -> Tensor:
        """The pooled subspaces."""
        return self.orthonormal(x.unflatten(-2, (-1, 2)).sum(-2))


class Network(nn.Module):
    """Layers of subspaces, ``n,S,24,2 -> S,n,K``: S networks side by side, with channels of their own.

    GyroGr: translations by four points, mean pooling of projectors (Nguyen and Yang 2023, arXiv:2305.04560). GrNet:
    four full-rank maps, orthonormal bases, the mean subspaces of pairs of channels (Huang et al. 2018,
    arXiv:1611.05742). Both then have the normalisation, if there is one, and a linear map of projectors; "linear" is
    that alone."""

    def __init__(self, kind: str, norm: str, seeds: int, classes: int) -> None:
        super().__init__()
        wide = seeds * CHANNELS
        generator = torch.Generator().manual_seed(0)
        body: list[nn.Module] = []
        self.seeds, self.repeats, self.size, channels = seeds, CHANNELS, SIZE, wide
        if kind == "linear":
            self.repeats, channels = 1, seeds
        elif kind == "GyroGr":
            translation = GyroTranslation(SPACE, (SIZE, SPAN), wide)
            with torch.no_grad():
                translation.bias.normal_(0, 0.3, generator=generator)
            body, self.size = [translation, PairPool()], SIZE // 2
        else:
            body, self.size, channels = [FRMap(SIZE, MAPPED, wide), ReOrth(), GrassmannPool(2)], MAPPED, wide // 2
        if norm.startswith("GyroBN"):
            form = "tangent" if norm.endswith("tangent") else "gyro"
            body.append(GyroBatchNorm(SPACE, (self.size, SPAN), channels, form=form))
        self.body = nn.Sequential(*body, ProjMap())
        self.head = Weights(1, seeds, channels // seeds * self.size**2, classes, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        y = self.body(x.repeat_interleave(self.repeats, 1)) * (self.size / SPAN**0.5)  # entries of mean square one
        return self.head(y.unflatten(1, (self.seeds, -1)).flatten(2).transpose(0, 1))


def by_camera(parts: dict[str, Subspaces]) -> dict[str, Subspaces]:
    """Every camera normalised by the mean and the dispersion of all that it saw, for which labels are not needed."""
    done = {}
    for part, data in parts.items():
        cameras, _, seeds, n, p = data.x.shape
        norm = GyroBatchNorm(SPACE, (n, p), seeds, affine=False, num_domains=cameras)
        for camera in range(cameras):
            norm.refit(data.x[camera], camera)
        norm.eval()
        done[part] = Subspaces(norm(data.x, torch.arange(cameras)), data.label)
    return done


def rated(model: nn.Module, rate: float) -> RiemannianAdam:
    """Adam; points move by some sqrt(dimension) times the rate of flat parameters, as its page advises."""
    groups = list(param_groups(model))
    for group in groups:
        if group.get("manifold") is not None:
            group["lr"] = rate * MAPPED
    return RiemannianAdam(groups, lr=rate)


def trained(kind: str, norm: str, parts: dict[str, Subspaces], rate: float, setting: Setting) -> tuple[Tensor, Tensor]:
    """Percent right in validation and test, ``S`` each, after the last step."""
    seeds = parts["train"].x.shape[2]
    torch.manual_seed(0)  # full-rank maps are drawn from it
    model = Network(kind, norm, seeds, int(parts["train"].label.max()) + 1)
    optimizer = rated(model, rate)
    generator = torch.Generator().manual_seed(0)

    def logits(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
            return model(x)

    x, label = parts["train"].x.flatten(0, 1), parts["train"].label.flatten()
    for _ in range(setting.steps):
        batch = torch.randperm(len(x), generator=generator)[: setting.batch]
        optimizer.zero_grad()
        loss_of(logits(x[batch]), label[batch].expand(seeds, -1)).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        tests = [(parts[part].x.flatten(0, 1), parts[part].label.flatten()) for part in ("valid", "test")]
        valid, test = [right(logits(x), label.expand(seeds, -1)) for x, label in tests]
    return valid, test


def study(kind: str, norm: str, parts: dict[str, Subspaces], setting: Setting) -> dict[str, Any]:
    """One arm: the rate that is best in validation, of a few seeds, and percent right in test, of all of them."""
    if norm == "cameras":
        with torch.autocast("cpu", torch.bfloat16, enabled=setting.bf16):
            parts = by_camera(parts)
    few = {part: Subspaces(data.x[:, :, : setting.search_seeds], data.label) for part, data in parts.items()}

    def trial(rates: list[float]) -> tuple[Tensor, Tensor]:
        found = [trained(kind, norm, few, rate, setting) for rate in rates]
        valid, test = map(torch.stack, zip(*found, strict=True))
        return valid, test

    rate, _, lost = search(trial, list(setting.rates), setting.widen)
    valid, test = trained(kind, norm, parts, rate, setting)
    return {"rate": rate, "right": test.tolist(), "lost": lost + int((valid + test).isnan().sum())}
