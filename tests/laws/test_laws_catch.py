"""The laws catch what they are for: spheres with one planted defect each, most of them found in other libraries."""

import dataclasses
import math
from dataclasses import dataclass

import pytest
import torch
from torch._C._functorch import get_dynamic_layer_stack_depth  # pyright: ignore[reportMissingImports]

from torchriemann.manifolds import Sphere
from torchriemann.manifolds.base import Manifold
from torchriemann.testing import LAWS, Case, check_law, check_manifold

ROUND = Sphere()


@dataclass(frozen=True, eq=False)
class Delegate(Manifold):
    """The unit sphere again, for subclasses to break: `Sphere` itself is final."""

    ndim, name = 1, "Delegate"

    def _shape_complaint(self, point_shape):
        return ROUND._shape_complaint(point_shape)

    def _point_residual(self, x):
        return ROUND._point_residual(x)

    def _vector_residual(self, x, u):
        return ROUND._vector_residual(x, u)

    def dimension(self, shape):
        return ROUND.dimension(shape)

    def projx(self, x):
        return ROUND.projx(x)

    def proju(self, x, u):
        return ROUND.proju(x, u)

    def inner(self, x, u, v=None, *, keepdim=False):
        return ROUND.inner(x, u, v, keepdim=keepdim)

    def egrad2rgrad(self, x, g):
        return ROUND.egrad2rgrad(x, g)

    def ehess2rhess(self, x, g, h, u):
        return ROUND.ehess2rhess(x, g, h, u)

    def expmap(self, x, u):
        return ROUND.expmap(x, u)

    def logmap(self, x, y):
        return ROUND.logmap(x, y)

    def expmap_transp(self, x, u, v):
        return ROUND.expmap_transp(x, u, v)

    def sectional_curvature(self, x, u, v):
        return ROUND.sectional_curvature(x, u, v)

    def injectivity_radius(self, x=None):
        return math.pi

    def log_is_unique(self, x, y, *, margin=0.0):
        return ROUND.log_is_unique(x, y, margin=margin)

    def basis(self, x):
        return ROUND.basis(x)

    def random_uniform(self, *size, **kwargs):
        return ROUND.random_uniform(*size, **kwargs)

    def origin(self, *size, **kwargs):
        return ROUND.origin(*size, **kwargs)


class DoublesTangents(Delegate):  # a projection that is none
    def proju(self, x, u):
        return 2 * ROUND.proju(x, u)


class WritesToTheGradient(Delegate):
    def egrad2rgrad(self, x, g):
        g.sub_(x * (x * g).sum(-1, keepdim=True))
        return g.clone()


class ScalesTheGradient(Delegate):
    def egrad2rgrad(self, x, g):
        return 0.25 * ROUND.egrad2rgrad(x, g)


class RetractionInDisguise(Delegate):
    def expmap(self, x, u):
        return ROUND.projx(x + u)


class EndsEarly(Delegate):  # half of what the injectivity radius promises
    def exp_is_defined(self, x, u):
        return ROUND.norm(x, u) < 0.4 * math.pi


class NumbersBeyondTheEnd(Delegate):  # a wrong answer where the class says that there is none
    def exp_is_defined(self, x, u):
        return ROUND.norm(x, u) < math.pi


class NoRetraction(Delegate):
    def retr(self, x, u):
        return ROUND.retr(x, 1.5 * u)


class ArccosineDistance(Delegate):
    def dist(self, x, y, *, keepdim=False):
        return (x * y).sum(-1, keepdim=keepdim).clamp(-1 + 1e-7, 1 - 1e-7).acos()


class NanGradientAtZero(Delegate):
    def expmap(self, x, u):
        t = u.norm(dim=-1, keepdim=True)
        return torch.where(t > 0, t.cos() * x + t.sin() / t * u, x)


class ProjectsInsteadOfTransporting(Delegate):
    def expmap_transp(self, x, u, v):
        y = ROUND.expmap(x, u)
        return y, ROUND.proju(y, v)


