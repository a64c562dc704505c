"""Many small models at once: a channel is one model, with its own seed and its own learning rate."""

import math
from collections.abc import Callable

import torch
from gyrobn_data import BRANCHES, FEATURES, Nodes
from torch import Tensor, nn

from torchriemann.layers import GyroBatchNorm
from torchriemann.manifolds import Lorentz

WIDTH, HIDDEN, BATCH = 32, 32, 240
RADIUS = 8.0  # farther out float32 overflows: the coordinates of a point grow as e^r
SPACE = Lorentz()
Trial = Callable[[list[float]], tuple[Tensor, Tensor]]


# ---- rates ------------------------------------------------------------------------------------------------------


def search(trial: Trial, rates: list[float], widen: bool = True) -> tuple[float, Tensor, int]:
    """The rate that is best in validation, the test scores ``S`` there, and how many models were lost to NaN on the
    way. `trial` gives the scores of both, ``R,S``. While the best rate is an end of the grid, the grid is continued by
    a step of the square root of ten. Raises if that does not end."""
    found: dict[float, tuple[Tensor, Tensor]] = {}
    beyond = rates
    for _ in range(9 if widen else 1):
        valid, test = trial(beyond)
        found |= {rate: (v, t) for rate, v, t in zip(beyond, valid, test, strict=True)}
        grid = sorted(found)
        best = max(grid, key=lambda rate: float(found[rate][0].nan_to_num(0.0).mean()))
        if grid[0] < best < grid[-1] or not widen:
            return best, found[best][1], int(torch.stack([v.isnan() for v, _ in found.values()]).sum())
        beyond = [best / 10**0.5 if best == grid[0] else best * 10**0.5]
    raise RuntimeError(f"the best rate is still at an end of the grid: {best:.1e}")


def step(optimizer: torch.optim.Optimizer, rate: Tensor) -> None:
    """A step of Adam of rate one, shortened to the rate ``C`` of each model: without weight decay that is the same."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in parameters]
    optimizer.step()
    with torch.no_grad():
        for p, old in zip(parameters, before, strict=True):
            p.copy_(old + rate.reshape(-1, *(1,) * (p.dim() - 1)) * (p - old))


def loss_of(logits: Tensor, label: Tensor) -> Tensor:
    """Cross-entropy, a mean for each model and their sum. Logits ``C,n,K``, labels ``C,n``."""
    found = nn.functional.cross_entropy(logits.float().flatten(0, 1), label.flatten(), reduction="none")
    return found.view(label.shape).mean(-1).sum()


def right(logits: Tensor, label: Tensor) -> Tensor:
    """Percent, ``C``; NaN for a model with an output that is not finite."""
    found = 100 * (logits.argmax(-1) == label).float().mean(-1)
    return found.where(logits.isfinite().flatten(1).all(-1), math.nan)


# ---- classifiers of coordinates ---------------------------------------------------------------------------------


class Weights(nn.Module):
    """A linear map for each model, ``C,n,i -> C,n,o``; the same for a seed whatever the rate."""

    def __init__(self, rates: int, seeds: int, i: int, o: int, generator: torch.Generator, he: bool = False) -> None:
        super().__init__()
        if he:
            weight = torch.randn(seeds, i, o, generator=generator) * (2 / i) ** 0.5
        else:  # as torch.nn.Linear
            weight = (2 * torch.rand(seeds, i, o, generator=generator) - 1) / i**0.5
        self.weight = nn.Parameter(weight.repeat(rates, 1, 1))
        self.bias = nn.Parameter(torch.zeros(rates * seeds, o))

    def forward(self, x: Tensor) -> Tensor:
        """Of every model's own rows."""
        return x @ self.weight + self.bias.unsqueeze(1)


