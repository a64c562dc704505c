"""The wrapped normal distribution."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

from .checks import described
from .gyro import GyroManifold, is_gyro
from .precision import in_full_precision
from .turns import log_turns, log_turns_together


class WrappedNormal(Distribution):
    r"""The law of ``exp_loc(u)`` with a normal tangent vector u (Nagano et al., arXiv:1902.02992).

    ``u`` has the frame coordinates ``z ~ N(0, Sigma)``: normal coordinates transported from the origin to `loc`. The
    density refers to the Riemannian volume,

    .. math:: \log p(x) = \log N(z; 0, \Sigma) - \log|\det d(\exp_{loc})_u|, \qquad z = \log_{loc}(x)
              \text{ in frame coordinates},

    so that it is the same in all models of one space. With a single radius r = |z| and K < 0 the determinant is
    ``(sinh(sqrt|K| r)/(sqrt|K| r))^(d-1)``, taken as a logarithm, which does not overflow.

    Closed geodesics. On a space of constant K > 0, and on such a factor of a composite, a draw may go around: the
    density sums over the turns, three either way, which is exact to rounding for standard deviations up to
    2.5/sqrt(K). From dimension 2 on it has integrable poles at the antipode of `loc`, and at `loc` itself, where the
    turns are left out. With `scale_tril` at most four factors may be closed: `log_prob` raises ``NotImplementedError``
    beyond. On other spaces of finite injectivity radius `log_prob` counts the shortest geodesic only: a lower bound,
    without the mass of longer draws.

    Args:
        manifold: a `GyroManifold` on which left translations are isometries: any space of constant curvature,
            `Euclidean`, and products of these.
        loc: the centre, ``*B,P``. For K <= 0 it is the Frechet mean.
        scale: standard deviations of the frame coordinates: a number, or a tensor that broadcasts to ``*B,Z``, where Z
            is ``manifold.normal_shape(P)``.
        scale_tril: instead of `scale`, a Cholesky factor of Sigma, ``*B,d,d`` with d the number of coordinates.

    `batch_shape` is ``*B`` and `event_shape` P. Samples are reparametrised: `rsample` is differentiable in `loc`, the
    scale and the options of the manifold. Draws come from torch's global generator unless one is given.

    Raises ``ValueError`` for a manifold without normal coordinates, both or neither of the two scales, shapes that do
    not broadcast, and (unless ``validate_args=False``) for a scale that is not positive and points off the manifold.
    `variance`, `stddev` and `entropy`, which have no meaning or no closed form here, raise ``NotImplementedError``.

    >>> law = WrappedNormal(Lorentz(), Lorentz().origin(3), 0.5)
    >>> law.log_prob(law.rsample((100,))).shape
    torch.Size([100])
    """

    has_rsample = True

    def __init__(
        self,
        manifold: GyroManifold,
        loc: Tensor,
        scale: float | Tensor | None = None,
        *,
        scale_tril: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        if not is_gyro(manifold):
            raise ValueError(
                f"WrappedNormal: manifold must have normal coordinates, as Lorentz() has, got {described(manifold)}"
            )
        if (scale is None) == (scale_tril is None):
            raise ValueError("WrappedNormal: exactly one of scale and scale_tril must be given")
        _check_tensor("loc", loc)
        manifold.check_operands("WrappedNormal", [loc])
        self.manifold = manifold
        event_shape = loc.shape[loc.dim() - manifold.ndim :]
        self._normal_shape = torch.Size(manifold.normal_shape(tuple(event_shape)))
        given = torch.as_tensor(scale if scale_tril is None else scale_tril, dtype=loc.dtype, device=loc.device)
        own = self._normal_shape if scale_tril is None else torch.Size([self._normal_shape.numel()] * 2)
        batch_shape, given = _broadcast(loc.shape[: loc.dim() - manifold.ndim], given, own, scale_tril is None)
        self.loc = loc.expand(batch_shape + event_shape)
        if scale_tril is None:
            self.scale = given
        else:
            self.scale_tril = given
        checked = self._validate_args if validate_args is None else validate_args
        if checked:
            self._check_parameters()
        # Checked already: torch's messages print the tensors and name no mend.
        super().__init__(batch_shape, event_shape, validate_args=False)
        self._validate_args = checked

    def _check_parameters(self) -> None:
        _check_on_manifold(self.manifold, "loc", self.loc)
        if "scale" in self.__dict__:
            if not bool((self.scale > 0).all()):  # written so that NaN fails
                raise ValueError(
                    f"WrappedNormal: scale {tuple(self.scale.shape)} must be positive, "
                    f"its least entry is {self.scale.detach().min().item():.3g}; take exp or softplus of it"
                )
        elif not bool(constraints.lower_cholesky.check(self.scale_tril).all()):
            raise ValueError(
                f"WrappedNormal: scale_tril {tuple(self.scale_tril.shape)} must be lower triangular with a positive "
                "diagonal; call torch.linalg.cholesky(covariance)"
            )

    @property
    def arg_constraints(self) -> dict[str, constraints.Constraint]:  # type: ignore[override]
        """`loc` is a point; scales are positive."""
        if "scale" in self.__dict__:
            return {"loc": self.support, "scale": constraints.positive}
        return {"loc": self.support, "scale_tril": constraints.lower_cholesky}

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """The manifold."""
        return OnManifold(self.manifold)

    @property
    def mean(self) -> Tensor:
        """`loc`: the Frechet mean for K <= 0, and for a law that stays within a quarter turn for K > 0."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """Not defined: raises ``NotImplementedError``."""
        raise self._absent("variance", "a point has no coordinates to vary", "manifold.dist2(draws, law.loc).mean(0)")

    @property
    def stddev(self) -> Tensor:
        """Not defined: raises ``NotImplementedError``."""
        raise self._absent(
            "stddev",
            "a point has no coordinates to vary; `scale` is that of the frame coordinates",
            "manifold.dist2(draws, law.loc).mean(0).sqrt()",
        )

    def entropy(self) -> Tensor:
        """No closed form: raises ``NotImplementedError``."""
        raise self._absent("entropy", "the mean log volume factor has no closed form", "-law.log_prob(draws).mean(0)")

    def _absent(self, name: str, reason: str, estimate: str) -> NotImplementedError:
        return NotImplementedError(
            f"WrappedNormal on {self.manifold!r} has no {name}: {reason}; estimate it by {estimate} "
            "of draws = law.rsample((1000,))"
        )

    def expand(self, batch_shape: Any, _instance: Any = None) -> WrappedNormal:
        """The same law with a larger batch."""
        new: Any = self._get_checked_instance(WrappedNormal, _instance)
        batch_shape = torch.Size(batch_shape)
        new.manifold, new._normal_shape = self.manifold, self._normal_shape
        new.loc = self.loc.expand(batch_shape + self.event_shape)
        if "scale" in self.__dict__:
            new.scale = self.scale.expand(batch_shape + self._normal_shape)
        else:
            new.scale_tril = self.scale_tril.expand(batch_shape + self.scale_tril.shape[-2:])
        Distribution.__init__(new, batch_shape, self.event_shape, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @torch.no_grad()
    def sample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Draws, ``*sample_shape,*B,P``."""
        return self.rsample(sample_shape, generator=generator)

    def rsample(self, sample_shape: Any = (), *, generator: torch.Generator | None = None) -> Tensor:
        """Draws, ``*sample_shape,*B,P``, differentiable in the parameters."""
        shape = torch.Size(sample_shape) + self.batch_shape + self._normal_shape
        noise = torch.randn(shape, generator=generator, dtype=self.loc.dtype, device=self.loc.device)
        return self.manifold.expmap_frame(self.loc, self._scaled(noise))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density with respect to the Riemannian volume. ``*S,*B,P -> *S,*B``."""
        if self._validate_args:
            self._validate_sample(value)
        return self._log_density(value, self.loc, self.manifold)

    @in_full_precision
    def _log_density(self, x: Tensor, loc: Tensor, manifold: GyroManifold) -> Tensor:
        z = manifold.logmap_frame(loc, x)
        white = self._whitened(z)
        normal = -0.5 * (white.square() + math.log(2 * math.pi)).sum(-1) - self._log_volume(z.dtype)
        # Left translation is an isometry, so the volume factor at loc is that at the origin.
        u = manifold.tangent_from_normal(z)
        log_p = normal - manifold.logdet_dexp(manifold._origin_of(u), u)
        closed = manifold.closed_factors(tuple(self.event_shape))
        if not closed:
            return log_p
        z = z.flatten(z.dim() - len(self._normal_shape))
        if "scale" in self.__dict__:
            scale = self.scale.to(z.dtype)
            return log_p + log_turns(z, closed, scale.flatten(scale.dim() - len(self._normal_shape)))
        return log_p + log_turns_together(z, closed, self._whitened_rows)

    def _validate_sample(self, value: Tensor) -> None:
        _check_tensor("value", value)
        self.manifold.check_operands("WrappedNormal.log_prob", [self.loc, value])
        _check_on_manifold(self.manifold, "value", value)

    def __repr__(self) -> str:
        own = "scale" if "scale" in self.__dict__ else "scale_tril"
        shapes = f"loc: {tuple(self.loc.shape)}, {own}: {tuple(self.__dict__[own].shape)}"
        return f"WrappedNormal({self.manifold!r}, {shapes})"

    def _scaled(self, noise: Tensor) -> Tensor:
        if "scale" in self.__dict__:
            return self.scale * noise
        flat = noise.flatten(noise.dim() - len(self._normal_shape)).unsqueeze(-1)
        return (self.scale_tril @ flat).squeeze(-1).unflatten(-1, self._normal_shape)

    def _whitened(self, z: Tensor) -> Tensor:
        """Sigma^(-1/2) z, flattened. ``*B,Z -> *B,d``."""
        if "scale" in self.__dict__:
            z = z / self.scale.to(z.dtype)
            return z.flatten(z.dim() - len(self._normal_shape))
        return self._whitened_rows(z.flatten(z.dim() - len(self._normal_shape)))

    def _whitened_rows(self, z: Tensor) -> Tensor:
        triangle = self.scale_tril.to(z.dtype)
        return torch.linalg.solve_triangular(triangle, z.unsqueeze(-1), upper=False).squeeze(-1)

    def _log_volume(self, dtype: torch.dtype) -> Tensor:
        """log det Sigma^(1/2)."""
        if "scale" in self.__dict__:
            log_scale = self.scale.to(dtype).log()
            return log_scale.flatten(log_scale.dim() - len(self._normal_shape)).sum(-1)
        return self.scale_tril.to(dtype).diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _broadcast(batch: torch.Size, given: Tensor, own: torch.Size, loose: bool) -> tuple[torch.Size, Tensor]:
    """The batch of both arguments, and the scale expanded to it. `loose`: a number stands for all coordinates."""
    tail = given.shape[max(given.dim() - len(own), 0) :]
    fits = torch.Size([1] * (len(own) - len(tail))) + tail
    if not all(n == m or (loose and n == 1) for n, m in zip(fits, own, strict=True)) or (not loose and tail != own):
        per_point = f"; for one number a point, give scale[{', '.join(['...'] + ['None'] * len(own))}]" if loose else ""
        raise ValueError(
            f"WrappedNormal: the scale of {tuple(own)} normal coordinates has shape {tuple(given.shape)}{per_point}"
        )
    try:
        batch = torch.broadcast_shapes(batch, given.shape[: given.dim() - len(tail)])
    except RuntimeError:
        raise ValueError(
            f"WrappedNormal: loc with batch {tuple(batch)} and a scale of shape {tuple(given.shape)} do not broadcast"
        ) from None
    return batch, given.expand(batch + own)


def _check_tensor(name: str, x: object) -> None:
    if not isinstance(x, Tensor):
        raise ValueError(f"WrappedNormal: {name} must be a tensor, got {type(x).__name__}; call torch.as_tensor")


def _check_on_manifold(manifold: GyroManifold, name: str, x: Tensor) -> None:
    on_manifold, reason = manifold.check_point_on_manifold(x, explain=True)
    if not on_manifold:
        raise ValueError(
            f"WrappedNormal: {name} {tuple(x.shape)} is off {manifold!r}: {reason}, "
            "or manifold.from_normal(mu) if it holds normal coordinates mu"
        )


class OnManifold(constraints.Constraint):
    """Points of a manifold. `check` answers for all points together, in the shape of the batch."""

    def __init__(self, manifold: GyroManifold) -> None:
        self.manifold = manifold
        self.event_dim = manifold.ndim  # type: ignore[misc]
        super().__init__()

    def check(self, value: Tensor) -> Tensor:
        """True everywhere if all points lie on the manifold within its tolerance, else False everywhere."""
        ok = self.manifold.check_point_on_manifold(value)
        return torch.full(value.shape[: value.dim() - self.event_dim], bool(ok), device=value.device)

    def __repr__(self) -> str:
        return f"OnManifold({self.manifold!r})"
