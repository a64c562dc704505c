"""One optimizer step: ours, geoopt's, and torch's Adam on the same tensors as the floor.

    python benchmarks/optimizers.py [--quick]

A step is `optimizer.step()` with gradients at hand; counted is the time of its one thread on the processor. Gradients
are those of one fixed linear function f(x) = <c, x>, so that every contender runs the same problem; its mean value
after the timed steps is printed as the loss.
"""

from common import Contender, Line, environment, fix_allocator, measure, publish, show, table

fix_allocator()

import argparse  # noqa: E402
import time  # noqa: E402
import warnings  # noqa: E402

import torch  # noqa: E402

from torchriemann import ManifoldParameter, Sphere  # noqa: E402
from torchriemann.manifolds import Stiefel  # noqa: E402
from torchriemann.optim import RiemannianAdam, RiemannianSGD  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import geoopt

LR = 1e-3


def parameters(make, count, shape):
    """`count` parameters of `shape`, made by `make` from orthonormal frames or unit vectors, and their gradients."""
    generator = torch.Generator().manual_seed(0)
    params = []
    for _ in range(count):
        start = torch.randn(shape, generator=generator)
        frame = torch.linalg.qr(start)[0].contiguous() if len(shape) > 1 else start / start.norm()
        params.append(make(frame))
        params[-1].grad = torch.randn(shape, generator=generator)
    return params


def contender(name, optimizer_class, make, problem, **options):
    """A contender that steps its own copy of the problem, with its loss and its distance from the manifold."""
    params = parameters(make, *problem)
    optimizer = optimizer_class(params, lr=LR, **options)

    def facts():
        with torch.no_grad():
            loss = torch.stack([(p * p.grad).sum() for p in params]).mean().item()
            points = torch.stack([p.double() for p in params])
            points = points if len(problem[1]) > 1 else points.unsqueeze(-1)
            drift = (points.mT @ points - torch.eye(points.shape[-1], dtype=torch.double)).abs().max().item()
        return {"loss": loss, "drift": drift}

    return Contender(name, optimizer.step, facts)


def line(name, problem, ours, theirs, bar, *, sgd=False, floor_bar=None):
    """Ours against geoopt, and torch's flat Adam (or SGD) as the floor: what a step costs without geometry."""
    options = {"momentum": 0.9} if sgd else {}
    mine, peer = (RiemannianSGD, geoopt.optim.RiemannianSGD) if sgd else (RiemannianAdam, geoopt.optim.RiemannianAdam)
    flat = torch.optim.SGD if sgd else torch.optim.Adam
    contenders = [
        contender("torchriemann", mine, lambda x: ManifoldParameter(x, ours), problem, **options),
        contender("geoopt", peer, lambda x: geoopt.ManifoldParameter(x, manifold=theirs), problem, **options),  # pyright: ignore[reportCallIssue]
        contender("torch foreach (flat)", flat, torch.nn.Parameter, problem, foreach=True, **options),
    ]
    return Line(name, contenders, {"geoopt": bar, "torch foreach (flat)": floor_bar})


def lines():
    """The claims. Stiefel with its default retraction, and with the QR one, which is also what geoopt uses."""
    euclidean, canonical = geoopt.EuclideanStiefel(), geoopt.CanonicalStiefel()
    many, one, batch = (200, (64, 16)), (1, (512, 64)), (1, (1000, 64, 8))
    for sgd in (False, True):
        kind = "RiemannianSGD" if sgd else "RiemannianAdam"
        for retraction in ("polar", "qr"):
            stiefel, half = Stiefel(retraction=retraction), Stiefel(beta=0.5, retraction=retraction)
            shown = f"{kind}, Stiefel, {retraction}"
            yield line(f"{shown}, 200 of 64x16", many, stiefel, euclidean, None if sgd else 5, sgd=sgd)
            yield line(f"{shown}, one (1000, 64, 8)", batch, stiefel, euclidean, None if sgd else 2, sgd=sgd)
            yield line(f"{shown}, one 512x64", one, stiefel, euclidean, None if sgd else 1.4, sgd=sgd)
            yield line(f"{shown}, canonical, one 512x64", one, half, canonical, None if sgd else 10, sgd=sgd)
        spheres = f"{kind}, Sphere, 1000 vectors of 64"
        bars = (None, None) if sgd else (15, 1)
        yield line(spheres, (1000, (64,)), Sphere(), geoopt.Sphere(), bars[0], sgd=sgd, floor_bar=bars[1])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    print(environment())
    results = []
    for entry in lines():
        results.append(measure(entry, rounds=5 if quick else 25, block=10, clock=time.thread_time))
        show(results[-1])
    if not quick:
        publish("optimizers", results)
        print("\n" + table("optimizers"))


if __name__ == "__main__":
    main()
