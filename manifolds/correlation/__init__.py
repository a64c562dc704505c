"""Correlation matrices: their points, and one class a metric."""

from .euclidean_cholesky import CorrelationEuclideanCholesky as CorrelationEuclideanCholesky
from .log_euclidean_cholesky import CorrelationLogEuclideanCholesky as CorrelationLogEuclideanCholesky
from .log_scaled import CorrelationLogScaled as CorrelationLogScaled
from .off_log import CorrelationOffLog as CorrelationOffLog
from .poly_hyperbolic import CorrelationPolyHyperbolic as CorrelationPolyHyperbolic
from .space import Correlation as Correlation
