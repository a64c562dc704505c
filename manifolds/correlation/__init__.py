"""Correlation matrices: their points, and one class a metric."""

from .log_scaled import CorrelationLogScaled as CorrelationLogScaled
from .off_log import CorrelationOffLog as CorrelationOffLog
from .space import Correlation as Correlation
