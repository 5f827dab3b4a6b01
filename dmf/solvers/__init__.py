"""Solvers: one driver loop, one file for each method."""

from dmf.solvers.alternating import alternating_minimization
from dmf.solvers.driver import Snapshot
from dmf.solvers.gradient_descent import gradient_descent, largest_curvature

__all__ = ["Snapshot", "alternating_minimization", "gradient_descent", "largest_curvature"]
