"""Symmetric positive definite matrices: their points, and one class a metric."""

from .space import SPD as SPD
