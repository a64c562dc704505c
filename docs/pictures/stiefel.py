"""Left: how far each retraction leaves the geodesic. Right: how far the logarithm can be trusted."""

import torch
from common import BLUE, GREEN, GREY, ORANGE, PINK, RED, panels, save

from torchriemann.manifolds import Stiefel


def orders(axes) -> None:
    """|R(hu) - exp(hu)| against h, both metrics."""
    torch.manual_seed(0)
    steps = torch.logspace(-2.5, 0, 26)
    x = Stiefel().random(9, 3)
    for beta, style in ((1.0, "-"), (0.5, "--")):
        exact = Stiefel(beta, "exp")
        u = exact.random_tangent(x, torch.Generator().manual_seed(1))
        u = u / exact.norm(x, u)
        for name, colour in (("qr", ORANGE), ("polar", BLUE), ("cayley", GREEN)):
            m = Stiefel(beta, name)
            gap = (m.retr(x, steps[:, None, None] * u) - exact.expmap(x, steps[:, None, None] * u)).norm(dim=(-2, -1))
            axes.loglog(steps, gap, color=colour, ls=style, label=f"{name}, beta {beta:g}, order {m.retraction_order}")
    for power, place in ((2, 0.9), (3, 0.035)):
        axes.loglog(steps, place * steps**power, color=GREY, lw=0.8, ls=":")
        axes.annotate(f"h^{power}", (float(steps[0]), float(place * steps[0] ** power)), color=GREY, size=9)
    axes.set(xlabel="length h of the step", ylabel="|R(hu) - exp(hu)|")
    axes.set_title("Retractions: the metric decides the order")
    axes.legend(fontsize=8)


def round_trips(axes) -> None:
    """Share of 100 tangents, generic and of rank one, that log(exp u) gives back, and the largest error of those."""
    fractions = torch.linspace(0.1, 1.5, 29)
    torch.manual_seed(0)
    for beta, colour in ((0.3, PINK), (0.5, GREEN), (1.0, BLUE), (1.5, RED)):
        m = Stiefel(beta)
        x = m.random(100, 8, 3)
        u = m.random_tangent(x)
        u[50:] = m.proju(x[50:], u[50:, :, :1] @ torch.randn(50, 1, 3))
        u = u / m.norm(x, u, keepdim=True)
        kept = []
        for fraction in fractions.tolist():
            v = fraction * m.injectivity_radius(x) * u
            error = m.norm(x, m.logmap(x, m.expmap(x, v)) - v) / m.norm(x, v)
            kept.append(100 * float((error < 1e-10).double().mean()))
        axes.plot(fractions, kept, color=colour, label=f"beta {beta:g}, radius {m.injectivity_radius(x):.2f}")
    axes.axvline(1, color=GREY, ls=":", lw=1)
    axes.set(xlabel="|u| / injectivity_radius()", ylabel="log(exp u) = u to 1e-10, % of 100 draws", ylim=(-4, 106))
    axes.set_title("The logarithm on frames of 3 vectors in R^8")
    axes.legend(loc="lower left", fontsize=9)


def main() -> None:
    torch.set_num_threads(1)
    figure, (left, right) = panels(2)
    orders(left)
    round_trips(right)
    save(figure, "stiefel")


if __name__ == "__main__":
    main()
