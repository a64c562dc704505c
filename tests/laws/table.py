"""The table of manifolds that the laws are held against: a new manifold adds one row.

Tolerances are multiples of eps: four or more times the worst residual of 60 draws in each dtype, of any exact law.
"""

import dataclasses

import torch
from torch import Tensor

from tests.laws.composites import SUMS, again, power, product, scaled
from tests.laws.correlation_rows import CORRELATION_ROWS
from tests.laws.low_rank_rows import LOW_RANK_ROWS
from tests.laws.simplex_rows import SIMPLEX_ROWS
from tests.laws.spd_rows import SPD_ROWS
from torchriemann.manifolds import Chart, Euclidean, Grassmann, Orthogonal, Pullback, SpecialOrthogonal, Sphere
from torchriemann.manifolds.constant_curvature.klein import Klein
from torchriemann.manifolds.constant_curvature.lorentz import Lorentz
from torchriemann.manifolds.constant_curvature.stereographic import PoincareBall, ProjectedSphere, Stereographic
from torchriemann.manifolds.frames.stiefel import Stiefel
from torchriemann.testing import Case, Trial


def orthogonal(t: Trial, n: int) -> Tensor:
    """A random orthogonal matrix, of either determinant."""
    q, r = torch.linalg.qr(t.noise(n, n))
    return q * torch.where(r.diagonal() < 0, -1.0, 1.0)


# ---- vectors --------------------------------------------------------------------------------------------------


def rotations(t: Trial):
    q = orthogonal(t, t.shape[-1])
    return {"orthogonal map": lambda x: x @ q}


def infinite(x: Tensor) -> Tensor:
    return x * torch.inf


EUCLIDEAN = Case(
    Euclidean(),
    shapes=((3,), (1,), (7,)),
    isometries=rotations,
    off=infinite,
    tolerance={"*": 20},
    missing={"random_uniform": "the volume is infinite"},
    exempt={
        "retraction_has_its_order": "the retraction is the exponential map",
        "injectivity_radius_is_exact": "infinite",
        "uniform_law_is_invariant": "the volume is infinite",
    },
)


def sphere(curvature: float) -> Case:
    return Case(
        Sphere(curvature),
        shapes=((3,), (2,), (8,)),
        order=2,
        isometries=rotations,
        cut=lambda t, x: t.direction(x),
        degenerate=lambda t, x: {"tiny": t.tangent(x, 1e-9)},
        bad_shapes=((0,),),
        tolerance={"*": 80, "frechet_mean_balances_logarithms": 400},
        exempt={"infinite_injectivity_radius": "pi/sqrt(K)"},
    )


# ---- constant curvature ---------------------------------------------------------------------------------------


def space_rotations(t: Trial):
    """Rotations of the space part, and a boost. All are linear, of points and of tangent vectors."""
    q = torch.eye(t.shape[-1], dtype=t.dtype)
    q[1:, 1:] = orthogonal(t, t.shape[-1] - 1)
    boost = t.manifold.boost_matrix(t.manifold.from_normal(reach(t.manifold.curvature) / 6 * t.noise(t.shape[-1] - 1)))
    return {"rotation": lambda x: x @ q, "boost": lambda x: x @ boost.mT}


def reach(curvature: float) -> float:
    """Three in units of the radius of curvature, where that is the shorter one."""
    return 3 / max(1.0, -curvature) ** 0.5


def lorentz(curvature: float) -> Case:
    return Case(
        Lorentz(curvature),
        shapes=((3,), (2,), (5,)),
        reach=reach(curvature),
        spread=reach(curvature) / 3,
        isometries=space_rotations,
        degenerate=lambda t, x: {"tiny": t.tangent(x, 1e-9)},
        bad_shapes=((1,), (0,)),
        tolerance={
            "*": 600,
            # Coordinates, and what is left of them by subtraction, grow as cosh of the radius, up to seven here.
            "isometries_are_respected": 15_000,
            "geodesic_transport_reaches_beyond_the_cut_locus": 1_000_000,
            # So do derivatives; of the fifth, which the quotient leaves out, coordinates and velocities both do.
            "forward_derivatives_match_finite_differences": 5e7 * max(1.0, -curvature) ** 5,
        },
        missing={"random_uniform": "the volume is infinite"},
        exempt={
            "retraction_has_its_order": "the retraction is the exponential map",
            "injectivity_radius_is_exact": "infinite",
            "uniform_law_is_invariant": "the volume is infinite",
            "proju_is_self_adjoint": "inner reads the space parts of tangent vectors, and knows no others",
            "extreme_numbers_give_no_nan": OVERFLOW,
            "extreme_vectors_transport_without_nan": OVERFLOW,
        },
    )


