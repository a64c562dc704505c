"""What an operation costs in launches, which does not depend on the machine: alone, and with the backward pass."""

import pytest
import torch

from torchriemann import Klein, Lorentz, PoincareBall, ProjectedSphere, Sphere, Stereographic
from torchriemann.testing import Launches, count_launches

OPERATIONS = ("dist", "logmap", "expmap", "retr", "parallel_transport")
# Of each operation: forward without derivatives, and with the backward pass to all arguments.
MOST = {
    Sphere(): ((16, 30), (33, 75), (11, 25), (8, 21), (50, 129)),
    Lorentz(): ((31, 56), (41, 79), (23, 44), (23, 44), (51, 217)),
    PoincareBall(): ((18, 34), (29, 59), (38, 80), (38, 80), (32, 79)),
    PoincareBall(retraction="projective"): ((18, 34), (29, 59), (38, 80), (24, 48), (32, 79)),
    ProjectedSphere(): ((73, 170), (130, 410), (45, 86), (45, 86), (197, 655)),
    Stereographic(-0.5): ((18, 34), (29, 59), (38, 80), (38, 80), (32, 79)),
    Klein(): ((33, 81), (34, 126), (63, 95), (63, 95), (39, 92)),
}
CASES = [
    pytest.param(m, name, most, id=f"{m!r}-{name}")
    for m, row in MOST.items()
    for name, most in zip(OPERATIONS, row, strict=True)
]


@pytest.mark.parametrize(("m", "name", "most"), CASES)
def test_launches(m, name, most):
    generator = torch.Generator().manual_seed(0)
    z = 0.4 * torch.randn(4, 64, 5, generator=generator)
    x, y = m.from_normal(z[0]), m.from_normal(z[1])
    u, v = m.tangent_from_frame(x, z[2]), m.tangent_from_frame(x, z[3])
    tensors = {"expmap": (x, u), "retr": (x, u), "parallel_transport": (x, y, v)}.get(name, (x, y))
    found = count_launches(getattr(m, name), *tensors)
    assert found[0] <= most[0] and found[1] <= most[1], found


def test_views_are_no_launches():
    x = torch.ones(4, 3)
    with Launches() as launches:
        y = x.view(3, 4).mT[1:].unsqueeze(0).detach()
        torch.where(y > 0, 1.0, y)
    assert launches.count == 3 and launches.calls["aten.scalar_tensor.default"] == 1
    assert count_launches(lambda a, b: a * b, x, x) == (1, 3)
