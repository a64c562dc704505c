"""Laws of means and of sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .trial import Trial, law

DEVIATIONS = 5.0  # standard errors: one false alarm in 1.7 million comparisons


def _cloud(t: Trial, count: int, centre: Tensor) -> Tensor:
    """Points in a ball that is small enough for a unique mean."""
    x = centre.expand(count, *centre.shape)
    return t.manifold.expmap(x, 0.3 * t.tangent(x) * torch.rand((), generator=t.generator, dtype=t.dtype))


@law("means", float64=1e-8, float32=1e-4, examples=5)
def frechet_mean_balances_logarithms(t: Trial) -> None:
    """sum_i w_i log_mu(x_i) = 0 with and without weights, over any batch; zero weights drop points; scaling all
    weights changes nothing; the mean of equal points is that point; karcher_residual agrees."""
    m = t.manifold
    x = _cloud(t, 4, t.point())
    w = torch.rand((4, *t.batch), generator=t.generator, dtype=t.dtype) + 0.1
    ones = (1,) * m.ndim
    for weights in (None, w):
        mu = m.frechet_mean(x, weights)
        t.is_point(mu, "the mean")
        full = torch.ones_like(w) if weights is None else weights
        full = (full / full.sum(0)).reshape(w.shape + ones)
        balance = m.norm(mu, (full * m.logmap(mu, x)).sum(0))
        t.small(balance, "sum of logarithms")
        t.close(m.karcher_residual(x, mu, weights), balance, "karcher_residual")
    t.same(m.frechet_mean(x, 7 * w), m.frechet_mean(x, w), "weights are normalised")
    one = w.reshape(4, -1)[:, 0]
    spread = one.reshape(4, *(1,) * len(t.batch)).expand_as(w)
    t.same(m.frechet_mean(x, one), m.frechet_mean(x, spread), "one weight for all items")
    dropped = torch.cat([w[:-1], torch.zeros_like(w[:1])])
    t.same(m.frechet_mean(x, dropped), m.frechet_mean(x[:-1], w[:-1]), "a zero weight")
    t.same(m.frechet_mean(x[:1].expand_as(x)), x[0], "equal points")


@law("means", float64=1e-8, float32=1e-4, examples=5)
def frechet_mean_of_two_lies_on_their_geodesic(t: Trial) -> None:
    """The mean of x and y is the midpoint, with weights (1 - s, s) the point g(s), in either order."""
    m, x = t.manifold, t.point()
    y = t.near(x)
    pair = torch.stack([x, y])
    t.same(m.frechet_mean(pair), m.midpoint(x, y), "midpoint")
    weights = torch.tensor([0.7, 0.3], dtype=t.dtype)
    t.same(m.frechet_mean(pair, weights), m.geodesic(x, y, 0.3), "weights")
    t.same(m.frechet_mean(pair.flip(0), weights.flip(0)), m.geodesic(x, y, 0.3), "order")


@law("means", float64=1e-8, float32=1e-4, examples=5, needs="isometries")
def frechet_mean_is_equivariant(t: Trial) -> None:
    """mean(f(x_i)) = f(mean(x_i)) for the isometries of the case."""
    m, x = t.manifold, _cloud(t, 4, t.point())
    maps = t.isometries()
    t.require(maps, "the case lists no isometries")
    for name, f in maps.items():
        t.same(m.frechet_mean(f(x)), f(m.frechet_mean(x)), name)


@law("means", float64=1e-6, examples=1, exact=False)
def frechet_mean_has_its_implicit_gradient(t: Trial) -> None:
    """The gradient of a function of the mean, in the points and in the weights, is its difference quotient."""
    m = t.manifold
    x = _cloud(t, 4, t.point()).detach().requires_grad_()
    w = (torch.rand((4, *t.batch), generator=t.generator, dtype=t.dtype) + 0.5).requires_grad_()
    probe = t.noise(*t.case.invariant(x[0]).shape)

    def value(points: Tensor, weights: Tensor) -> Tensor:
        return (probe * t.case.invariant(m.frechet_mean(m.projx(points), weights, tol=1e-14))).sum()

    gx, gw = torch.autograd.grad(value(x, w), (x, w))
    dx, dw = t.direction(x.detach()), t.noise(*w.shape) * 0.1  # of length one: a step may leave a model with a rim
    with torch.no_grad():
        h = 1e-3
        shifts = {k: float(value(x + k * h * dx, w + k * h * dw)) for k in (-2, -1, 1, 2)}
    quotient = (8 * (shifts[1] - shifts[-1]) - (shifts[2] - shifts[-2])) / (12 * h)
    got = (gx * dx).sum() + (gw * dw).sum()
    t.close(got, torch.tensor(quotient, dtype=t.dtype), "implicit gradient")


@law("means", float64=1e-8, float32=1e-4, examples=2)
def items_of_weight_zero_are_left_out(t: Trial) -> None:
    """A NaN item and one off the manifold, of weight zero, change neither mean nor variance nor a gradient; their own
    gradient is exactly zero, that of every weight finite."""
    m, x = t.manifold, _cloud(t, 3, t.point())
    w = torch.rand((3, *t.batch), generator=t.generator, dtype=t.dtype) + 0.1
    bad = torch.stack([torch.full_like(x[0], torch.nan), t.case.off(x[0])])
    probe = t.noise(*t.case.invariant(x[0]).shape)

    def gradients(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        leaves = (x.detach().requires_grad_(), w.requires_grad_())
        mean, variance = m.frechet_mean(*leaves), m.frechet_variance(*leaves)
        total = (probe * t.case.invariant(mean)).sum() + variance.sum()
        gx, gw = torch.autograd.grad(total, leaves)
        return mean.detach(), variance.detach(), gx, gw

    mean, variance, gx, gw = gradients(x, w.clone())
    got = gradients(torch.cat([bad, x]), torch.cat([torch.zeros_like(w[:2]), w]))
    t.same(got[0], mean, "the mean")
    t.close(got[1], variance, "the variance")
    t.require((got[2][:2] == 0).all(), "the gradient of an item of weight zero is not zero")
    t.close(m.proju(x, got[2][2:]), m.proju(x, gx), "gradient in the items")
    t.close(got[3][2:], gw, "gradient in the weights")
    t.require(got[3].isfinite().all(), "the gradient in the weights is not finite")


@law("means", float64=1e-8, float32=1e-4, examples=2)
def frechet_variance_is_least_at_the_mean(t: Trial) -> None:
    """frechet_variance is the weighted mean of squared distances, no less from a point near the mean; the mean is the
    same whatever the order of the points and wherever the search starts."""
    m, x = t.manifold, _cloud(t, 4, t.point())
    w = torch.rand((4, *t.batch), generator=t.generator, dtype=t.dtype) + 0.1
    mean, least = m.frechet_mean(x, w), m.frechet_variance(x, w)
    t.close(least, (w / w.sum(0) * m.dist2(mean, x)).sum(0), "weighted mean of squares")
    t.close(m.frechet_variance(x, w, mean), least, "of a mean that is given")
    other = m.expmap(mean, 0.1 * t.tangent(mean))
    t.require(
        (m.frechet_variance(x, w, other) >= least - t.bound).all(),
        "the variance around another point is less than around the mean",
    )
    t.same(m.frechet_mean(x.flip(0), w.flip(0)), mean, "another order")
    t.same(m.frechet_mean(x, w, start=x[1]), mean, "another start")


# ---- sampling -------------------------------------------------------------------------------------------------


def _samplers(t: Trial):
    samplers = {"random": t.manifold.random, "random_normal": t.manifold.random_normal}
    if "random_uniform" not in t.case.missing:
        samplers["random_uniform"] = t.manifold.random_uniform
    return samplers


@law("sampling", float64=1e-9, float32=1e-5, examples=3)
def samples_are_points_of_the_asked_kind(t: Trial) -> None:
    """random, random_uniform, random_normal and origin give points of the whole shape and dtype asked for; the same
    generator state gives the same points, another one others; the global generator is left alone when a generator is
    given, and obeyed when none is."""
    m, size = t.manifold, (*t.batch, *t.shape)
    o = m.origin(*size, dtype=t.dtype)
    t.is_point(o, "origin")
    t.require(o.shape == size and o.dtype == t.dtype, "the origin has another shape or dtype than was asked for")
    for name, draw in _samplers(t).items():
        g = torch.Generator().manual_seed(t.seed)
        state = torch.random.get_rng_state()
        x = draw(*size, generator=g, dtype=t.dtype)
        t.require(
            torch.equal(torch.random.get_rng_state(), state),
            f"{name} moves the global generator, though it was given another",
        )
        asked = type(x) is Tensor and x.shape == size and x.dtype == t.dtype
        t.require(asked, f"{name} gives no tensor of the shape and dtype asked for")
        t.require(x.is_contiguous() and not x.requires_grad, f"{name} gives a view, or a graph")
        t.is_point(x, name)
        again = draw(*size, generator=g.manual_seed(t.seed), dtype=t.dtype)
        t.require(torch.equal(x, again), f"{name} does not repeat itself from one seed")
        if m.dimension(t.shape) > 0:
            t.require(
                not torch.equal(x, draw(*size, generator=g, dtype=t.dtype)), f"{name} draws the same points again"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(t.seed)
            first = draw(*size, dtype=t.dtype)
            torch.manual_seed(t.seed)
            t.require(torch.equal(first, draw(*size, dtype=t.dtype)), f"{name} does not obey the global seed")
        t.require(draw(0, *t.shape, dtype=t.dtype).shape == (0, *t.shape), f"{name} of no point has another shape")


@law("sampling", examples=1, needs="isometries")
def uniform_law_is_invariant(t: Trial) -> None:
    """random_uniform is the law that no isometry changes: mean of every entry zero within five standard errors,
    entries negative as often as positive, and two-sample Kolmogorov-Smirnov distances between entries of x and of
    f(x') below the 1e-6 quantile."""
    m, maps, count = t.manifold, t.isometries(), t.case.samples
    t.require(maps, "the case lists no isometries")
    x = m.random_uniform(count, *t.shape, generator=t.generator, dtype=t.dtype)
    other = m.random_uniform(count, *t.shape, generator=t.generator, dtype=t.dtype)
    flat = t.flat(x)
    error = flat.std(0) / count**0.5
    t.small(flat.mean(0) / error, "mean of entries, in standard errors", bound=DEVIATIONS)
    signs = (flat < 0).to(t.dtype).mean(0) - 0.5
    t.small(signs * 2 * count**0.5, "share of negative entries, in standard errors", bound=DEVIATIONS)
    critical = math.sqrt(-0.5 * math.log(1e-6 / 2) * 2 / count)
    for name, f in maps.items():
        for label, of in (("x", lambda a: a), ("invariant", t.case.invariant)):
            a, b = t.flat(of(x)), t.flat(of(f(other)))
            if float(a.std(0).amin()) > 1e-6:
                t.small(_kolmogorov_smirnov(a, b), f"{name}, {label}: KS distance", bound=critical)


def _kolmogorov_smirnov(a: Tensor, b: Tensor) -> Tensor:
    a, b = a.mT.contiguous().sort().values, b.mT.contiguous().sort().values
    both = torch.cat([a, b], -1)
    share = [torch.searchsorted(s, both, right=True).to(a.dtype) / s.shape[-1] for s in (a, b)]
    return (share[0] - share[1]).abs().amax(-1)


@law("sampling", examples=1)
def tangent_samples_are_standard_normal(t: Trial) -> None:
    """random_tangent has mean zero and covariance I in an orthonormal basis, entry by entry within five standard
    errors."""
    m, x, count = t.manifold, t.point(()), t.case.samples
    u = m.random_tangent(x.expand(count, *x.shape), generator=t.generator)
    t.is_tangent(x, u, "random_tangent")
    z = m.to_coordinates(x, u)
    t.small(z.mean(0) * count**0.5, "mean, in standard errors", bound=DEVIATIONS)
    d = z.shape[-1]
    covariance = z.mT @ z / count
    error = (torch.ones(d, d, dtype=t.dtype) + torch.eye(d, dtype=t.dtype)) / count
    t.small((covariance - torch.eye(d, dtype=t.dtype)) / error.sqrt(), "covariance, in standard errors", DEVIATIONS)


@law("sampling", examples=1)
def normal_samples_honour_mean_and_spread(t: Trial) -> None:
    """E |log_mu x|^2 = d std^2 within five standard errors for random_normal(mean=mu, std), std a number or a tensor
    over the batch; without a mean it is centred at the origin."""
    m, mu, count = t.manifold, t.point(()), t.case.samples
    d = m.dimension(t.shape)
    cap = 0.15 * t.radius(mu) / d**0.5
    for std in (cap, cap / 10):
        for centre in (mu, None):
            x = m.random_normal(count, *t.shape, mean=centre, std=std, generator=t.generator, dtype=t.dtype)
            middle = m.origin(*t.shape, dtype=t.dtype) if centre is None else centre
            square = m.dist2(middle, x) / std**2
            t.small((square.mean() - d) / math.sqrt(2 * d / count), f"std {std:.3g}, in standard errors", DEVIATIONS)
    stds = torch.linspace(0.01, 1, count, dtype=t.dtype) * cap
    x = m.random_normal(count, *t.shape, mean=mu, std=stds, generator=t.generator, dtype=t.dtype)
    square = m.dist2(mu, x) / stds.square()
    t.small((square.mean() - d) / math.sqrt(2 * d / count), "a tensor std, in standard errors", DEVIATIONS)