OVERFLOW = "coordinates grow as cosh of the radius: none exist at radius 1000"


def far_outside(x: Tensor) -> Tensor:
    return 1e6 * x


def ball(manifold: PoincareBall | Klein | Stereographic) -> Case:
    """A chart of hyperbolic space, or of flat space, on a ball or all of R^n."""
    flat, klein, exempt = manifold.curvature == 0, isinstance(manifold, Klein), {}
    if manifold.curvature <= -1:
        exempt["infinite_injectivity_radius"] = "the ball holds no points so far out, or next to none"
    order = 2 if getattr(manifold, "retraction", "exp") == "projective" else None
    if order is None:
        exempt["retraction_has_its_order"] = "the retraction is the exponential map"
    if manifold == Klein(-4.0):
        exempt["forward_derivatives_match_finite_differences"] = NEAR_THE_RIM
    return Case(
        manifold,
        shapes=((3,), (1,), (7,)),
        order=order,
        reach=reach(manifold.curvature) / (2 if klein else 1),
        spread=None if flat else reach(manifold.curvature) / (6 if klein else 3),
        isometries=rotations,
        degenerate=lambda t, x: {"tiny": t.tangent(x, 1e-9)},
        off=infinite if flat else far_outside,
        bad_shapes=((0,),),
        tolerance={
            "*": 800,  # eps times cosh of the radius, or its square in Klein coordinates
            "infinite_injectivity_radius": 1e7,  # eps exp(length): what coordinates next to the rim resolve
            # Truncation of difference quotients: their step over the way to the rim.
            "forward_derivatives_match_finite_differences": 4e11,
            "frechet_mean_has_its_implicit_gradient": 4.5e9,
        },
        missing={"random_uniform": "the volume is infinite"},
        exempt={
            "injectivity_radius_is_exact": "infinite",
            "uniform_law_is_invariant": "the volume is infinite",
            **exempt,
        },
    )


NEAR_THE_RIM = "the step of the quotient is not short beside the way to the rim; see the tests of the class"


def projected(manifold: ProjectedSphere | Stereographic) -> Case:
    return Case(
        manifold,
        shapes=((3,), (2,), (7,)),
        reach=1.2 / manifold.curvature**0.5,
        spread=0.4 / manifold.curvature**0.5,
        isometries=rotations,
        cut=lambda t, x: t.direction(x),
        degenerate=lambda t, x: {"tiny": t.tangent(x, 1e-9)},
        off=infinite,
        bad_shapes=((0,),),
        tolerance={
            "*": 150,
            "forward_derivatives_match_finite_differences": 1e11,  # truncation: the step over the way to infinity
        },
        exempt={
            "retraction_has_its_order": "the retraction is the exponential map",
            "infinite_injectivity_radius": "pi/sqrt(K)",
        },
    )


# ---- frames ---------------------------------------------------------------------------------------------------


def two_sided(t: Trial):
    n, p = t.shape
    left, right = orthogonal(t, n), orthogonal(t, p)
    return {"left O(n)": lambda x: left @ x, "right O(p)": lambda x: x @ right}


def complement(x: Tensor) -> Tensor:
    """An orthonormal basis of what x does not span."""
    return torch.linalg.qr(x, mode="complete")[0][..., x.shape[-1] :]


