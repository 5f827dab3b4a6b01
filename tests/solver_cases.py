"""Every solver, problems for it, and a process that ends in the middle of one."""

from __future__ import annotations

import numpy as np

import dmf
from dmf.completion.fit import spectral_start
from dmf.solvers import Adam
from dmf.solvers.alternating import AlternatingMinimization
from dmf.solvers.bench import Factors, OptimizedDescent
from dmf.solvers.descent import CompressedDescent, GradientDescent
from dmf.solvers.flow import GradientFlow
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.homotopy import Continuation, VariationalBayes
from dmf.solvers.implicit import WholeMatrix
from dmf.solvers.packing import split
from dmf.solvers.robust import RobustBayes

from helpers import LIBRARIES, like, observe, start

SOLVERS = {
    "gradient descent": GradientDescent(0.05, 2.0, 0.01, "sum"),
    "Adam": OptimizedDescent(
        Adam(0.05), (2.0, 1.0), Factors(np.linspace(1, 0.5, 1_000)), 0.01, "sum", None, 0, 0
    ),  # rates of the two layers of `start`
    "alternating minimization": AlternatingMinimization(0.1),
    "variational Bayes": VariationalBayes(decay=0.9),
    "continuation": Continuation(decay=0.9),
    "Gauss-Newton": GaussNewton(),
    "gradient flow": GradientFlow(2.0, "sum"),
}
# Those that do not take any start and any kind of observations.
PARTICULAR = {
    "compressed descent": CompressedDescent(0.05, 2.0, 0.01, "sum"),
    "hierarchical Bayes": HierarchicalBayes(2),
    "whole matrix": WholeMatrix(2, 0.5),
    "robust Bayes": RobustBayes(),
}


def problem(name, kind, library):
    """Observations, of this kind where the solver of this name takes any, and a start."""
    if name in ("hierarchical Bayes", "whole matrix"):
        return observe("entries", move=LIBRARIES[library]), None
    observations = observe("entries" if name == "robust Bayes" else kind, move=LIBRARIES[library])
    if name == "robust Bayes":
        return observations, spectral_start(observations, 3, 0)
    if name == "compressed descent":  # which needs something to compress
        rng = np.random.default_rng(0)
        target = rng.standard_normal((9, 1)) @ rng.standard_normal((1, 9))
        observations = dmf.FullMatrix(LIBRARIES[library](target))
        return observations, dmf.orthogonal_network((9, 9), scale=0.3, like=like(observations, np.ones(1)))
    return observations, start(observations)


class KilledError(Exception):
    """As good as the end of the process: nobody catches it."""


class Cut:
    """A solver that ends with an error in its n-th call; else like the one it stands for, also in what it is called."""

    def __init__(self, solver, calls, error=KilledError):
        self._solver, self._left, self._error = solver, calls, error

    def __getattr__(self, name):
        return getattr(self._solver, name)

    def __repr__(self):
        return repr(self._solver)

    def advance(self, data, state, iterations):
        self._left -= 1
        if self._left < 0:
            raise self._error
        return self._solver.advance(data, state, iterations)


def assert_same_run(one, other):
    """All bits of the state, and all of the history but the seconds."""
    for a, b in zip(split(one.state), split(other.state), strict=True):
        for x, y in zip(a, b, strict=True):
            assert getattr(x, "dtype", None) == getattr(y, "dtype", None)
            np.testing.assert_array_equal(x, y)
    assert (one.outcome, one.message, one.findings) == (other.outcome, other.message, other.findings)
    assert list(one.history) == list(other.history)
    for name in set(one.history) - {"seconds"}:
        assert one.history[name].dtype == other.history[name].dtype
        np.testing.assert_array_equal(one.history[name], other.history[name])
    assert np.all(np.diff(other.history.seconds) >= 0)
