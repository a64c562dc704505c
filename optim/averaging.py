"""Averages of a model's weights along training, by the geodesics of their manifolds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import swa_utils
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

from torchriemann.manifolds.base import Manifold
from torchriemann.manifolds.parameter import named_manifolds, registered_manifolds

from .entries import Entry, same_points
from .foreign import as_manifold
from .groups import check_parameter, is_flat


class AveragedModel(swa_utils.AveragedModel):
    r"""`torch.optim.swa_utils.AveragedModel` whose points stay on their manifolds.

    A flat parameter is averaged as torch does by default, or by its `get_ema_multi_avg_fn`, to the bit; a point moves
    along the geodesic from the average to the model's point,

    .. math:: \bar x \leftarrow \operatorname{geodesic}(\bar x, x, t), \qquad
        t = 1 - \mathtt{decay} \ \text{(ema)}, \quad t = 1/(n + 1) \ \text{(swa)},

    with n models averaged before. With "swa" this is the inductive mean: the arithmetic mean in flat space, and where
    the curvature is not positive, of independent draws, convergent to the Frechet mean (Sturm 2003, doi
    10.1090/conm/338/06080). The average of coordinates that torch takes leaves a sphere or a Stiefel manifold.

    The manifold of a parameter is the one that its module registered (`layers.ManifoldModule`) or its own label; one
    that only an optimizer's group knows is averaged as flat. `update_bn`, `SWALR`, ``n_averaged``, ``state_dict`` and
    ``avg_model.module`` work as torch's.

    Args:
        model: copied, parameters, labels and all.
        device: where the average is kept.
        averaging: ``"swa"``, all models alike, or ``"ema"``, the late ones more.
        decay: of ``"ema"``, in [0, 1]; 0.999 unless given.
        use_buffers: average buffers too, as torch does, and as points those that a module registered on a manifold;
            otherwise they are copied.

    A manifold without a logarithm (geoopt's `Stiefel`), and a pair of points whose geodesic is not finite (in different
    components, beyond a cut locus), are averaged by ``projx`` of the Euclidean average instead. Where several shortest
    geodesics join two points, the one of ``logmap`` is taken.

    An update costs a geodesic a point; on `Stiefel` its logarithm iterates, and an update every few steps may do.

    Raises ``ValueError`` for sharded points, for half-precision ones, and in `update_parameters`, before anything is
    changed, for a point of the model that is infinite or NaN.
    """

    def __init__(
        self,
        model: nn.Module,
        device: int | torch.device | None = None,
        *,
        averaging: str = "swa",
        decay: float | None = None,
        use_buffers: bool = False,
    ) -> None:
        if averaging not in ("swa", "ema"):
            raise ValueError(f"AveragedModel: averaging must be 'swa' or 'ema', got {averaging!r}")
        if averaging == "swa" and decay is not None:
            raise ValueError(f"AveragedModel: decay={decay} belongs to averaging='ema', got 'swa'")
        decay = 0.999 if decay is None else decay
        if not 0 <= decay <= 1:
            raise ValueError(f"AveragedModel: decay must be in [0, 1], got {decay}")
        list(_points(model, use_buffers))  # refuses what cannot be averaged before it is copied
        flat = swa_utils.get_ema_multi_avg_fn(decay) if averaging == "ema" else None
        super().__init__(model, device, multi_avg_fn=flat, use_buffers=use_buffers)
        self.averaging, self.decay = averaging, decay

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Take the present weights of `model` into the average; the first call copies them.

        `model` has the parameters of the one that was averaged first, in the same order, as in torch.
        """
        n = int(self.n_averaged)
        t = 1 - self.decay if self.averaging == "ema" else 1 / (n + 1)
        moved = self._moved(model, t)
        super().update_parameters(model)
        for point, value in moved if n > 0 else ():
            point.copy_(value)

    def _moved(self, model: nn.Module, t: float) -> list[tuple[Tensor, Tensor]]:
        """Points of the average and where they go."""
        target = dict(zip(_ids(self.module), _tensors(model), strict=False))
        moved = []
        with torch._C.DisableTorchFunctionSubclass():  # stacks of labelled parameters are plain tensors
            for batch in same_points(list(_points(self.module, self.use_buffers))):
                points = [e.parameter.detach() for e in batch]
                new = [target[id(e.parameter)].detach().to(p) for e, p in zip(batch, points, strict=True)]
                for entry, x in zip(batch, new, strict=True):
                    if not x.isfinite().all():
                        raise ValueError(
                            f"{entry.where} of the model is infinite or NaN; nothing was averaged. Mend the model, or "
                            "leave this update out"
                        )
                moved += zip(points, _average(batch[0].manifold, torch.stack(points), torch.stack(new), t), strict=True)
        return moved


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    yield from model.parameters()
    yield from model.buffers()


def _ids(model: nn.Module) -> Iterator[int]:
    return map(id, _tensors(model))


def _points(model: nn.Module, use_buffers: bool) -> Iterator[Entry]:
    """The parameters of `model` on curved manifolds, and with `use_buffers` the buffers."""
    found: list[tuple[str, Tensor, Any]] = [
        (name, p, manifold) for name, p, manifold in named_manifolds(model) if manifold is not None
    ]
    for prefix, module in model.named_modules() if use_buffers else ():
        buffers = dict(module.named_buffers(prefix, recurse=False))
        for name, manifold in registered_manifolds(module).items():
            qualified = f"{prefix}.{name}" if prefix else name
            if qualified in buffers:
                found.append((qualified, buffers[qualified], manifold))
    for name, tensor, label in found:
        where = f"AveragedModel: {name}"
        if not is_flat(as_manifold(label, where)):
            if is_traceable_wrapper_subclass(tensor):
                raise ValueError(
                    f"{where} on {label!r} is a {type(tensor).__name__}: sharded points are not averaged; "
                    "leave the module that owns it out of sharding, or average a gathered copy of the model"
                )
            yield Entry(tensor, check_parameter(tensor, label, where), where)


def _average(manifold: Manifold, x: Tensor, y: Tensor, t: float) -> Tensor:
    """The points at `t` on the geodesics from `x` to `y` (``N,*B,P``), restored from rounding."""
    try:
        moved = manifold.geodesic(x, y, t)
    except NotImplementedError:
        return manifold.projx(x.lerp(y, t))
    finite = moved.isfinite().flatten(x.dim() - manifold.ndim).all(-1) if manifold.ndim else moved.isfinite()
    finite = finite.reshape(finite.shape + (1,) * manifold.ndim)
    restored = manifold.restore(torch.where(finite, moved, x))  # x: a factorisation of NaN is an error
    if finite.all():
        return restored
    return torch.where(finite, restored, manifold.projx(x.lerp(y, t)))