class DropsForwardTangents(Delegate):
    def logmap(self, x, y):
        return _Deaf.apply(x, y)


class _Deaf(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x, y):
        return ROUND.logmap(x, y)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, grad):
        return torch.func.vjp(ROUND.logmap, *ctx.saved_tensors)[1](grad)

    @staticmethod
    def jvp(ctx, dx, dy):
        return dx * 0.0


class WrongBackward(Delegate):
    """Right in value, and in forward mode; the gradient in the second argument is off by a thousandth."""

    def logmap(self, x, y):
        return _Off.apply(x, y)


class _Off(_Deaf):
    @staticmethod
    def backward(ctx, grad):
        gx, gy = torch.func.vjp(ROUND.logmap, *ctx.saved_tensors)[1](grad)
        return gx, gy * (1 + 1e-3)

    @staticmethod
    def jvp(ctx, dx, dy):
        return torch.func.jvp(ROUND.logmap, ctx.saved_tensors, (dx, dy))[1]


class WrongSecondDerivative(Delegate):
    """First derivatives are right, and taken for constants from there on."""

    def logmap(self, x, y):
        return _Once.apply(x, y)


class _Once(_Off):
    @staticmethod
    def backward(ctx, grad):
        x, y = (a.detach() for a in ctx.saved_tensors)
        return torch.func.vjp(ROUND.logmap, x, y)[1](grad)


class WrongAtCoincidentPoints(Delegate):
    """A threshold below which the vector is thought not to matter: the value is right, the derivative zero."""

    def expmap(self, x, u):
        return torch.where(u.norm(dim=-1, keepdim=True) < 1e-12, x + 0 * u, ROUND.expmap(x, u))


class OtherwiseCompiled(Delegate):
    def logmap(self, x, y):
        if torch.compiler.is_compiling():
            return 2 * ROUND.logmap(x, y)
        return ROUND.logmap(x, y)


class IgnoresStd(Delegate):
    def random_normal(self, *size, mean=None, std=1.0, **kwargs):
        return ROUND.random_normal(*size, mean=mean, std=0.5, **kwargs)


class PrefersOneHalf(Delegate):  # a sign that the factorisation chose
    def random_uniform(self, *size, **kwargs):
        x = ROUND.random_uniform(*size, **kwargs)
        return torch.where(x[..., :1] > 0, -x, x)


class WrongCurvature(Delegate):
    def sectional_curvature(self, x, u, v):
        return 2 * ROUND.sectional_curvature(x, u, v)


class WrongHessian(Delegate):
    def ehess2rhess(self, x, g, h, u):
        return ROUND.proju(x, h)


class RejectsHalfPrecision(Delegate):
    def expmap(self, x, u):
        _ = {torch.float32: 1e-6, torch.float64: 1e-12}[x.dtype]
        return ROUND.expmap(x, u)


class AddsBatchDimensions(Delegate):
    def projx(self, x):
        return ROUND.projx(x).expand(2, *x.shape) if x.dim() > 1 else ROUND.projx(x)


class SmallerInjectivityRadius(Delegate):
    def injectivity_radius(self, x=None):
        return math.pi / 2


class BranchesOnValues(Delegate):
    def logmap(self, x, y):
        return ROUND.logmap(x, y) if bool((x - y).abs().max() > 0) else x * 0.0


class LooksAtValuesUnderTwoTransforms(Delegate):
    def logmap(self, x, y):
        return ROUND.logmap(x, y) + 0.0 * torch.nn.functional.one_hot(x.argmin(-1), x.shape[-1])


class DerivativeOfTorchsSolve(Delegate):
    """Right by itself, wrong without a word under two levels of vmap, as that of `torch.linalg.solve` in 2.13."""

    def projx(self, x):
        return ROUND.projx(x.detach() if get_dynamic_layer_stack_depth() > 2 else x)


class ViewOfItsArgument(Delegate):
    def projx(self, x):
        return x if ROUND.check_point_on_manifold(x) else ROUND.projx(x)


