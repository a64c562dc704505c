"""The polar factor of x + u for a frame x and a tangent vector u, from its Gram matrix, with its closed derivative."""

from __future__ import annotations

import torch
from torch import Tensor

from .decompositions import eigh_of_plain
from .frames import forgets_directions, free_to_look, inverse_root, polish, too_long
from .near_identity import inverse_root_near_identity
from .nearest_frame import nearest_frame, nearest_frame_derivative


def polar_step(w: Tensor) -> Tensor:
    """w (w^T w)^-1/2 of w = x + u, the frame nearest to w. ``*B,n,p -> *B,n,p``; long u as in `cholesky_qr`."""
    gram = w.mT @ w
    look = free_to_look(gram)
    root = inverse_root_near_identity(gram) if look else None
    if root is not None:
        return w @ root
    if look and too_long(gram, float(gram.amax())):
        return nearest_frame(w)
    root = inverse_root(gram, torch.finfo(w.dtype).eps ** 0.5)
    if not look:
        root = torch.where(forgets_directions(gram), torch.nan, root)
    return polish(w @ root)  # squares what is left of the error


def polar_step_backward(G: Tensor, w: Tensor) -> tuple[Tensor]:
    """The derivative, which is self-adjoint, along G (`nearest_frame`). With w^T w = V diag(s^2) V^T the frame is
    ``P = w V diag(1/s) V^T``. ``*B,n,p``."""
    gram = w.mT @ w
    if free_to_look(gram) and too_long(gram, float(gram.amax())):
        return (nearest_frame_derivative(G, w),)
    square, V = eigh_of_plain(gram)
    s = square.sqrt()
    inverse = (V / s.unsqueeze(-2)) @ V.mT
    frame = w @ inverse
    overlap = frame.mT @ G
    turn = V.mT @ (overlap - overlap.mT) @ V / (s.unsqueeze(-1) + s.unsqueeze(-2))
    return (frame @ (V @ turn @ V.mT - overlap @ inverse) + G @ inverse,)
