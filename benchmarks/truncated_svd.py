"""Rows appended to a truncated singular value decomposition: by products of factors, by turning the frames, anew.

    python benchmarks/truncated_svd.py [--quick]

A call appends k rows to a decomposition of rank k of a matrix of n rows and n columns, r at a time: so many as after
which `ProductSVD` makes its frames orthonormal. The peer that starts anew is `torch.svd_lowrank` of the whole for each
r rows; one is timed, and multiplied by their number. Drift is max|x^T x - 1| of both frames at the end.
"""

from common import Contender, Line, fix_allocator, measure, publish, show

fix_allocator()

import argparse  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402

import torch  # noqa: E402

from torchriemann.manifolds import ProductSVD, TruncatedSVD  # noqa: E402

torch.set_num_threads(1)
SIZES = [(n, k, r) for n in (1_000, 10_000, 50_000) for k in (16, 64) for r in (1, 4)]
WHOLE = 2_000  # rows and columns of the largest matrix that is decomposed anew


def start(n: int, k: int) -> TruncatedSVD:
    generator = torch.Generator().manual_seed(0)
    u, v = (torch.linalg.qr(torch.randn(n, k, generator=generator))[0] for _ in range(2))
    return TruncatedSVD(u, torch.linspace(10, 1, k), v)


def contender(name: str, svd, rows) -> Contender:
    """Appends all rows, to the same decomposition in every call."""
    last = [svd]

    def run():
        moved = svd
        for some in rows:
            moved = moved.append_rows(some)
        last[0] = moved

    def facts():
        frames = (last[0].u.double(), last[0].v.double())
        off = (x.mT @ x - torch.eye(x.shape[-1], dtype=torch.double) for x in frames)
        return {"drift": max(e.abs().max().item() for e in off)}

    return Contender(name, run, facts)


def line(n: int, k: int, r: int) -> Line:
    svd = start(n, k)
    rows = torch.randn(k // r, r, n, generator=torch.Generator().manual_seed(1)) / n**0.5
    contenders = [contender("ProductSVD", ProductSVD.of(svd), rows), contender("TruncatedSVD", svd, rows)]
    return Line(f"{n} x {n}, rank {k}, {r} row{'s' * (r > 1)} at a time", contenders, {"TruncatedSVD": None})


def anew(n: int, k: int, r: int, repeats: int = 5) -> dict[str, float]:
    """Milliseconds of k/r decompositions of the whole."""
    whole = start(n, k).to_matrix()
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        torch.svd_lowrank(whole, q=k)
        times.append(1e3 * (time.perf_counter() - before) * (k // r))
    low, median, high = statistics.quantiles(times, n=4)
    return {"median_ms": median, "q1_ms": low, "q3_ms": high}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    found = []
    for n, k, r in SIZES[:4] if quick else SIZES:
        result = measure(line(n, k, r), rounds=3 if quick else 7, block=3)
        if n <= WHOLE:
            name, ours = "torch.svd_lowrank of the whole", result["contenders"]["ProductSVD"]["median_ms"]
            result["contenders"][name] = anew(n, k, r)
            result["ratios"][name] = {"ratio": result["contenders"][name]["median_ms"] / ours, "bar": None}
        show(result)
        found.append(result)
    if not quick:
        publish("truncated_svd", found)


if __name__ == "__main__":
    main()