class SizeAndSignOfTheTime(Delegate):
    """Right in value; at t = 0 neither |t| nor the sign of t has the derivative that their product has."""

    def geodesic(self, x, y, t):
        t = self._per_point(t, x)
        return ROUND.expmap(x, t.sign() * t.abs() * ROUND.logmap(x, y))


class MultipliesByZero(Delegate):
    """What a weight of zero does to a NaN."""

    def frechet_mean(self, x, weights=None, **options):
        return ROUND.frechet_mean(x, weights, **options) + 0 * x.sum(0)


class VarianceWithoutWeights(Delegate):
    def frechet_variance(self, x, weights=None, mean=None):
        return ROUND.frechet_variance(x, None, mean)


class SpoilsTheBatch(Delegate):  # as LAPACK, and scales that are taken over all items
    def logmap(self, x, y):
        return ROUND.logmap(x, y) + 0 * y.sum()


class ReadsNoNan(Delegate):
    def projx(self, x):
        return ROUND.projx(x.nan_to_num())


class NanGradientWithoutNearestPoint(Delegate):
    def projx(self, x):
        length = x.norm(dim=-1, keepdim=True)
        return torch.where(length > 0, x / length, torch.eye(x.shape[-1], dtype=x.dtype)[0])


CAUGHT = [
    (SizeAndSignOfTheTime, "geodesics_keep_their_speed"),
    (SizeAndSignOfTheTime, "curves_are_twice_differentiable"),
    (MultipliesByZero, "items_of_weight_zero_are_left_out"),
    (VarianceWithoutWeights, "frechet_variance_is_least_at_the_mean"),
    (SpoilsTheBatch, "bad_items_leave_their_neighbours"),
    (ReadsNoNan, "bad_items_leave_their_neighbours"),
    (NanGradientWithoutNearestPoint, "projection_of_degenerate_tensors_has_derivatives"),
    (DoublesTangents, "proju_is_the_identity_on_tangents"),
    (DoublesTangents, "proju_is_idempotent"),
    (WritesToTheGradient, "arguments_are_never_written"),
    (ScalesTheGradient, "gradient_represents_the_differential"),
    (RetractionInDisguise, "logarithm_inverts_exponential"),
    (RetractionInDisguise, "geodesics_have_unit_speed"),
    (EndsEarly, "exponential_stays_on_the_manifold"),
    (NumbersBeyondTheEnd, "exponential_stays_on_the_manifold"),
    (NoRetraction, "retraction_has_its_order"),
    (NoRetraction, "retraction_starts_along_its_vector"),
    (ArccosineDistance, "distance_to_itself_vanishes"),
    (NanGradientAtZero, "derivatives_are_finite_at_degenerate_arguments"),
    (ProjectsInsteadOfTransporting, "parallel_transport_is_an_isometry"),
    (ProjectsInsteadOfTransporting, "curvature_is_that_of_holonomy"),
    (DropsForwardTangents, "forward_derivatives_match_finite_differences"),
    (DropsForwardTangents, "gradients_match_finite_differences"),
    (WrongBackward, "gradients_match_finite_differences"),
    (WrongSecondDerivative, "second_gradients_match_finite_differences"),
    (WrongAtCoincidentPoints, "gradients_match_finite_differences"),
    (OtherwiseCompiled, "compiled_equals_eager"),
    (IgnoresStd, "normal_samples_honour_mean_and_spread"),
    (PrefersOneHalf, "uniform_law_is_invariant"),
    (WrongCurvature, "curvature_is_that_of_triangles"),
    (WrongHessian, "hessian_is_the_second_order_of_functions"),
    (RejectsHalfPrecision, "half_precision_is_computed_in_single"),
    (AddsBatchDimensions, "operations_broadcast_over_the_batch"),
    (SmallerInjectivityRadius, "injectivity_radius_is_exact"),
    (BranchesOnValues, "vmap_equals_batching"),
    (BranchesOnValues, "compiled_equals_eager"),
    (LooksAtValuesUnderTwoTransforms, "vmap_of_derivatives_equals_batching"),
    (DerivativeOfTorchsSolve, "vmap_of_derivatives_equals_batching"),
    (ViewOfItsArgument, "arguments_are_never_written"),
]


