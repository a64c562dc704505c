"""Operations on the hyperboloid and the ball: ours eager and compiled, geoopt's, and a copy of the same bytes.

    python benchmarks/hyperbolic.py [--quick]

100,000 points with 65 coordinates (hyperboloid) or 64 (ball), float32, one thread. The floor of an operation reads its
inputs once and writes its outputs once. Every contender's largest error against float64 is printed beside its time.
"""

from common import Contender, Line, environment, fix_allocator, measure, publish, show

fix_allocator()

import argparse  # noqa: E402
import warnings  # noqa: E402

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from torchriemann import Lorentz, ManifoldParameter, PoincareBall  # noqa: E402
from torchriemann.optim import RiemannianAdam  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

ROWS, DIMENSION = 100_000, 64
# What each operation is aimed at, as a multiple of geoopt's eager speed: eager, and compiled.
BARS = {"expmap": (2.0, None), "logmap": (1.0, 3.0), "transport": (3.0, 3.0), "dist, backward": (0.4, 1.0)}


def arguments(manifold, rows: int) -> dict[str, Tensor]:
    """Points at radius about 1.6, tangent vectors of about that length, a cotangent for distances."""
    generator = torch.Generator().manual_seed(0)
    z = 0.2 * torch.randn(5, rows, DIMENSION, generator=generator)
    x, y = manifold.from_normal(z[0]), manifold.from_normal(z[1])
    u, v = manifold.tangent_from_frame(x, z[2]), manifold.tangent_from_frame(x, z[3])
    return {"x": x, "y": y, "u": u, "v": v}


def operations(manifold, given: dict[str, Tensor]):
    """name -> (function of tensors, its arguments)."""
    x, y, u, v = (given[name] for name in "xyuv")

    def backward(a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
        return torch.autograd.grad(manifold.dist(a, b).sum(), (a, b))

    leaves = tuple(p.clone().requires_grad_() for p in (x, y))
    return {
        "expmap": (manifold.expmap, (x, u)),
        "logmap": (manifold.logmap, (x, y)),
        "transport": (getattr(manifold, "parallel_transport", manifold.transp), (x, y, v)),  # geoopt calls it transp
        "dist": (manifold.dist, (x, y)),
        "dist, backward": (backward, leaves),
    }


def floor(name: str, given: dict[str, Tensor]):
    """A call that moves the bytes that the operation cannot do without."""
    x, y, v, out, more = (*(given[n] for n in "xyv"), torch.empty_like(given["x"]), torch.empty_like(given["x"]))
    if name == "transport":
        return lambda: torch.addcmul(x, y, v, out=out)
    if name == "dist":
        return lambda: torch.dot(x.view(-1), y.view(-1))
    if name == "dist, backward":
        return lambda: (torch.dot(x.view(-1), y.view(-1)), torch.add(x, y, out=out), torch.sub(x, y, out=more))
    return lambda: torch.add(x, y, out=out)


def error(run, truth: Tensor):
    """Largest error of the first output, relative to the largest entry of the truth."""

    def facts() -> dict[str, float]:
        out = run()
        out = out[0] if isinstance(out, tuple) else out
        return {"error": float((out.double() - truth).abs().max() / truth.abs().max())}

    return facts


def compiled(manifold, name: str, given: dict[str, Tensor], x: tuple[Tensor, ...]):
    """The operation through `torch.compile`; of the distance the forward is compiled, and with it its backward."""
    if name == "dist, backward":
        dist = torch.compile(lambda a, b: manifold.dist(a, b).sum(), fullgraph=True)
        return lambda: torch.autograd.grad(dist(*x), x)
    function = torch.compile(operations(manifold, given)[name][0], fullgraph=True)
    return lambda: function(*x)


def lines(rows: int):
    """Every operation on both models, eager and compiled."""
    pairs = ((Lorentz(), geoopt.Lorentz(), "hyperboloid"), (PoincareBall(), geoopt.PoincareBall(), "ball"))
    for ours, theirs, model in pairs:
        given = arguments(ours, rows)
        exact = operations(ours, {k: v.double() for k, v in given.items()})
        mine, peers = operations(ours, given), operations(theirs, given)
        for name, (eager_bar, compiled_bar) in {**BARS, "dist": (None, None)}.items():
            function, inputs = exact[name]
            truth = function(*inputs)
            truth = (truth[0] if isinstance(truth, tuple) else truth).detach()
            runs = {
                "eager": lambda name=name, mine=mine: mine[name][0](*mine[name][1]),
                "compiled": compiled(ours, name, given, mine[name][1]),
                "geoopt": lambda name=name, peers=peers: peers[name][0](*peers[name][1]),
            }
            for kind, bar in (("eager", eager_bar), ("compiled", compiled_bar)):
                lorentz_exp = kind == "compiled" and name == "expmap" and model == "hyperboloid"
                yield Line(
                    f"{model}, {name}, {kind}",
                    [
                        Contender("torchriemann", runs[kind], error(runs[kind], truth)),
                        # geoopt's gradient has a part in the stored time, ours stands in the space part alone.
                        Contender(
                            "geoopt", runs["geoopt"], dict if name == "dist, backward" else error(runs["geoopt"], truth)
                        ),
                        Contender("copy of the bytes", floor(name, given)),
                    ],
                    {
                        "geoopt": bar if model == "hyperboloid" else None,
                        "copy of the bytes": 1 / 1.6 if lorentz_exp else None,
                    },
                )


def many_vectors(count: int, n: int) -> Line:
    """One Adam step on separate parameters in the ball, beside torch's flat Adam."""
    ball = PoincareBall()
    start = ball.from_normal(torch.randn(count, n, generator=torch.Generator().manual_seed(0)) / n**0.5)
    slopes = torch.randn(count, n, generator=torch.Generator().manual_seed(1))

    def contender(name, make, optimizer_class, **options):
        points = [make(p.clone()) for p in start]
        for p, g in zip(points, slopes, strict=True):
            p.grad = g.clone()
        return Contender(name, optimizer_class(points, lr=1e-3, **options).step)

    theirs = geoopt.PoincareBall()
    return Line(
        f"RiemannianAdam, ball, {count} vectors of {n}",
        [
            contender("torchriemann", lambda p: ManifoldParameter(p, ball), RiemannianAdam),
            contender("geoopt", lambda p: geoopt.ManifoldParameter(p, manifold=theirs), geoopt.optim.RiemannianAdam),  # pyright: ignore[reportCallIssue]
            contender("torch foreach (flat)", torch.nn.Parameter, torch.optim.Adam, foreach=True),
        ],
        {"geoopt": 20.0, "torch foreach (flat)": None},
    )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few rows and rounds, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(environment())
    results = []
    for line in lines(2_000 if quick else ROWS):
        results.append(measure(line, rounds=5 if quick else 15, block=3))
        show(results[-1])
    results.append(measure(many_vectors(1000, 64), rounds=5 if quick else 15, block=5))
    show(results[-1])
    if not quick:
        publish("hyperbolic", results)


if __name__ == "__main__":
    main()
