"""Derivatives of batch normalisation: through the statistics, and what each `stats_grad` leaves out."""

import pytest
import torch

from tests.layers.test_normalization import F64, layer, points
from torchriemann.manifolds import (
    CorrelationLogScaled,
    CorrelationOffLog,
    CorrelationPolyHyperbolic,
    Euclidean,
    Grassmann,
    Klein,
    Lorentz,
    PoincareBall,
    ProjectedSphere,
    SPDAffineInvariant,
    SPDBuresWasserstein,
    SPDLogCholesky,
    SPDLogEuclidean,
    SpecialOrthogonal,
    Sphere,
)
from torchriemann.manifolds.mean_start import mean_guess

AFFINE = SPDAffineInvariant()


def close(got, want, bound=1e-10):
    torch.testing.assert_close(got, want, rtol=bound, atol=bound)


@pytest.mark.parametrize(
    ("manifold", "shape", "std", "options"),
    [
        (Euclidean(), (3,), 1.0, {}),
        (SPDLogCholesky(), (3, 3), 0.4, {}),
        (SPDLogEuclidean(), (2, 2), 0.4, {"num_domains": 2}),
        (Lorentz(-0.7), (3,), 0.5, {"stats_grad": "implicit"}),
        (Sphere(1.3), (3,), 0.15, {"stats_grad": "implicit", "num_domains": 2}),
        (AFFINE, (2, 2), 0.4, {"stats_grad": "implicit"}),
        (AFFINE, (2, 2), 0.4, {"stats_grad": "implicit", "form": "tangent"}),
        (AFFINE, (2, 2), 0.4, {"stats_grad": "implicit", "form": "basis"}),
        (SPDBuresWasserstein(), (2, 2), 0.1, {"stats_grad": "implicit", "form": "tangent"}),
        (PoincareBall(-0.7), (2,), 0.5, {"stats_grad": "implicit"}),
        (Klein(-0.7), (2,), 0.5, {"stats_grad": "implicit"}),
        (ProjectedSphere(1.3), (2,), 0.15, {"stats_grad": "implicit"}),
        (Grassmann(), (3, 1), 0.1, {"stats_grad": "implicit"}),
        (SpecialOrthogonal(), (3, 3), 0.2, {"stats_grad": "implicit", "form": "basis"}),
        (CorrelationOffLog(), (3, 3), 0.3, {}),
        (CorrelationLogScaled(), (3, 3), 0.3, {}),
        (CorrelationPolyHyperbolic(), (3, 3), 0.3, {"stats_grad": "implicit"}),
    ],
)
def test_derivatives_through_the_statistics(manifold, shape, std, options):
    """ "last_step" is exact on vector spaces, "implicit" everywhere; of the points along the manifold."""
    steps = None if options.get("stats_grad") else 1
    norm = layer(manifold, shape, karcher_steps=steps, **options)
    x = points(manifold, 5, *shape, std=std)
    domain = torch.tensor([0, 1, 1, 0, 1]) if "num_domains" in options else None
    u = torch.zeros_like(x).requires_grad_()

    def output(u, scale, bias):
        state = {"scale": scale, "bias": bias}
        moved = manifold.expmap(x, manifold.proju(x, u))
        return torch.func.functional_call(norm, state, (moved, domain))

    assert torch.autograd.gradcheck(output, (u, norm.scale, norm.bias), fast_mode=True)


@pytest.mark.parametrize(
    ("manifold", "shape", "std", "loss"), [(Lorentz(), (4,), 0.3, 0.05), (AFFINE, (3, 3), 0.4, 0.02)]
)
def test_the_last_step_leaves_out_what_curvature_adds(manifold, shape, std, loss):
    """Measured: a few hundredths of the gradient, and of the one of detached statistics several tenths."""
    x = points(manifold, 20, *shape, std=std)
    w = torch.randn(20, *shape, generator=torch.Generator().manual_seed(0), dtype=F64)

    def gradient(stats_grad):
        norm, leaf = layer(manifold, shape, karcher_steps=None, stats_grad=stats_grad), x.clone().requires_grad_()
        return manifold.egrad2rgrad(x, torch.autograd.grad((w * norm(leaf)).sum(), leaf)[0])

    exact, last, detached = map(gradient, ("implicit", "last_step", "detach"))

    def missing(g):
        return (manifold.inner(x, g - exact).sum() / manifold.inner(x, exact).sum()).sqrt()

    assert missing(last) < loss
    assert missing(detached) > 0.15


@pytest.mark.parametrize("stats_grad", ["last_step", "detach"])
@pytest.mark.parametrize(("manifold", "shape"), [(AFFINE, (2, 2)), (Lorentz(-0.7), (3,))])
def test_derivatives_with_the_start_of_the_step_or_the_statistics_held_fixed(manifold, shape, stats_grad):
    """Those of the formula, in which these are numbers; which are right by finite differences."""
    norm, x = layer(manifold, shape, stats_grad=stats_grad), points(manifold, 6, *shape, std=0.4)
    detached, bias = stats_grad == "detach", norm.point("bias").detach()
    start = mean_guess(manifold, x, torch.full((6,), 1 / 6, dtype=F64))

    def statistics(x):
        mean = manifold.expmap_frame(start, manifold.logmap_frame(start, x).mean(0))
        return mean, manifold.dist2(mean, x).mean()

    known = statistics(x)

    def output(u):
        moved = manifold.expmap(x, manifold.proju(x, u))
        mean, variance = known if detached else statistics(moved)
        factor = norm.scale.detach().exp() / (variance + 1e-5).sqrt()
        return manifold.expmap_frame(bias, factor * manifold.logmap_frame(mean, moved))

    u, w = torch.zeros_like(x).requires_grad_(), torch.randn_like(x)
    assert torch.autograd.gradcheck(output, (u,), fast_mode=True)
    got = norm(manifold.expmap(x, manifold.proju(x, u)))
    close(got, output(u))
    close(*(torch.autograd.grad((w * y).sum(), u)[0] for y in (got, output(u))))


def test_detached_statistics_are_constants():
    norm, x = layer(AFFINE, (3, 3), stats_grad="detach", momentum=1.0), points(AFFINE, 9, 3, 3, std=0.4)
    x.requires_grad_()
    w = torch.randn(9, 3, 3, dtype=F64)
    got = torch.autograd.grad((w * norm(x)).sum(), x)[0]
    close(got, torch.autograd.grad((w * norm.eval()(x)).sum(), x)[0])