def repeated_angles(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """All principal angles equal, and all but one zero."""
    q = complement(x)
    k = min(q.shape[-1], x.shape[-1])
    turn = torch.zeros_like(x)
    turn[..., :k] = q[..., :k]
    single = torch.zeros_like(x)
    single[..., :1] = q[..., :1]
    return {"repeated angles": 0.5 * turn, "one angle": 0.5 * single @ orthogonal(t, x.shape[-1])}


FRAME_SHAPES = ((5, 2), (4, 1), (7, 3), (3, 2))
NOT_FRAMES = ((2, 3), (3, 0), (0, 0))


def grassmann(retraction: str) -> Case:
    def one_angle(t: Trial, x: Tensor) -> Tensor:
        e = t.noise(1, t.shape[1])
        return complement(x)[..., :1] @ (e / e.norm())

    # Gyro laws draw points within a third of .9 pi/2: sums of three have logarithms, and left reduction holds.
    return Case(
        Grassmann(retraction),
        shapes=(*FRAME_SHAPES, (3, 3)),
        order=2,
        invariant=lambda x: x @ x.mT,
        isometries=two_sided,
        cut=one_angle,
        degenerate=repeated_angles,
        bad_shapes=NOT_FRAMES,
        tolerance={"*": 100, "frechet_mean_balances_logarithms": 200},
        exempt={"infinite_injectivity_radius": "pi/2"},
    )


def frames_at_rest(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """No rotation within the span, nothing but one, and both of rank one."""
    a = t.noise(*x.shape[:-2], x.shape[-1], x.shape[-1])
    turn = x @ (a - a.mT)
    return {**repeated_angles(t, x), "pure rotation": 0.3 * turn}


def stiefel(beta: float, retraction: str) -> Case:
    def one_column(t: Trial, x: Tensor) -> Tensor:
        e = t.noise(1, t.shape[1])
        return complement(x)[..., :1] @ (e / e.norm())

    manifold = Stiefel(beta, retraction)
    exempt = {"infinite_injectivity_radius": "finite", "extreme_vectors_transport_without_nan": LONG_TRANSPORT}
    if retraction == "exp":
        exempt["retraction_has_its_order"] = "the retraction is the exponential map"
    if beta < 2 / 3:
        exempt["injectivity_radius_is_exact"] = "a lower bound; the radius itself is not known"
    return Case(
        manifold,
        shapes=FRAME_SHAPES,
        order=None if retraction == "exp" else manifold.retraction_order,
        inverse_reach=0.5,
        isometries=two_sided,
        cut=one_column,
        degenerate=frames_at_rest,
        bad_shapes=NOT_FRAMES,
        tolerance={"*": 300},
        exempt=exempt,
    )


# ---- orthogonal matrices --------------------------------------------------------------------------------------


def two_turns(t: Trial):
    """Products with rotations from both sides, which keep the component."""
    flip = torch.eye(t.shape[-1], dtype=t.dtype)
    left, right = (orthogonal(t, t.shape[-1]) for _ in range(2))
    flip[0, 0] = (torch.linalg.det(left) * torch.linalg.det(right)).sign()
    return {"left and right": lambda x: left @ flip @ x @ right, "transposed": lambda x: x.mT}


def planes(t: Trial, x: Tensor, *angles: float) -> Tensor:
    """Rotations in random planes, as many as there is room for."""
    n = x.shape[-1]
    a, q = torch.zeros(n, n, dtype=t.dtype), orthogonal(t, n)
    for i, angle in enumerate(angles[: n // 2]):
        a[2 * i, 2 * i + 1], a[2 * i + 1, 2 * i] = -angle, angle
    return x @ (q @ a @ q.mT)


def planes_at_rest(t: Trial, x: Tensor) -> dict[str, Tensor]:
    """Equal angles, one plane alone, angles next to each other, and next to zero."""
    return {
        "repeated angles": planes(t, x, 0.5, 0.5, 0.5),
        "one plane": planes(t, x, 0.7),
        "nearly equal angles": planes(t, x, 0.5, 0.5 + 1e-9),
        "tiny": planes(t, x, 1e-9, 1e-9),
    }


def orthogonal_group(manifold: Orthogonal | SpecialOrthogonal) -> Case:
    exempt = {"infinite_injectivity_radius": "pi"}
    if manifold.retraction == "exp":
        exempt["retraction_has_its_order"] = "the retraction is the exponential map"
    if isinstance(manifold, Orthogonal):
        exempt["extreme_numbers_give_no_nan"] = "independent points lie in two components, where logmap is NaN"
    return Case(
        manifold,
        shapes=((4, 4), (3, 3), (2, 2), (7, 7)),
        order=None if manifold.retraction == "exp" else manifold.retraction_order,
        isometries=two_turns if isinstance(manifold, SpecialOrthogonal) else two_sided,
        cut=lambda t, x: planes(t, x, 1.0),
        degenerate=planes_at_rest,
        bad_shapes=((2, 3), (3, 2), (0, 0)),
        tolerance={"*": 60, "geodesic_transport_reaches_beyond_the_cut_locus": 180},
        exempt=exempt,
    )


# ---- pullbacks ------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Logarithm(Chart):
    """Positive numbers onto the line, with derivatives as they are found."""

    def forward(self, x: Tensor) -> Tensor:
        return x.log()

    def inverse(self, y: Tensor) -> Tensor:
        return y.exp()

    def project(self, x: Tensor) -> Tensor:
        return torch.where(x == 0, 1.0, x.abs())


def scalings(t: Trial):
    """Products with positive numbers."""
    factors = t.noise(t.shape[-1]).exp()
    return {"scaling": lambda x: factors * x}


BEYOND = "exp(1000) is beyond the largest number"

POSITIVE = Case(
    Pullback(Euclidean(), Logarithm()),
    shapes=((3,), (1,)),
    reach=1.0,
    spread=0.5,
    isometries=scalings,
    off=torch.neg,
    tolerance={
        "*": 100,
        # Truncation: the third derivative of x log(y/x) is large where y is small.
        "forward_derivatives_match_finite_differences": 1e11,
    },
    missing={"random_uniform": "the volume is infinite"},
    exempt={
        "retraction_has_its_order": "the retraction is the exponential map",
        "injectivity_radius_is_exact": "infinite",
        "uniform_law_is_invariant": "the volume is infinite",
        "extreme_numbers_give_no_nan": BEYOND,
        "extreme_vectors_transport_without_nan": BEYOND,
    },
)

LONG_TRANSPORT = "the series ends at twice the injectivity radius; NaN beyond, as the class states"

# What a row has of its own, where it has the formulas of another one.
METRIC = ("expmap", "logmap", "expmap_transp", "dist2")  # another parameter of the metric
RETRACTIONS = ("retr", "inverse_retr", "retr_transp")  # another retraction
CURVATURE = ("expmap", "dist2")  # another curvature, of a space where it is but a unit of length


SPHERE, LORENTZ, BALL, KLEIN, PROJECTED = (
    sphere(1.0),
    lorentz(-1.0),
    ball(PoincareBall()),
    ball(Klein()),
    projected(ProjectedSphere()),
)
PROJECTIVE_BALL = ball(PoincareBall(retraction="projective"))
GRASSMANN, STIEFEL, ROTATIONS = grassmann("polar"), stiefel(1.0, "polar"), orthogonal_group(SpecialOrthogonal())
SPHERES = product(product(dataclasses.replace(sphere(4.0), shapes=((2,),)), sphere(0.3)), sphere(1.0))
POWER, SCALED = power(SPHERE, 3), scaled(SPHERE, 2.5)

ROWS = [
    SPHERE,
    again(sphere(0.3), SPHERE, *METRIC),
    again(sphere(4.0), SPHERE, *METRIC),
    LORENTZ,
    again(lorentz(-0.3), LORENTZ, *CURVATURE),
    again(lorentz(-4.0), LORENTZ, *CURVATURE),
    BALL,
    again(ball(PoincareBall(-0.3)), BALL, *CURVATURE),
    again(PROJECTIVE_BALL, BALL, *RETRACTIONS),
    again(ball(Stereographic(-2.0)), BALL, *CURVATURE),
    again(ball(Stereographic(-1e-6)), BALL, *CURVATURE),
    again(ball(Stereographic(0.0)), BALL, *CURVATURE),
    dataclasses.replace(KLEIN, costly=METRIC, draws=2),  # the rest by way of Lorentz space
    again(ball(Klein(-4.0)), KLEIN, *CURVATURE),
    dataclasses.replace(PROJECTED, costly=METRIC, draws=2),  # the rest is the code of the ball
    again(projected(Stereographic(1.5)), PROJECTED, *CURVATURE),
    again(projected(ProjectedSphere(0.5)), PROJECTED, *CURVATURE),
    GRASSMANN,
    again(grassmann("qr"), GRASSMANN, *RETRACTIONS),
    STIEFEL,
    again(stiefel(1.0, "qr"), STIEFEL, *RETRACTIONS),
    again(stiefel(0.5, "cayley"), STIEFEL, *METRIC, *RETRACTIONS),
    again(stiefel(0.5, "exp"), STIEFEL, *RETRACTIONS),
    again(stiefel(0.75, "polar"), STIEFEL, *METRIC),
    ROTATIONS,
    again(orthogonal_group(SpecialOrthogonal("cayley")), ROTATIONS, *RETRACTIONS),
    again(orthogonal_group(SpecialOrthogonal("exp")), ROTATIONS, *RETRACTIONS),
    again(orthogonal_group(Orthogonal()), ROTATIONS, "projx", "retr"),
    again(orthogonal_group(Orthogonal("qr")), ROTATIONS, *RETRACTIONS),
    SPHERES,
    again(product(SPHERE, dataclasses.replace(STIEFEL, shapes=((4, 2),)), EUCLIDEAN), SPHERES, *SUMS),
    again(
        product(ball(PoincareBall(-0.3)), EUCLIDEAN, scaled(sphere(4.0), 2.5), projected(Stereographic(1.5))),
        SPHERES,
        *SUMS,
    ),
    POWER,
    again(power(GRASSMANN, 2), POWER, *SUMS),
    SCALED,
    again(scaled(STIEFEL, 0.9), SCALED, *SUMS),
    POSITIVE,
    *SIMPLEX_ROWS,
    *SPD_ROWS,
    *CORRELATION_ROWS,
    *LOW_RANK_ROWS,
]

# Flat space compiles all that the contract derives from a few primitives, the others what their classes define.
TABLE = [EUCLIDEAN, *(dataclasses.replace(case, brief=True) for case in ROWS)]
