"""Correlation matrices: their points, and one class a metric."""

from .log_scaled import CorrelationLogScaled as CorrelationLogScaled
from .space import Correlation as Correlation
