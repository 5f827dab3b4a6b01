"""Solvers: one driver loop, one file for each method."""

from dmf.solvers.alternating import alternating_minimization
from dmf.solvers.continuation import continuation, variational_bayes
from dmf.solvers.driver import Snapshot
from dmf.solvers.gradient_descent import gradient_descent, largest_curvature
from dmf.solvers.gradient_flow import follow_gradient_flow
from dmf.solvers.refine import refine

__all__ = [
    "Snapshot",
    "alternating_minimization",
    "continuation",
    "follow_gradient_flow",
    "gradient_descent",
    "largest_curvature",
    "refine",
    "variational_bayes",
]