def classify(
    train: tuple[Tensor, Tensor], tests: list[tuple[Tensor, Tensor]], rates: list[float], hidden: bool, steps: int,
    bf16: bool = False,
) -> list[Tensor]:  # fmt: skip
    """Percent right in each test, ``R,S``, of linear maps or networks with a hidden layer, trained on coordinates
    ``S,n,d`` with labels ``S,n``. The data, centred and of spread one in training, comes in random batches."""
    x, label = train
    seeds, count, width = x.shape
    generator = torch.Generator().manual_seed(seeds)
    sizes = (width, HIDDEN, int(label.max()) + 1) if hidden else (width, int(label.max()) + 1)
    layers: list[nn.Module] = []
    for i, o in zip(sizes, sizes[1:], strict=False):
        layers += [nn.ReLU()] * bool(layers) + [Weights(len(rates), seeds, i, o, generator)]
    model = nn.Sequential(*layers)
    centre = x.mean(1, keepdim=True)
    spread = (x - centre).square().mean((1, 2), keepdim=True).sqrt()
    many = (len(rates), 1, 1)

    def logits(rows: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(((rows - centre) / spread).repeat(many))

    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    rate = torch.tensor(rates).repeat_interleave(seeds)
    for _ in range(steps):
        batch = torch.rand(seeds, count, generator=generator).topk(min(BATCH, count)).indices
        rows = x.gather(1, batch.unsqueeze(-1).expand(-1, -1, width))
        optimizer.zero_grad()
        loss_of(logits(rows), label.gather(1, batch).repeat(len(rates), 1)).backward()
        step(optimizer, rate)
    with torch.no_grad():
        return [right(logits(x), y.repeat(len(rates), 1)).view(-1, seeds) for x, y in tests]


# ---- networks on a hyperboloid ----------------------------------------------------------------------------------


def clipped(z: Tensor) -> Tensor:
    """The points at these normal coordinates, drawn in to `RADIUS` (Guo et al. 2022, arXiv:2107.11472)."""
    length = z.square().sum(-1, keepdim=True).clamp(min=RADIUS**2).sqrt()
    return SPACE.from_normal(z * (RADIUS / length))


class LogBatchNorm(nn.Module):
    """Torch's batch normalisation of normal coordinates, as in flat space. ``n,C,33 -> same``."""

    def __init__(self, models: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(models * WIDTH, affine=False)
        self.weight = nn.Parameter(torch.ones(models, WIDTH))
        self.bias = nn.Parameter(torch.zeros(models, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        """Every coordinate of every model by itself."""
        z = SPACE.to_normal(x)
        return clipped(self.norm(z.flatten(1)).view_as(z) * self.weight + self.bias)


class HyperbolicNet(nn.Module):
    """Layers of points: a linear map of normal coordinates, a bias by gyro-addition, a normalisation, ReLU of normal
    coordinates; at last a linear classifier. Points are drawn in to a radius, in all arms alike. ``n,S,16 -> C,n,K``,
    all rates and seeds in one network."""

    def __init__(self, arm: str, layers: int, rates: int, seeds: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(layers)
        he = arm.endswith("He init")
        widths = [FEATURES, *[WIDTH] * layers]
        self.rates, models = rates, rates * seeds
        self.maps = nn.ModuleList(Weights(rates, seeds, i, WIDTH, generator, he) for i in widths[:-1])
        norms: dict[str, Callable[[], nn.Module]] = {
            "BatchNorm of logs": lambda: LogBatchNorm(models),
            "GyroBN": lambda: GyroBatchNorm(SPACE, (WIDTH + 1,), models),
        }
        self.norms = nn.ModuleList(norms.get(arm.removesuffix(", He init"), nn.Identity)() for _ in range(layers))
        self.head = Weights(rates, seeds, WIDTH, BRANCHES, generator)

    def forward(self, x: Tensor) -> Tensor:
        """The logits."""
        z = x.repeat(1, self.rates, 1)
        for linear, norm in zip(self.maps, self.norms, strict=True):
            assert isinstance(linear, Weights)
            y = clipped((z.transpose(0, 1) @ linear.weight).transpose(0, 1))
            y = norm(SPACE.gyroadd(clipped(linear.bias), y))
            z = SPACE.to_normal(y).relu()
        return self.head(z.transpose(0, 1))


def deep(arm: str, layers: int, data: Nodes, rates: list[float], epochs: int, bf16: bool = False) -> list[Tensor]:
    """Percent right in validation and test, ``R,S``, at the last epoch. A batch has all that is labelled."""
    seeds = data.train.shape[1]
    model = HyperbolicNet(arm, layers, len(rates), seeds)
    optimizer = torch.optim.Adam(model.parameters(), lr=1.0)
    rate = torch.tensor(rates).repeat_interleave(seeds)

    def logits(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return model(x)

    def labels(y: Tensor) -> Tensor:
        return y.T.repeat(len(rates), 1)

    for _ in range(epochs):
        optimizer.zero_grad()
        loss_of(logits(data.train), labels(data.train_label)).backward()
        step(optimizer, rate)
    model.eval()
    with torch.no_grad():
        pairs = ((data.valid, data.valid_label), (data.test, data.test_label))
        return [right(logits(x), labels(y)).view(-1, seeds) for x, y in pairs]
