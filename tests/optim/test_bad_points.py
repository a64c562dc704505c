"""A step with a gradient or a point that is not finite: that point is lost, and no other feels it."""

import pytest
import torch

from torchriemann import ManifoldParameter
from torchriemann.manifolds import Grassmann, Power, SpecialOrthogonal, Sphere, Stiefel
from torchriemann.manifolds.constant_curvature.lorentz import Lorentz
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall
from torchriemann.optim import LandingSGD, RiemannianAdam, RiemannianSGD

F64 = torch.float64
OPTIMIZERS = {
    "sgd": lambda p: RiemannianSGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: RiemannianAdam(p, lr=0.1),
    "landing": lambda p: LandingSGD(p, lr=0.1, momentum=0.9),
}
SPACES = {
    Stiefel(): (12, 5),
    Stiefel(1.0, "qr"): (12, 5),
    Stiefel(0.5, "exp"): (12, 5),
    Grassmann(): (12, 5),
    SpecialOrthogonal(): (6, 6),
    Sphere(): (4,),
    Lorentz(): (4,),
    PoincareBall(): (3,),
    Power(Stiefel(), 2): (2, 4, 2),
}
STEPPED = [(name, m) for m in SPACES for name in OPTIMIZERS if name != "landing" or isinstance(m, Stiefel)]


def trained(make, m, shape, *, stacked, spoil=None, bad=torch.nan):
    """The three points after five steps; before the third one, number 1 of the gradients or points is spoiled."""
    generator = torch.Generator().manual_seed(0)
    start = m.random_normal(3, *shape, std=0.3, generator=generator, dtype=F64)
    parameters = [ManifoldParameter(x.clone(), m) for x in ([start] if stacked else start)]
    optimizer = make(parameters)
    for step in range(5):
        gradient = torch.randn(start.shape, generator=generator, dtype=F64)
        if step == 2 and spoil == "gradient":
            gradient[1].view(-1)[-1] = bad
        if step == 2 and spoil == "point":
            with torch.no_grad():
                (parameters[0][1] if stacked else parameters[1]).view(-1)[-1] = bad
        for p, g in zip(parameters, [gradient] if stacked else gradient, strict=True):
            p.grad = g.clone()
        optimizer.step()
    return parameters[0].detach() if stacked else torch.stack([p.detach() for p in parameters])


@pytest.mark.parametrize("stacked", [True, False], ids=["one parameter", "three parameters"])
@pytest.mark.parametrize("name, m", STEPPED, ids=repr)
def test_a_bad_point_is_lost_alone(name, m, stacked):
    make, shape = OPTIMIZERS[name], SPACES[m]
    want = trained(make, m, shape, stacked=stacked)
    for bad in (torch.nan, torch.inf):
        for spoil in ("gradient", "point"):
            got = trained(make, m, shape, stacked=stacked, spoil=spoil, bad=bad)
            torch.testing.assert_close(got[[0, 2]], want[[0, 2]], rtol=0, atol=1e-12)
            assert not got[1].isfinite().all(), f"{bad} in the {spoil}"
    assert want.isfinite().all()
