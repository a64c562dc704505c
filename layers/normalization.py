"""Batch normalisation of points of a manifold."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from torchriemann.manifolds import Manifold
from torchriemann.manifolds.functional.tracing import values_at_hand, values_readable
from torchriemann.manifolds.gyro import GyroManifold
from torchriemann.manifolds.precision import in_full_precision
from torchriemann.manifolds.weights import per_point

from .batch_statistics import Batch, batch_mean, batch_variance, check_options
from .deviations import Deviations, check_space, deviations
from .processes import Processes
from .running_statistics import Domain, RunningStatistics


class GyroBatchNorm(RunningStatistics):
    r"""Batch normalisation on a manifold: the batch gets the mean B and a learned dispersion.

    .. math:: y_i = B \oplus \frac{s}{\sqrt{v^2 + \epsilon}} \odot (\ominus M \oplus x_i), \qquad
              M = \arg\min_m \sum_i d^2(x_i, m), \quad v^2 = \frac1N \sum_i d^2(x_i, M)

    ("gyro" form; Chen et al., "Gyrogroup Batch Normalization", ICLR 2025, Algorithm 1), or in "tangent" form, which
    asks for no gyro structure,

    .. math:: y_i = \exp_B\Bigl(\frac{s}{\sqrt{v^2 + \epsilon}}\, P_{M \to B} \log_M x_i\Bigr)

    with P the parallel transport along the shortest geodesic, or in "basis" form by this map with the P that keeps
    coordinates in ``manifold.basis``, an orthonormal one at each point. Where they exist they differ by rotations about
    B that depend on M and B. With the exact mean the output has the Frechet mean B and the dispersion
    :math:`s^2 v^2 / (v^2 + \epsilon)`; at its start a layer moves the mean to the origin and the dispersion to one.

    On :math:`R^n` it is the batch normalisation of torch with one variance, the sum over the coordinates, and a factor
    s for all of them. With ``SPDAffineInvariant`` it is SPDNetBN (Brooks et al. 2019, arXiv:1909.02414; that without
    scaling) and, with `num_domains`, domain-specific momentum normalisation (Kobler et al. 2022, arXiv:2206.01323);
    with ``SPDLogEuclidean`` and ``SPDLogCholesky``, and in basis form with ``SPDAffineInvariant`` and
    ``SpecialOrthogonal``, it is LieBN (Chen et al. 2024, arXiv:2403.11261): bases there are carried by Cholesky
    factors, :math:`y_i = L_B (L_M^{-1} x_i L_M^{-T})^t L_B^T`, and by rotations. With ``Lorentz`` it is the transport
    form of hyperbolic batch normalisation. The direct transport from M to B of Lou et al. 2020 (arXiv:2003.00335) is
    the tangent form. `BuresWassersteinBatchNorm` learns its metric.

    Args:
        manifold: of the points, with fixed options.
        point_shape: P, the shape of one point.
        num_channels: C. None: one mean for all.
        eps: :math:`\epsilon`, in the square of the metric's unit of length.
        momentum: how far the running statistics move towards those of a batch; None: all batches count alike.
        affine: learn s and B; else they are 1 and the origin.
        track_running_stats: keep running statistics for eval mode; else a batch has its own there too.
        karcher_steps: how many Karcher steps lead from the manifold's first guess to the mean of a batch in training;
            None: as many as it takes, by ``manifold.frechet_mean``. Where the gyro-addition is that of a vector space
            (Euclidean, log-Euclidean, log-Cholesky, the flat correlation metrics) the mean is exact after one.
        stats_grad: the derivative of M and v^2 in the batch. "last_step": of the last step, with the point that it
            starts from held fixed: exact on a vector space; on a curved one it lacks terms of relative order K v^2, K
            the curvature (measured: .03 of the gradient at v^2 = .3 with K = -1, and .01 at v^2 = .9 with the
            affine-invariant metric, of which "detach" lacks .4 and .3). "implicit": of the exact mean, for
            ``karcher_steps=None``. "detach": none, cheapest, which can keep deep networks from training.
        form: "gyro", or "tangent" on manifolds without gyro structure, such as Bures-Wasserstein and Stiefel, and where
            a mean may lie beyond the reach of gyro-addition, as that of subspaces at right angles to the origin; or
            "basis" where the bases of the manifold are a smooth frame, such as those of matrices named above. A sphere
            has none, and the output would jump as M moves.
        num_domains: D. Statistics for each domain by itself, s and B in common.
        sync: in training, if torch.distributed is initialised, the statistics are those of the joined batches of all
            processes, as in torch's `SyncBatchNorm`, with their derivatives; batches may differ in size.
        process_group: the processes that share a batch; None: all.

    Shape: ``*N,P -> *N,P``; with `num_channels` ``*N,C,P -> *N,C,P``: channels stand right before the point, and all
    dimensions before them are the batch. ``forward(x, domain)`` with `num_domains` takes the domain of the batch as an
    int, or a tensor of ``torch.long`` with the first, or all, of the leading dimensions ``*N``.

    Attributes:
        scale: log s, ``C``, or ``1`` without channels.
        bias: normal coordinates of B at the origin (of ``manifold.basis`` there without gyro structure), so that any
            optimizer trains it; ``layer.point("bias")`` is B.
        running_mean: ``(D,)(C,)P``, the origin at first. It moves along the geodesic to the mean of a batch.
        running_var: ``(D,)(C,)``, one at first. Of v^2 as above, divided by N, not by N - 1 as in torch.
        num_batches_tracked: ``()`` or ``D``; batches without a finite item do not count.

    What is left out. An item with an entry that is not finite has no part in the statistics, and is NaN in the output.
    A domain, or a channel, of which a batch has no finite item keeps its running statistics; so does one of which the
    statistics come out not finite, as of matrices that are not positive definite. A batch of one item, or of equal
    ones, has v = 0 and gives B.

    Limits. The law of the dispersion ends where a scaled deviation :math:`s\, d(x_i, M)/\sqrt{v^2 + \epsilon}` exceeds
    the injectivity radius, as of a sphere with s = 1 and an outlier at pi deviations. The output consists of points
    there too, and a layer warns once (`RuntimeWarning`; not under compile). Choose s smaller, by ``layer.scale``.

    Numerics. At least float32 inside, whatever the dtypes and autocast; the buffers are float32 at least. Torch
    compiles it as one graph, but for ``karcher_steps=None`` on curved spaces, where the search is unrolled.

    Raises ``ValueError`` for arguments that are out of range, for a form that the manifold does not have, for an `x`
    that does not end in ``(C,)P``, and for a `domain` that is out of range, missing, or given without `num_domains`.

    >>> norm = GyroBatchNorm(SPDAffineInvariant(), (8, 8), num_channels=4)
    >>> x = SPDAffineInvariant().random(32, 4, 8, 8)
    >>> norm(x).shape
    torch.Size([32, 4, 8, 8])
    """

    scale: nn.Parameter | None
    bias: nn.Parameter | None

    def __init__(
        self,
        manifold: Manifold,
        point_shape: tuple[int, ...],
        num_channels: int | None = None,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        karcher_steps: int | None = 1,
        stats_grad: str = "last_step",
        form: str = "gyro",
        num_domains: int | None = None,
        sync: bool = True,
        process_group: Any = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_space(type(self).__name__, manifold, point_shape, form)
        check_options(type(self).__name__, eps, momentum, karcher_steps, stats_grad)
        for name, number in (("num_channels", num_channels), ("num_domains", num_domains)):
            if number is not None and number < 1:
                raise ValueError(f"{type(self).__name__}: {name} must be None or at least 1, got {number}")
        self.manifold = manifold
        self.point_shape = point_shape
        self.num_channels = num_channels
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        self.karcher_steps = karcher_steps
        self.stats_grad = stats_grad
        self.form = form
        self.num_domains = num_domains
        self.sync = sync
        self.process_group = process_group
        self._warned = False
        if affine:
            # Of one number and not of none: a tensor without a dimension cannot be sharded.
            self.scale = nn.Parameter(torch.zeros(num_channels or 1, device=device, dtype=dtype))
            self.register_point("bias", manifold, self._shape, "tangent", device=device, dtype=dtype)
        else:
            self.register_parameter("scale", None)
            self.register_parameter("bias", None)
        domains = () if num_domains is None else (num_domains,)
        self.register_statistics((*domains, *self._shape), track_running_stats, device, dtype)

    @property
    def _shape(self) -> tuple[int, ...]:
        """Of the bias, ``(C,)P``."""
        return (*(() if self.num_channels is None else (self.num_channels,)), *self.point_shape)

    def reset_parameters(self) -> None:
        """s = 1, the bias at the origin, and the running statistics as new."""
        self.reset_running_stats()
        if self.scale is not None:
            with torch.no_grad():
                self.scale.zero_()
            self.set_point("bias")

    def forward(self, x: Tensor, domain: Domain = None) -> Tensor:
        """The normalised points, in the shape of `x`."""
        self._check(x, domain)
        return self._normalized(x, self.metric(), domain)

    def metric(self) -> Manifold:
        """The manifold of today: `manifold`, in a subclass with options that it learns."""
        return self.manifold

    def refit(self, x: Tensor, domain: int | None = None) -> None:
        """Set the running statistics, of one domain if there are domains, to those of `x`, with the mean to tolerance.

        Labels are not needed: so a trained network is fitted to the data of a new domain. It counts as the first batch
        of that domain. Nothing else changes, and nothing happens if `x` has no finite item.

        Raises ``ValueError`` as `forward` does, for a tensor as `domain`, and without running statistics.
        """
        if not self.track_running_stats:
            raise ValueError(f"{type(self).__name__}: refit needs track_running_stats=True")
        if isinstance(domain, Tensor):
            raise ValueError(
                f"{type(self).__name__}: refit takes the index of one domain, got a tensor; call it once for each"
            )
        self._check(x, domain)
        self._refit(x, self.metric(), domain)

    # ---- inside -----------------------------------------------------------------------------------------------

    @in_full_precision(points_of="manifold")
    def _normalized(self, x: Tensor, manifold: Manifold, domain: Domain) -> Tensor:
        batch = self._batch(x, manifold, domain)
        space = batch.space
        if self.training or not self.track_running_stats:
            count = batch.count()
            mean = batch_mean(batch, count, self.karcher_steps, self.stats_grad)
            squares, placed = space.recentred(*batch.around(mean))
            variance = batch_variance(batch, count, squares)
            if self.stats_grad == "detach":
                variance = variance.detach()
            if self.track_running_stats:
                self.follow(mean.detach(), variance.detach(), count, domain, space)
        else:
            mean, variance = self.statistics_of(domain, x.dtype)
            squares, placed = space.recentred(*batch.around(space.enter(mean)))
        factor = batch.of_items((variance + self.eps).rsqrt())
        if self.scale is not None:
            factor = self.scale.to(x.dtype).exp().reshape(self._shape[: -manifold.ndim]) * factor
        bias = self._bias(space, manifold, x)
        self._warn_beyond(batch, bias, factor, squares)
        y = space.leave(placed(bias, factor))
        if batch.whole:
            return y.reshape(x.shape)
        finite = per_point(manifold, batch.finite.reshape(x.shape[: x.dim() - manifold.ndim]))
        return torch.where(finite, y.reshape(x.shape), torch.nan)

    @in_full_precision
    def _refit(self, x: Tensor, manifold: Manifold, domain: int | None) -> None:
        with torch.no_grad():
            batch = self._batch(x, manifold, domain)
            count = batch.count()
            mean = batch_mean(batch, count, None, "detach")
            variance = batch_variance(batch, count, batch.space.recentred(*batch.around(mean))[0])
            self.keep(manifold.restore(batch.space.leave(mean)), variance, count > 0, domain)
            seen = self.num_batches_tracked if domain is None else self.num_batches_tracked[domain]
            seen.fill_(1)

    def _batch(self, x: Tensor, manifold: Manifold, domain: Domain) -> Batch:
        """The items of `x` in one row, and what is to know of them."""
        lead = x.shape[: x.dim() - len(self._shape)]
        x = x.reshape(-1, *self._shape)
        index = None
        if isinstance(domain, Tensor):
            index = domain.reshape(domain.shape + (1,) * (len(lead) - domain.dim())).expand(lead).reshape(-1)
        space = deviations(manifold, self.form)
        finite = x.isfinite().flatten(-manifold.ndim).all(-1)
        whole = values_at_hand(finite) and bool(finite.all())
        if not whole:
            origin = manifold.origin(*self._shape, dtype=x.dtype, device=x.device)
            x = torch.where(per_point(manifold, finite), x, origin)  # decompositions refuse NaN
        processes = Processes(self.process_group, self.sync)
        return Batch(space, space.enter(x), finite, whole, index, self.num_domains or 1, processes)

    def _bias(self, space: Deviations, manifold: Manifold, x: Tensor) -> Tensor:
        """B, as the space takes it."""
        if self.bias is not None:
            return self.bias.to(x.dtype) if space.bias_by_coordinates else space.enter(self.point("bias", x.dtype))
        origin = manifold.origin(*self._shape, dtype=x.dtype, device=x.device)
        if space.bias_by_coordinates and isinstance(manifold, GyroManifold):
            return manifold.to_normal(origin)
        return space.enter(origin)

    def _warn_beyond(self, batch: Batch, bias: Tensor, factor: Tensor, squares: Tensor) -> None:
        """Once, where the law of the dispersion ends; not where the numbers cannot be read, as under compile."""
        if self._warned or batch.space.linear or not all(map(values_readable, (bias, factor, squares))):
            return
        with torch.no_grad():
            try:
                # By coordinates there is gyro-addition, and with it one radius everywhere.
                radius = batch.space.manifold.injectivity_radius(None if batch.space.bias_by_coordinates else bias)
            except NotImplementedError:  # it is not known
                return
            if not isinstance(radius, Tensor) and math.isinf(radius):
                return
            far = torch.where(batch.finite, factor * squares.clamp(min=0).sqrt(), 0.0)
            self._warned = bool((far > radius).any())
        if self._warned:
            warnings.warn(
                f"{type(self).__name__}: scaled deviations of up to {float(far.max()):.3g} go beyond the injectivity "
                f"radius of {type(self.manifold).__name__}, {float(torch.as_tensor(radius).min()):.3g}: the output "
                "consists of points, but its dispersion is not s^2 v^2/(v^2 + eps). Choose a smaller s = "
                "exp(scale), as by torch.nn.init.constant_(layer.scale, -1.0), or a larger eps. This is said once",
                RuntimeWarning,
                stacklevel=5,
            )

    def _check(self, x: Tensor, domain: Domain) -> None:
        if not isinstance(x, Tensor) or not x.is_floating_point():
            got = x.dtype if isinstance(x, Tensor) else type(x).__name__
            raise ValueError(f"{type(self).__name__}: x must be a floating-point tensor of points, got {got}")
        shape = self._shape
        if x.dim() < len(shape) or tuple(x.shape[x.dim() - len(shape) :]) != shape:
            channels = "" if self.num_channels is None else f"num_channels = {self.num_channels} and "
            raise ValueError(
                f"{type(self).__name__}: x must end in {channels}point_shape = {tuple(self.point_shape)}, after any "
                f"leading dimensions, got {tuple(x.shape)}"
            )
        self.check_domain(domain, tuple(x.shape[: x.dim() - len(shape)]))

    def extra_repr(self) -> str:
        """The arguments, for ``print(module)``."""
        names = [name for name in inspect.signature(type(self)).parameters if name not in ("device", "dtype")]
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)
