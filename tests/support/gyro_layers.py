"""Gyro layers in a state that no start is."""

import torch

DOUBLE = {"dtype": torch.float64}


def moved(layer, seed=0):
    """The layer with base points, directions and biases that are not where it starts."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=draw, **DOUBLE))
    for name, space in (("base_point", layer.manifold), ("bias", getattr(layer, "_target", None))):
        if getattr(layer, name, None) is not None:
            shape = layer.point(name).shape
            z = torch.randn(*shape[: -space.ndim], *space.normal_shape(shape[-space.ndim :]), generator=draw, **DOUBLE)
            layer.set_point(name, space.from_normal(0.5 * z))
    return layer