def rotation(t):
    q = torch.linalg.qr(t.noise(t.shape[-1], t.shape[-1]))[0]
    return {"rotation": lambda x: x @ q}


def row(manifold, *costly):
    shapes = ((4,),)
    missing = {"logdet_dexp": "not of interest here"}
    case = Case(manifold, shapes, order=2, isometries=rotation, cut=lambda t, x: t.direction(x), missing=missing)
    return dataclasses.replace(case, costly=costly or None)


@pytest.mark.parametrize("broken", [BranchesOnValues, OtherwiseCompiled])
def test_a_trace_alone_catches_them_too(broken):
    with pytest.raises(Exception):  # noqa: B017, PT011  (a branch on values raises what torch has for it)
        check_law(dataclasses.replace(row(broken(), "logmap"), repeats=ROUND), "compiled_equals_eager")


@pytest.mark.parametrize("broken, name", CAUGHT, ids=lambda value: getattr(value, "__name__", value))
def test_defect_is_caught(broken, name):
    with pytest.raises(Exception) as caught:  # noqa: PT011  (a defect may also break the arithmetic)
        for seed in range(3):
            check_law(
                row(broken(), *(["logmap"] if name == "compiled_equals_eager" else [])), name, seed=seed, scale=0.5
            )
    assert not isinstance(caught.value, (NameError, AttributeError, ImportError)), "the test itself is broken"
    if name.endswith("gradients_match_finite_differences"):
        assert "misses its difference quotient" in str(caught.value)


def test_message_names_everything():
    with pytest.raises(AssertionError) as caught:
        check_law(row(DoublesTangents()), "proju_is_idempotent", seed=17, dtype=torch.float32)
    for part in ("proju_is_idempotent fails on", "DoublesTangents", "(4,)", "float32", "seed 17", "residual", "eps"):
        assert part in str(caught.value)


def test_check_manifold_runs_without_hypothesis(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "hypothesis", None)
    cheap = [name for name, entry in LAWS.items() if entry.examples is None]
    assert check_manifold(ROUND, (3,), laws=cheap, seeds=range(1), isometries=rotation) == tuple(cheap)


def test_check_manifold_leaves_out_what_the_row_gives_no_means_for():
    with pytest.raises(AssertionError, match="DoublesTangents"):
        check_manifold(DoublesTangents(), (3,), seeds=range(1), laws=["proju_is_idempotent"])
    with pytest.raises(AssertionError, match="isometries_are_respected .* needs isometries="):
        check_manifold(ROUND, (3,), laws=["isometries_are_respected"])
    slow = {name: "takes seconds" for name, entry in LAWS.items() if entry.examples is not None}
    held = check_manifold(ROUND, (3,), (5,), exempt=slow, seeds=range(2))
    assert "isometries_are_respected" not in held and "logarithm_inverts_exponential" in held


def test_a_row_of_no_manifold_or_no_shape_is_refused():
    with pytest.raises(ValueError, match=r"manifold must be an instance such as Sphere\(\), got the class Sphere"):
        check_manifold(Sphere, (4,))
    with pytest.raises(ValueError, match="got the class Sphere"):
        check_law(Case(Sphere, ((4,),)), "proju_is_idempotent")
    for shapes in ((3,), ((3, 1.0),)):
        with pytest.raises(ValueError, match=r"must be a tuple of integers such as \(3,\), got "):
            check_manifold(Sphere(), *shapes)


def test_a_law_that_needs_more_of_the_row_says_so():
    with pytest.raises(AssertionError, match="retraction_has_its_order of .* needs order="):
        check_manifold(Sphere(), (3,), laws=["retraction_has_its_order"])
