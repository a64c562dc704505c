"""What every operation does with shapes, dtypes, memory and extreme numbers; manifolds as values."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import Tensor

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.gyro import is_gyro

from . import operations
from .trial import Trial, law

# Whatever a manifold overrides of these has to agree with what the base derives.
DERIVED = (
    "norm", "dist2", "dist", "cdist", "geodesic", "midpoint", "parallel_transport", "retr_transp", "transp_follow_retr",
    "transp_follow_expmap", "to_coordinates", "from_coordinates", "logdet_dexp", "frechet_mean", "karcher_residual",
)  # fmt: skip


@law("batches", float64=1e-10, float32=1e-4, examples=2)
def operations_broadcast_over_the_batch(t: Trial) -> None:
    """Every operation, for 0, 1 and 2 leading dimensions, for x alone unbatched and for crossed batches, keeps dtype
    and device and equals the loop over single items."""
    patterns = _patterns(t)
    for name, letters in operations.seen(t.case).items():
        for label, arguments in patterns.items():
            used = {k: arguments[k] for k in letters}
            batch = torch.broadcast_shapes(*(a.shape[: a.dim() - operations.trailing(t, k)] for k, a in used.items()))
            for got, want in zip(operations.call(t, name, used), _apart(t, name, used, batch), strict=True):
                t.require(got.dtype in (t.dtype, torch.bool), f"{name} gives {got.dtype}")
                t.require(got.device == want.device, f"{name} gives a tensor on {got.device}")
                t.close(got, want, f"{name}, {label}")


def _patterns(t: Trial) -> dict[str, dict[str, Tensor]]:
    two, crossed = ((1, 2), (2, 2)) if t.case.brief else ((2, 2), (2, 3))
    patterns = {f"batch {batch}": t.arguments(batch) for batch in ((), (2,), two)}
    for label, own, full in (("x unbatched", (), (2,)), ("crossed batches", (2, 1), crossed)):
        x = t.point(own)
        patterns[label] = {**t.arguments(x=x.expand(*full, *t.shape)), "x": x}
        if is_gyro(t.manifold):
            patterns[label]["p"] = t.near_origin(own)  # w is then a vector, but no tangent vector
    return patterns


def _apart(t: Trial, name: str, arguments: dict[str, Tensor], batch: tuple[int, ...]) -> list[Tensor]:
    """The results of single items. A brief row has them of one batch dimension, and takes that for other batches."""
    expanded = {}
    for letter, a in arguments.items():
        trailing = a.shape[a.dim() - operations.trailing(t, letter) :]
        expanded[letter] = a.expand((*batch, *trailing)).reshape((-1, *trailing))
    count = int(torch.Size(batch).numel())
    if t.case.brief and len(batch) != 1:
        stacked = operations.call(t, name, expanded)
    else:
        items = [operations.call(t, name, {k: a[i] for k, a in expanded.items()}) for i in range(count)]
        stacked = [torch.stack(outs) for outs in zip(*items, strict=True)]
    return [s.reshape((*batch, *s.shape[1:])) for s in stacked]


@law("batches", float64=0.0, float32=0.0, examples=2)
def empty_batches_give_empty_results(t: Trial) -> None:
    """Every operation on a batch of no points gives a result with the right, empty shape."""
    full = t.arguments((2,))
    likes = {name: operations.call(t, name, full) for name in operations.operations_of(t.case)}
    for batch in ((0,), (2, 0)):
        for name, letters in operations.operations_of(t.case).items():
            used = {k: full[k][:0].expand(*batch, *full[k].shape[1:]) for k in letters}
            for got, like in zip(operations.call(t, name, used), likes[name], strict=True):
                t.require(got.shape == (*batch, *like.shape[1:]), f"{name} of {batch} has shape {tuple(got.shape)}")
                t.require(got.dtype == like.dtype, f"{name} of {batch} has dtype {got.dtype}")


@law("batches", float64=1e-10, float32=1e-4, examples=3)
def strides_do_not_matter(t: Trial) -> None:
    """Every operation gives the same for transposed and for strided memory."""
    plain = t.arguments((3,))
    wanted = {name: operations.call(t, name, plain) for name in operations.seen(t.case)}
    for layout in ("every second entry", "batch last"):
        moved = {}
        for letter, a in plain.items():
            if layout == "batch last":
                moved[letter] = a.movedim(0, -1).contiguous().movedim(-1, 0)
            else:
                moved[letter] = torch.stack([a, torch.full_like(a, torch.nan)], -1)[..., 0]
        for name, wants in wanted.items():
            for got, want in zip(operations.call(t, name, moved), wants, strict=True):
                t.close(got, want, f"{name}, {layout}")


@law("memory", float64=0.0, float32=0.0, examples=3)
def arguments_are_never_written(t: Trial) -> None:
    """No operation changes its arguments: neither their values nor their version counters, and no output shares
    memory with an argument, so that writing to the output is safe."""
    arguments = t.arguments((3,))
    before = {k: a.clone() for k, a in arguments.items()}
    versions = {k: a._version for k, a in arguments.items()}
    for name in operations.seen(t.case):
        outputs = operations.call(t, name, arguments)
        for k, a in arguments.items():
            t.require(a._version == versions[k] and torch.equal(a, before[k]), f"{name} wrote to {k}")
        for out in outputs:
            shared = [k for k, a in arguments.items() if _overlap(a, out)]
            t.require(not shared, f"an output of {name} is a view of {shared}")


def _overlap(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr() and b.numel() > 0


@law("errors", float64=0.0, examples=1)
def operations_reject_wrong_shapes(t: Trial) -> None:
    """Every operation raises ValueError naming the class and itself, before any arithmetic, for integers, scalars,
    points of different shapes, batches that do not broadcast and shapes of no point."""
    cls = type(t.manifold).__name__
    good = t.arguments((3,))
    for name, letters in operations.operations_of(t.case).items():
        used = {k: good[k] for k in letters}
        first = letters.strip("t")[0]
        wrong: list[dict[str, Tensor]] = [
            {**used, first: torch.ones_like(used[first], dtype=torch.int64)},
            {**used, first: torch.zeros((), dtype=t.dtype)},
        ]
        if first != "n":
            points = [k for k in used if k not in "nt"]
            wrong += [{**used, **{k: torch.zeros(3, *s, dtype=t.dtype) for k in points}} for s in t.case.bad_shapes]
        if len(letters) > 1 and letters[1] in "yrugqnwb":
            like = used[letters[1]]
            other = torch.zeros(3, *(s + 1 for s in like.shape[1:]), dtype=t.dtype)
            wrong += [{**used, letters[1]: other}, {**used, letters[1]: like[:2]}]
        for bad in wrong:
            shown = {k: (tuple(a.shape), a.dtype) for k, a in bad.items()}
            try:
                operations.call(t, name, bad)
            except ValueError as error:
                t.require(cls in str(error), f"{name}({shown}): the error does not name the class: {error}")
            except Exception as error:
                t.fail(f"{name}({shown}) raises {type(error).__name__}: {error}")
            else:
                t.fail(f"{name}({shown}) is accepted")


@law("errors", float64=0.0, examples=1)
def missing_operations(t: Trial) -> None:
    """What the space does not have raises NotImplementedError naming the class, and nothing else does."""
    arguments, cls = t.arguments((2,)), type(t.manifold).__name__
    for name in operations.OPERATIONS:
        try:
            operations.call(t, name, arguments)
        except NotImplementedError as error:
            t.require(name in t.case.missing, f"{name} is not implemented, and not listed as missing")
            t.require(cls in str(error), f"{name}: the error does not name the class: {error}")
        else:
            t.require(name not in t.case.missing, f"{name} is listed as missing, and works")


@law("precision", float64=0.0, float32=0.0, examples=1)
def autocast_is_off_inside(t: Trial) -> None:
    """Under torch.autocast every operation gives exactly what it gives without, and a point stays a point."""
    arguments = t.arguments((3,))
    for name in operations.seen(t.case):
        want = operations.call(t, name, arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = operations.call(t, name, arguments)
        for g, w in zip(got, want, strict=True):
            t.require(g.dtype == w.dtype and torch.equal(g, w), f"{name} differs under autocast")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        point = t.manifold.check_point_on_manifold(arguments["x"])
        t.require(point, "check_point_on_manifold rejects a point under autocast")
        tangent = t.manifold.check_vector_on_tangent(arguments["x"], arguments["u"])
        t.require(tangent, "check_vector_on_tangent rejects a tangent vector under autocast")


@law("precision", float64=0.0, float32=0.0, examples=3)
def extreme_numbers_give_no_nan(t: Trial) -> None:
    """projx of ambient numbers from 1e-30 to 1e30 is a point; exp and retr of vectors from 1e-30 to 1e3 are finite,
    exp of 1e3 a point up to its rounding; log and dist of independent points, of x and x, and of points 1e-30 apart
    are finite."""
    m, x = t.manifold, t.point()
    for power in (-30, -20, -8, 0, 8, 20, 30):
        t.is_point(m.projx(10.0**power * t.ambient()), f"projx of numbers near 1e{power}")
    for power in (-30, -20, -8, 0, 3):
        u, v = 10.0**power * t.direction(x), t.direction(x)
        for name in ("expmap", "retr"):
            for out in operations.call(t, name, {"x": x, "u": u, "v": v}):
                t.require(out.isfinite().all(), f"{name} of a vector of length 1e{power} is not finite")
        # The argument of sine and cosine is rounded: a relative error of eps times the length.
        t.is_point(m.expmap(x, u), f"exp of length 1e{power}", slack=1 + 10.0**power)
        if power < 0:
            y = m.expmap(x, u)
            found = m.logmap(x, y).isfinite().all() and m.dist(x, y).isfinite().all()
            t.require(found, f"log or dist at the distance 1e{power} is not finite")
    for y in (t.point(), x, x.clone()):
        for name in ("logmap", "dist", "dist2", "transp", "parallel_transport"):
            if name not in t.case.missing:
                for out in operations.call(t, name, {"x": x, "y": y, "v": t.direction(x)}):
                    t.require(out.isfinite().all(), f"{name} of independent or equal points is not finite")


@law("precision", float64=0.0, float32=0.0, examples=3)
def extreme_vectors_transport_without_nan(t: Trial) -> None:
    """expmap_transp and retr_transp along vectors from 1e-30 to 1e3, of vectors from 1e-30 to 1e30, are finite."""
    x = t.point()
    for power in (-30, -20, -8, 0, 3):
        for size in (-30, 0, 30):
            values = {"x": x, "u": 10.0**power * t.direction(x), "v": 10.0**size * t.direction(x)}
            for name in ("expmap_transp", "retr_transp"):
                for out in operations.call(t, name, values):
                    t.require(out.isfinite().all(), f"{name} of 1e{size} along 1e{power} is not finite")


# ---- closed forms ---------------------------------------------------------------------------------------------


@law("transforms", float64=1e-8, float32=1e-3, examples=3)
def closed_forms_agree_with_derived_ones(t: Trial) -> None:
    """Every method that the manifold overrides equals what the base class derives from the primitives."""
    m, args = t.manifold, t.arguments((3,))
    for name in DERIVED:
        if getattr(type(m), name) is getattr(Manifold, name) or name in t.case.missing:
            continue
        if name == "cdist":
            given = [args["x"], args["y"]]
        elif name in ("frechet_mean", "karcher_residual"):
            x = args["x"].expand(4, *args["x"].shape)
            given = [m.expmap(x, 0.3 * t.tangent(x))] + ([args["x"]] if name == "karcher_residual" else [])
        else:
            given = [args[letter] for letter in operations.OPERATIONS[name]]
        got, want = getattr(m, name)(*given), getattr(Manifold, name)(m, *given)
        if name in ("geodesic", "midpoint", "frechet_mean"):
            t.same(got, want, name)
            continue
        pairs = zip(got, want, strict=True) if isinstance(got, tuple) else [(got, want)]
        for g, w in pairs:
            t.close(g, w, name)


# ---- values ---------------------------------------------------------------------------------------------------


@law("values", float64=0.0, examples=1)
def manifolds_are_values(t: Trial) -> None:
    """pickle, copy and deepcopy give an equal manifold with an equal hash; torch.load(weights_only=True) reads one; it
    is frozen, has a repr that names the class, and differs from other classes."""
    m = t.manifold
    for twin in (pickle.loads(pickle.dumps(m)), copy.copy(m), copy.deepcopy(m)):
        t.require(twin == m and hash(twin) == hash(m) and type(twin) is type(m), "a copy is not equal to the original")
    t.require(type(m).__name__ in repr(m), "repr does not name the class")
    t.require(m != object(), "it is equal to an object of another class")
    t.require(len({m, copy.deepcopy(m)}) == 1, "a set takes it and its copy for two")
    try:
        m.curvature = 2.0  # type: ignore[attr-defined]
    except AttributeError:  # dataclasses.FrozenInstanceError is one
        return
    t.fail("the manifold is not frozen")
