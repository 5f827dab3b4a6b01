"""Solvers: one driver loop, one file for each method."""

from dmf.solvers.alternating import alternating_minimization
from dmf.solvers.checkpoints import Checkpoint
from dmf.solvers.curvature import Curvature, largest_curvature
from dmf.solvers.descent import gradient_descent
from dmf.solvers.flow import follow_gradient_flow
from dmf.solvers.gauss_newton import refine
from dmf.solvers.homotopy import continuation, variational_bayes
from dmf.solvers.implicit import implicit_feedback
from dmf.solvers.loop import Snapshot
from dmf.solvers.losses import Huber, Logistic, Poisson, Squared
from dmf.solvers.optimizers import SGD, Adam
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History, Run

__all__ = [
    "SGD",
    "Adam",
    "Checkpoint",
    "Curvature",
    "History",
    "Huber",
    "Logistic",
    "Outcome",
    "Poisson",
    "Run",
    "Snapshot",
    "Squared",
    "alternating_minimization",
    "continuation",
    "follow_gradient_flow",
    "gradient_descent",
    "implicit_feedback",
    "largest_curvature",
    "refine",
    "variational_bayes",
]
