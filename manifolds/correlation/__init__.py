"""Correlation matrices: their points, and one class a metric."""

from .space import Correlation as Correlation
