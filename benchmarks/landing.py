"""One step of LandingSGD against steps that end on the manifold: ours by the polar and the QR factor, and geoopt's.

    python benchmarks/landing.py [--quick]

A step is `optimizer.step()` with gradients at hand, those of one fixed linear function f(x) = <c, x>, so that every
contender runs the same problem. Printed beside the time: the loss at the nearest frame after the timed steps, and how
far the frames themselves are off, max|x^T x - 1|, which only LandingSGD leaves open.
"""

from common import Contender, Line, environment, fix_allocator, measure, publish, show, table

fix_allocator()

import argparse  # noqa: E402
import warnings  # noqa: E402

import torch  # noqa: E402

from torchriemann import ManifoldParameter  # noqa: E402
from torchriemann.manifolds import Stiefel  # noqa: E402
from torchriemann.optim import LandingSGD, RiemannianSGD  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

LR = 1e-3  # LandingSGD's direction is half of the canonical gradient: it takes twice that


def contender(name, optimizer_class, make, problem, **options):
    """A contender that steps its own copy of the problem: `count` frames n x p with gradients of length sqrt(p)."""
    count, n, p = problem
    generator = torch.Generator().manual_seed(0)
    params = []
    for _ in range(count):
        frame = torch.linalg.qr(torch.randn(n, p, generator=generator))[0].contiguous()
        params.append(make(frame))
        params[-1].grad = torch.randn(n, p, generator=generator) / n**0.5
    optimizer = optimizer_class(params, lr=2 * LR if optimizer_class is LandingSGD else LR, **options)

    def facts():
        points = torch.stack([p.detach().double() for p in params])
        drift = (points.mT @ points - torch.eye(p, dtype=torch.double)).abs().max().item()
        u, _, v = torch.linalg.svd(points, full_matrices=False)
        loss = torch.stack([(x * p.grad).sum() for x, p in zip(u @ v, params, strict=True)]).mean().item()
        return {"loss": loss, "drift": drift}

    return Contender(name, optimizer.step, facts)


def line(shown, problem, momentum):
    """LandingSGD, and what it is compared with: torch's flat SGD is what a step costs without geometry."""
    options = {"momentum": momentum}
    contenders = [
        contender("LandingSGD", LandingSGD, lambda x: ManifoldParameter(x, Stiefel()), problem, **options),
        *(
            contender(
                f"RiemannianSGD, {retraction}",
                RiemannianSGD,
                lambda x, r=retraction: ManifoldParameter(x, Stiefel(0.5, r)),
                problem,
                **options,
            )
            for retraction in ("polar", "qr")
        ),
        contender(
            "geoopt",
            geoopt.optim.RiemannianSGD,
            lambda x: geoopt.ManifoldParameter(x, manifold=geoopt.EuclideanStiefel()),  # pyright: ignore[reportCallIssue]
            problem,
            **options,
        ),
        contender("torch foreach (flat)", torch.optim.SGD, torch.nn.Parameter, problem, foreach=True, **options),
    ]
    return Line(f"{shown}, momentum {momentum:g}", contenders, {c.name: None for c in contenders[1:]})


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(environment())
    results = []
    problems = {
        "200 of 64x16": ((200, 64, 16), 10),
        "one 512x64": ((1, 512, 64), 10),
        "one 1024x512": ((1, 1024, 512), 2),
    }
    for shown, (problem, block) in problems.items():
        for momentum in (0.0, 0.9):
            results.append(measure(line(shown, problem, momentum), rounds=5 if quick else 25, block=block))
            show(results[-1])
    if not quick:
        publish("landing", results)
        print("\n" + table("landing"))


if __name__ == "__main__":
    main()
