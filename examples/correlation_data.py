"""Correlations to compare: of eight electrodes on a forearm, which are recorded, and of assets, which are generated.

The recordings come with geomstats: four (two persons, two sessions each), in which four gestures are held for 25
seconds, six times each, between rests. The middle 6,000 samples of each time are cut into 30 windows, 2,880 in all.
Where geomstats is not installed, signals with as many labels are generated in their place.
"""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

GESTURES = ("rock", "paper", "scissors", "ok")
RECORDINGS, TIMES, WINDOWS, SAMPLES, CHANNELS = 4, 6, 30, 200, 8


@dataclass(frozen=True)
class Windows:
    """Covariance matrices ``N,8,8``, with the gesture, the recording and the time (0 to 5) of each."""

    covariance: Tensor
    gesture: Tensor
    recording: Tensor
    time: Tensor
    source: str


def recordings() -> Path | None:
    """The file that geomstats ships; it is found without importing that library."""
    found = importlib.util.find_spec("geomstats")
    file = Path(found.origin).parent / "datasets" / "data" / "emg" / "emg.csv" if found and found.origin else None
    return file if file and file.exists() else None


def labels() -> tuple[Tensor, Tensor, Tensor]:
    """Gesture, recording and time of every window, recording by recording, all gestures once a time."""
    sizes = (RECORDINGS, TIMES, len(GESTURES), WINDOWS)
    recording, time, gesture, _ = (
        part.flatten() for part in torch.meshgrid(*(torch.arange(s) for s in sizes), indexing="ij")
    )
    return gesture, recording, time


def covariances(signals: Tensor) -> Tensor:
    """``*B,samples,channels -> *B,channels,channels``."""
    centred = signals - signals.mean(-2, keepdim=True)
    return centred.mT @ centred / signals.shape[-2]


def load(file: Path | None) -> Windows:
    """From the recordings, or generated."""
    if file is None:
        return Windows(covariances(generated_signals(0)), *labels(), "generated signals: geomstats is not installed")
    import pandas  # which geomstats needs

    table = pandas.read_csv(file)
    values = torch.tensor(table[[f"c{i}" for i in range(CHANNELS)]].to_numpy(), dtype=torch.float64)
    # What is held, in the order of the file, one row a stretch.
    stretch = (table["exp"] + table["label"]).ne((table["exp"] + table["label"]).shift()).cumsum()
    parts = []
    for rows in table.groupby(stretch, sort=False).indices.values():
        if table["label"].iat[rows[0]] in GESTURES:
            start = int(rows[0]) + (len(rows) - WINDOWS * SAMPLES) // 2
            parts.append(values[start : start + WINDOWS * SAMPLES].unflatten(0, (WINDOWS, SAMPLES)))
    return Windows(covariances(torch.cat(parts)), *labels(), "recordings of eight electrodes on a forearm")


def generated_signals(seed: int) -> Tensor:
    """A way to mix eight sources a gesture, which each recording changes a little, and its own gain a channel."""
    generator = torch.Generator().manual_seed(seed)
    gesture, recording, _ = labels()

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=generator, dtype=torch.float64)

    mixing = normal(len(GESTURES), CHANNELS, CHANNELS)
    mixing = mixing + 0.5 * normal(RECORDINGS, len(GESTURES), CHANNELS, CHANNELS)
    mixing = (0.5 * normal(RECORDINGS, 1, CHANNELS, 1)).exp() * mixing
    return normal(len(gesture), SAMPLES, CHANNELS) @ mixing[recording, gesture].mT


# %% Assets


def market(assets: int, sectors: int, crisis: bool, seed: int = 0) -> Tensor:
    """The correlation matrix of returns that follow the market, their sector, and chance. In a crisis the market moves
    three times as much."""
    generator = torch.Generator().manual_seed(seed)
    beta = torch.empty(assets, dtype=torch.float64).uniform_(0.4, 0.9, generator=generator) * (3 if crisis else 1)
    own = torch.empty(assets, dtype=torch.float64).uniform_(0.5, 1.5, generator=generator)
    sector = torch.arange(assets) % sectors
    together = (sector.unsqueeze(0) == sector.unsqueeze(1)).double()
    covariance = beta.unsqueeze(0) * beta.unsqueeze(1) + 0.6 * together + own.diag()
    root = covariance.diagonal().sqrt()
    return covariance / root.unsqueeze(0) / root.unsqueeze(1)


def observed(correlation: Tensor, windows: int, days: int, generator: torch.Generator) -> Tensor:
    """Covariance matrices of windows of returns, of which each has its own volatility: a factor of 2 or so, the same
    for all assets. ``n,n -> windows,n,n``."""
    n = correlation.shape[-1]
    noise = torch.randn(windows, days, n, generator=generator, dtype=torch.float64)
    volatility = (0.7 * torch.randn(windows, 1, 1, generator=generator, dtype=torch.float64)).exp()
    return covariances(volatility * noise @ torch.linalg.cholesky(correlation).mT)
