"""Gyro structure of the Grassmann manifold."""

from __future__ import annotations

import abc

import torch
from torch import Tensor

from ..functional.frames import newton_schulz_step
from ..functional.grassmann_translation import blocks, rotated, rotated_along, rotated_point, translation
from ..functional.low_rank import leading_eigenspace
from ..functional.matrices import identity_like, sym
from ..functional.singular_values import singular_value_function
from ..functional.spectral import symmetric_functions
from ..functional.spectral_functions import ANGLE_OVER_SINE, COS_SQRT, SINC_SQRT, VERSINE_SQRT
from ..gyro import GyroManifold
from ..operation import in_full_precision, operation


class GrassmannGyro(GyroManifold, abc.ABC):
    r"""Closed forms of gyro-operations around the span of the first p axes.

    Tangent vectors there are ``[0; B]``, and normal coordinates B itself, ``*B,n-p,p``. ``x (+) y = R_x y`` with the
    direct rotation R_x of the span of x (`functional.grassmann_translation`), made of thin products; it does not depend
    on the basis of x, and turns with that of y: ``x (+) (y Q) = (x (+) y) Q``.

    *Domain.* All principal angles between x and the origin below pi/2: the top block of x is nonsingular. An x beyond,
    where that rotation is not unique, makes its own item NaN. (y may lie anywhere.) Of a gyration that holds for
    x, y and x (+) y.

    `translated` takes normal coordinates of any length, not a point: ``exp([[0, -B^T], [B, 0]])`` is smooth in B, and
    the direct rotation of its point within the injectivity radius. So a learned B may pass it.

    *Laws.* Those of a gyrocommutative gyrogroup, left reduction excepted: ``gyr[x (+) y, y] = gyr[x, y]`` is sure while
    the largest principal angle of x and twice that of y add up to less than pi/2. Multiples are unique within the
    injectivity radius.

    *Projectors.* With ``P = x x^T`` (`projector`) and E that of the origin, all of it is an operation on projectors,
    ``P (+) Q = R_P Q R_P^T`` with ``R_P = (P E + (I - P)(I - E)) (I - (P - E)^2)^(-1/2)``: bases and projectors are two
    views of one gyro structure.

    Source: Nguyen 2022, "The Gyro-Structure of Some Matrix Manifolds"; Nguyen and Yang 2023, arXiv:2305.04560, for both
    views. There the rotation is a matrix exponential of size n.
    """

    normal_ndim = 2

    # ---- projectors -------------------------------------------------------------------------------------------

    @in_full_precision
    def projector(self, x: Tensor) -> Tensor:
        """x x^T, the orthogonal projector on the span: the same for all of its bases. ``*B,n,p -> *B,n,n``."""
        self.check_operands("projector", [x])
        return sym(x @ x.mT)

    @in_full_precision(points_of="self")
    def from_projector(self, P: Tensor, p: int) -> Tensor:
        """A basis of the span of the eigenvectors of the `p` largest eigenvalues of a symmetric matrix: of a projector
        of rank p its range. ``*B,n,n -> *B,n,p``. First and second derivatives of the span, where eigenvalue p and the
        next one differ. Raises ``ValueError`` on other shapes."""
        if not isinstance(P, Tensor) or P.dim() < 2 or P.shape[-2] != P.shape[-1] or not P.is_floating_point():
            got = tuple(P.shape) if isinstance(P, Tensor) else type(P).__name__
            raise ValueError(f"Grassmann.from_projector: P must be a tensor *B,n,n, got {got}")
        n = P.shape[-1]
        self._raise(self._shape_reason((n, p)))
        return leading_eigenspace(sym(P), p) if p < n else identity_like(P).expand(P.shape).contiguous()

    # ---- at the origin ----------------------------------------------------------------------------------------

    def normal_shape(self, point_shape: tuple[int, ...]) -> tuple[int, ...]:
        """n - p rows and p columns."""
        n, p = point_shape[-2:]
        return n - p, p

    @in_full_precision
    def tangent_from_normal(self, z: Tensor) -> Tensor:
        """[0; z]."""
        self._check_normal("tangent_from_normal", z)
        return torch.cat([_no_top(z), z], -2)

    @operation
    def normal_from_tangent(self, u: Tensor) -> Tensor:
        """The last n - p rows."""
        return blocks(u)[1].clone()

    @in_full_precision
    def from_normal(self, z: Tensor) -> Tensor:
        """[cos sqrt Z; z sin(sqrt Z)/sqrt Z], Z = z^T z: the canonical basis within the injectivity radius."""
        self._check_normal("from_normal", z)
        cosine, sinc = symmetric_functions(z.mT @ z, COS_SQRT, SINC_SQRT)
        return torch.cat([cosine, z @ sinc], -2)

    @operation
    def to_normal(self, x: Tensor) -> Tensor:
        """x_2 V f(c) U^T of the blocks x_1 = U c V^T and x_2 of x, with f(c) = arccos(c)/sqrt(1 - c^2)."""
        top, bottom = blocks(x)
        return bottom @ singular_value_function(top.mT, ANGLE_OVER_SINE)

    @operation
    def expmap0(self, u: Tensor) -> Tensor:
        """`from_normal` of the last n - p rows."""
        return self.from_normal(blocks(u)[1])

    @operation
    def logmap0(self, x: Tensor) -> Tensor:
        """[0; `to_normal`]."""
        return self.tangent_from_normal(self.to_normal(x))

    @operation
    def dist0(self, x: Tensor, *, keepdim: bool = False) -> Tensor:
        """The length of the normal coordinates."""
        return self.norm(x, self.logmap0(x), keepdim=keepdim)

    # ---- gyro-operations --------------------------------------------------------------------------------------

    @operation
    def gyroadd(self, x: Tensor, y: Tensor) -> Tensor:
        """R_x y."""
        return rotated_point(translation(x), y)

    @in_full_precision
    def translated(self, x: Tensor, z: Tensor) -> Tensor:
        """exp([[0, -z^T], [z, 0]]) x, for a `z` of any length."""
        self._check_frame("translated", x, z)
        functions = symmetric_functions(z.mT @ z, COS_SQRT, SINC_SQRT, VERSINE_SQRT)
        return rotated_along(z, functions, x)

    def _placed(self, b: Tensor, z: Tensor) -> Tensor:
        return self.translated(self.from_normal(z), b)

    @operation
    def gyroinv(self, x: Tensor) -> Tensor:
        """x with the last n - p rows negated."""
        top, bottom = blocks(x)
        return torch.cat([top, -bottom], -2)

    @operation
    def gyration(self, x: Tensor, y: Tensor, z: Tensor) -> Tensor:
        """R_(x + y)^T R_x R_y z: by an orthogonal matrix of two blocks, which keeps the origin."""
        by_x = translation(x)
        total = translation(rotated_point(by_x, y))
        turned = rotated_point(total.backwards, rotated_point(by_x, rotated_point(translation(y), z)))
        return newton_schulz_step(turned)  # four rotations add up what points in half precision are off

    # ---- frame coordinates ------------------------------------------------------------------------------------

    @in_full_precision
    def tangent_from_frame(self, x: Tensor, z: Tensor) -> Tensor:
        """R_x [0; z] W, W the turn from the canonical basis of the span to x."""
        self._check_frame("tangent_from_frame", x, z)
        by = translation(x)
        return torch.cat(rotated(by, _no_top(z), z), -2) @ by.turn

    @operation
    def frame_from_tangent(self, x: Tensor, u: Tensor) -> Tensor:
        """The last n - p rows of R_x^T u W^T."""
        by = translation(x)
        return rotated(by.backwards, *blocks(u))[1] @ by.turn.mT

    @operation
    def logmap_frame(self, x: Tensor, y: Tensor) -> Tensor:
        """``frame_from_tangent(x, logmap(x, y))``."""
        return self.frame_from_tangent(x, self.logmap(x, y))


def _no_top(z: Tensor) -> Tensor:
    """The first p rows of a tangent vector at the origin. ``*B,n-p,p -> *B,p,p``."""
    return z.new_zeros((*z.shape[:-2], z.shape[-1], z.shape[-1]))
