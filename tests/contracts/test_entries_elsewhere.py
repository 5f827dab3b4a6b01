"""The contract of base.py is all that solvers and completion use: they find the same of entries that offer nothing else.

The entries here stand for those on the workers of a cluster. There are no positions to ask for, what is measured comes sealed,
so that nobody but its observations can compute with it, and single entries are shown of the held-out part alone.
"""

import numpy as np
import pytest

import dmf
from dmf.observations import Entries
from dmf.solvers.alternating import AlternatingMinimization
from dmf.solvers.descent import GradientDescent
from dmf.solvers.flow import GradientFlow
from dmf.solvers.gauss_newton import GaussNewton
from dmf.solvers.hierarchical import HierarchicalBayes
from dmf.solvers.homotopy import Continuation, VariationalBayes
from dmf.solvers.loop import run

from helpers import start


class Sealed:
    """Measurements that one can hand back and nothing else."""

    __slots__ = ("_content",)

    def __init__(self, content):
        self._content = content


class Elsewhere(Entries):
    """Sampled entries that show what the contract asks for and nothing else."""

    def __init__(self, entries, held_out=False):
        self._there, self._held_out = entries, held_out
        self.shape, self.values = entries.shape, Sealed(entries.values)

    like = property(lambda self: np.empty(0, self._there.dtype))
    n_measurements = property(lambda self: self._there.n_measurements)
    n_distinct = property(lambda self: self._there.n_distinct)
    mean_square = property(lambda self: self._there.mean_square)
    largest = property(lambda self: self._there.largest)
    gain = property(lambda self: self._there.gain)

    @property
    def entries(self):
        assert self._held_out
        return self._there.entries

    @property
    def weights(self):
        assert self._held_out
        return self._there.weights

    def product(self, left, right):
        assert self._held_out
        return self._there.product(left, right)

    def predict(self, left, right):
        return Sealed(self._there.predict(left, right))

    def adjoint(self, weights, left, right):
        return self._there.adjoint(weights._content, left, right)

    def with_values(self, values):
        return Elsewhere(self._there.with_values(values._content))

    def minus(self, left, right):
        return Elsewhere(self._there.minus(left, right))

    def centred(self):
        mean, centred = self._there.centred()
        return mean, Elsewhere(centred)

    def split(self, fraction, seed=0):
        kept, held = self._there.split(fraction, seed)
        return Elsewhere(kept), Elsewhere(held, held_out=True)

    def restricted(self, rows, cols):
        return Elsewhere(self._there.restricted(rows, cols))

    def _moved(self, device):
        return Elsewhere(self._there._moved(device))


def _handed_on(name):
    return lambda self, *arguments, **options: getattr(self._there, name)(*arguments, **options)


for _name in (
    "best_scale", "connectivity", "counts", "descent", "evaluate", "fill", "loss", "pattern_product", "ridge", "spread",
    "surrogate_svd", "tangent_normal", "tangent_step",
):  # fmt: skip
    setattr(Elsewhere, _name, _handed_on(_name))
Elsewhere.__abstractmethods__ = frozenset()


def table(rng, noise=0.1, offsets=0.0, weighted=False):
    """Entries of a matrix of rank 2; the last row is empty, and one position is seen twice."""
    matrix = rng.standard_normal((41, 2)) @ rng.standard_normal((2, 30)) + offsets * (3 + rng.standard_normal((41, 1)))
    rows, cols = np.nonzero(rng.random((40, 30)) < 0.5)
    rows, cols = np.append(rows, rows[0]), np.append(cols, cols[0])
    values = matrix[rows, cols] + noise * rng.standard_normal(rows.size)
    return dmf.SampledEntries(rows, cols, values, matrix.shape, rng.uniform(0.5, 2, rows.size) if weighted else None)


SOLVERS = {
    "gradient descent": GradientDescent(0.05),
    "gradient flow": GradientFlow(),
    "alternating minimization": AlternatingMinimization(0.1),
    "variational Bayes": VariationalBayes(),
    "continuation": Continuation(),
    "Gauss-Newton": GaussNewton(),
    "hierarchical Bayes": HierarchicalBayes(3),
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("name", SOLVERS)
def test_every_solver_finds_the_same(name, weighted, rng):
    here, solver = table(rng, weighted=weighted), SOLVERS[name]
    begin = None if isinstance(solver, HierarchicalBayes) else start(here)
    products = []
    for observations in (here, Elsewhere(here)):
        model = run(solver, observations, begin, iterations=4).model
        products.append(model.factors()[0] @ model.factors()[1])
    np.testing.assert_array_equal(*products)


def test_the_largest_curvature_is_the_same(rng):
    here = table(rng)
    found = [dmf.solvers.largest_curvature(data, start(here)) for data in (here, Elsewhere(here))]
    assert found[0] == found[1]


CALLS = {
    "noise": ({}, {"offsets": False}),
    "no noise": ({"noise": 0.0}, {}),
    "offsets and a hold-out": ({"offsets": 1.0}, {"holdout": 0.2, "bounds": (-5, 9)}),
    "weights": ({"weighted": True, "offsets": 1.0}, {"rank": 4}),
}


@pytest.mark.parametrize(("data", "options"), CALLS.values(), ids=CALLS)
def test_completion_finds_the_same(data, options, rng):
    here = table(rng, **data)
    one, other = (dmf.complete(observations, **options) for observations in (here, Elsewhere(here)))
    np.testing.assert_array_equal(other.filled(), one.filled())
    assert other.found == one.found and other.outcome == one.outcome
    assert (one.heldout is None) == (other.heldout is None)
    if one.heldout is not None:
        assert other.heldout.rmse == one.heldout.rmse and other.heldout.quantiles == one.heldout.quantiles


def test_the_rank_path_is_the_same(rng):
    here = table(rng)
    one, other = (dmf.completion.rank_path(observations, 3) for observations in (here, Elsewhere(here)))
    assert [step.heldout_rmse for step in other.steps] == [step.heldout_rmse for step in one.steps]
    np.testing.assert_allclose([s.train_rmse for s in other.steps], [s.train_rmse for s in one.steps], rtol=1e-12)
