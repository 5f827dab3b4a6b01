"""What several suites share: array libraries, kinds of observations, dense oracles, rounding bounds, an example model."""

from __future__ import annotations

import textwrap
from functools import reduce

import array_api_strict
import numpy as np
import pytest
import scipy.sparse
from hypothesis import settings
from hypothesis import strategies as st
from scipy.sparse.linalg import aslinearoperator

import dmf
from dmf.arrays.backend import cupy_module, namespace, to_host
from dmf.models import LowRank
from dmf.models.offsets import Offsets
from dmf.recovery import Found, HeldOut, Outliers, Plan, Recovery, StageRun
from dmf.solvers import History, Outcome
from dmf.solvers.homotopy import VariationalBayes

# Strict arrays off the default device catch implicit NumPy conversions and a missing `device=`.
DEVICE = array_api_strict.Device("device1")


def on_device1(host):
    return array_api_strict.asarray(np.asarray(host), device=DEVICE)


def _missing_cuda():
    """Why no CUDA device can be used; empty where one can."""
    try:
        cupy_module()
    except dmf.errors.MissingPackageError as error:
        return str(error)
    return ""


NO_CUDA = _missing_cuda()
LIBRARIES = {"numpy": np.asarray, "strict": on_device1}
if not NO_CUDA:  # the suites then run on CuPy arrays, too; tests/conftest.py marks them "gpu"
    LIBRARIES["cupy"] = lambda host: cupy_module().asarray(host)
OTHERS = [name for name in LIBRARIES if name != "numpy"]
WITH_KERNELS = [name for name in LIBRARIES if name != "strict"]
DTYPES = {"float32": np.float32, "float64": np.float64}

seeds = st.integers(0, 2**32 - 1)


def examples(number):
    """So many examples of a property on each push; ten times as many with --hypothesis-profile=thorough."""
    return settings(max_examples=number * settings.default.max_examples // settings.get_profile("dmf").max_examples)


def code_blocks(text):
    """The indented blocks after two colons of a docstring."""
    found, block = [], None
    for line in text.splitlines():
        if line.startswith("    ") or not line.strip():
            if block is not None:
                block.append(line)
        else:
            block = None
            if line.endswith("::"):
                block = []
                found.append(block)
    return [textwrap.dedent("\n".join(block)) for block in found]


class TwoSided:
    """The linear map ``X -> vec(B X C)`` as an object with `forward`, `adjoint` and `shape`."""

    def __init__(self, left, right):
        self.left, self.right = left, right
        self.shape = left.shape[1], right.shape[0]

    def forward(self, matrix):
        xp = namespace(self.left)
        return xp.reshape(self.left @ matrix @ self.right, (-1,))

    def adjoint(self, weights):
        xp = namespace(self.left)
        dense = xp.reshape(weights, (self.left.shape[0], self.right.shape[1]))
        return xp.matrix_transpose(self.left) @ dense @ xp.matrix_transpose(self.right)


def _full(rng, shape, dtype, move):
    return dmf.FullMatrix(move(rng.standard_normal(shape).astype(dtype)))


def _entries(rng, shape, dtype, move):
    """Half of the entries, a quarter of these twice, in random order."""
    d1, d2 = shape
    index = rng.permutation(d1 * d2)[: max(2, d1 * d2 // 2)]
    index = rng.permutation(np.concatenate([index, index[: index.size // 4]]))
    rows, cols = np.divmod(index, d2)
    return dmf.SampledEntries(move(rows), move(cols), move(rng.standard_normal(index.size).astype(dtype)), shape)


def _weighted(rng, shape, dtype, move):
    plain = _entries(rng, shape, dtype, np.asarray)
    weights = 10 ** rng.uniform(-1, 1, plain.n_measurements)
    weights[1] = 0
    return dmf.SampledEntries(*map(move, (plain.rows, plain.cols, plain.values)), shape, move(weights.astype(dtype)))


def _linear(rng, shape, dtype, move):
    count = max(2, shape[0] * shape[1] // 2)
    operator, values = rng.standard_normal((count, *shape)), rng.standard_normal(count)
    return dmf.LinearMeasurements(move(operator.astype(dtype)), move(values.astype(dtype)))


def _operator(rng, shape, dtype, move):
    left, right = rng.standard_normal((3, shape[0])), rng.standard_normal((shape[1], 4))
    operator = TwoSided(move(left.astype(dtype)), move(right.astype(dtype)))
    return dmf.LinearMeasurements(operator, move(rng.standard_normal(12).astype(dtype)))


def _rank_one(rng, shape, dtype, move):
    count = max(2, shape[0] * shape[1] // 2)
    arrays = (rng.standard_normal(size) for size in ((count, shape[0]), (count, shape[1]), count))
    return dmf.RankOneMeasurements(*(move(array.astype(dtype)) for array in arrays))


def _transform(transform, signs):
    def make(rng, shape, dtype, move):
        operator = dmf.SubsampledTransform(
            rng.permutation(shape[0] * shape[1])[: max(2, shape[0] * shape[1] // 2)],
            shape,
            transform=transform,
            signs=signs,
            seed=int(rng.integers(2**31)),
        )
        return dmf.LinearMeasurements(operator, rng.standard_normal(operator.n_measurements).astype(dtype))

    return make


def _sparse(wrap):
    def make(rng, shape, dtype, move):
        count, size = max(2, shape[0] * shape[1] // 2), shape[0] * shape[1]
        matrix = rng.standard_normal((count, size)) * (rng.random((count, size)) < 0.4)
        return dmf.LinearMeasurements(wrap(matrix.astype(dtype)), rng.standard_normal(count).astype(dtype), shape)

    return make


def _part(make, which):
    return lambda *args: make(*args).split(0.4, seed=1)[which]


# Every implementation of the contract `Observations`, and what `split` makes of each.
KINDS = {
    "full": _full,
    "entries": _entries,
    "weighted entries": _weighted,
    "linear array": _linear,
    "linear object": _operator,
    "part of full": _part(_full, 0),
    "part of entries": _part(_entries, 0),
    "part of weighted entries": _part(_weighted, 1),
    "part of linear array": _part(_linear, 1),
    "part of linear object": _part(_operator, 0),
    "part of a part of linear array": _part(_part(_linear, 0), 0),
    "rank one": _rank_one,
    "part of rank one": _part(_rank_one, 1),
    "part of a part of rank one": _part(_part(_rank_one, 0), 0),
    "cosine transform": _transform("dct", False),
    "sine transform after signs": _transform("dst", True),
    "part of cosine transform after signs": _part(_transform("dct", True), 0),
    "sparse matrix": _sparse(scipy.sparse.csc_matrix),
    "part of sparse array": _part(_sparse(scipy.sparse.coo_array), 0),
    "linear operator": _sparse(aslinearoperator),
    "part of a part of linear operator": _part(_part(_sparse(aslinearoperator), 0), 1),
}
# One of each class; the others differ in how they are made, or in their operator.
BASE = ["full", "entries", "weighted entries", "linear array", "linear object", "rank one"]
NUMPY_ONLY = [kind for kind in KINDS if "transform" in kind or "sparse" in kind or "linear operator" in kind]


CASES = [(kind, library) for kind in KINDS for library in LIBRARIES if library == "numpy" or kind not in NUMPY_ONLY]


def over(cases):
    """Run a test with the `kind` of observation and the `move` to a library of each case."""
    moves = [(kind, LIBRARIES[library]) for kind, library in cases]
    return pytest.mark.parametrize(("kind", "move"), moves, ids=["-".join(case) for case in cases])


def observe(kind, seed=0, shape=(6, 5), dtype=np.float64, move=np.asarray):
    """Observations of a kind, with random data."""
    return KINDS[kind](np.random.default_rng(seed), shape, dtype, move)


def like(observations, host):
    """Host array in the library, dtype and device of the observations."""
    values = observations.values
    if isinstance(values, np.ndarray):
        return np.asarray(host, dtype=values.dtype)
    xp = namespace(values)
    return xp.asarray(np.asarray(host), dtype=values.dtype, device=values.device)


def dense_form(observations):
    """The map A as a host matrix (m, d1 * d2), one column for each unit matrix."""
    d1, d2 = observations.shape
    rows, cols = np.eye(d1), np.eye(d2)
    columns = [
        to_host(observations.predict(like(observations, rows[:, i : i + 1]), like(observations, cols[j : j + 1])))
        for i in range(d1)
        for j in range(d2)
    ]
    return np.stack(columns, axis=1)


def random_weights(rng, sizes, dtype=np.float64, scale=1.0):
    """(W_1, ..., W_L) for sizes (d2, w_1, ..., w_{L-1}, d1)."""
    return tuple(
        (scale * rng.standard_normal((rows, columns))).astype(dtype)
        for columns, rows in zip(sizes, sizes[1:], strict=False)
    )


def start(observations, depth=2, width=4, scale=0.3, seed=17):
    """A random network like the observations; width 4 keeps sampled entries on the compiled chunk."""
    d1, d2 = observations.shape
    sizes = (d2, *[width] * (depth - 1), d1)
    weights = random_weights(np.random.default_rng(seed), sizes, scale=scale)
    return dmf.DeepLinearNetwork(like(observations, w) for w in weights)


def dense_product(weights):
    return reduce(lambda below, weight: weight @ below, weights)


def dense_loss_and_gradients(matrix, values, weights):
    """``1/2 ||A vec(W_L...W_1) - y||^2`` and its gradients by the chain rule, everything dense."""
    product = dense_product(weights)
    residual = matrix @ product.ravel() - values
    outer = (matrix.T @ residual).reshape(product.shape)
    gradients = []
    for layer in range(len(weights)):
        gradient = outer
        if weights[layer + 1 :]:
            gradient = dense_product(weights[layer + 1 :]).T @ gradient
        if weights[:layer]:
            gradient = gradient @ dense_product(weights[:layer]).T
        gradients.append(gradient)
    return 0.5 * residual @ residual, tuple(gradients)


def absolute_loss_and_gradients(matrix, values, weights):
    """The same polynomials with every term replaced by its absolute value.

    A sum of products computed in any order with at most K roundings on the way of each term has an error of at most
    ``K eps/2`` times the sum of the absolute terms, so two ways of computing it differ by at most K eps times that.
    """
    weights = tuple(np.abs(w.astype(np.float64)) for w in weights)
    return dense_loss_and_gradients(np.abs(matrix.astype(np.float64)), -np.abs(values.astype(np.float64)), weights)


def roundings(observations, weights):
    """At least the number of roundings of a term of the loss or a gradient, in whatever order it is computed."""
    d1, d2 = observations.shape
    widths = sum(w.shape[0] for w in weights)
    return 2 * (widths + len(weights)) + d1 * d2 + d1 + d2 + observations.n_measurements + 16


def example_model(dtype=np.float64, move=np.asarray, *, offsets=True, ids=True, heldout=True):
    """A recovery with every field, of a 4 x 3 matrix."""
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((4, 2)), rng.standard_normal((2, 3))
    u, s, vt = (move(part.astype(dtype)) for part in np.linalg.svd(left @ right, full_matrices=False))
    own = Offsets(0.5, *(move(rng.standard_normal(n).astype(dtype)) for n in (4, 3))) if offsets else None
    message = "After 7 iterations: go on. Übrigens: ∞ 😀."
    return Recovery(
        LowRank(u, s, vt, own).truncated(2),
        Found(2, 0.5, False, offsets, 0.25, 1.5),
        Outcome.BUDGET,
        History(
            {
                "iteration": np.array([0, 5, 7]),
                "loss": np.array([1.0, 0.1, 0.01]),
                "seconds": np.array([0.0, 0.5, 0.6]),
                "held out": np.array([[1.0, np.nan], [2.0, np.inf], [0.0, 3.0]]),
            }
        ),
        Plan(3, "auto", 0.1, (-0.5, np.inf) if offsets else None, 7, 5),
        HeldOut(0.75, 0.125, 3, (0.25, 0.5, 1.0)) if heldout else None,
        (StageRun("noise", "final fit", "VariationalBayes", Outcome.BUDGET, message, 7, 0.6, 2, 0.5),),
        None,
        ("a", "b,", 'c"\n', "ü") if ids else None,
        ("x", "y", "") if ids else None,
        outliers=Outliers(np.array([0, 3]), np.array([2, 0]), np.array([5.0, -7.0], dtype)) if ids else None,
    )


def assert_same_model(one, other):
    for name in ("u", "s", "vt"):
        a, b = getattr(one.model, name), getattr(other.model, name)
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    assert list(one.history) == list(other.history)
    for name in one.history:
        assert one.history[name].dtype == other.history[name].dtype
        np.testing.assert_array_equal(one.history[name], other.history[name])
    assert (one.found, one.outcome, one.settings, one.runs) == (other.found, other.outcome, other.settings, other.runs)
    assert (one.row_ids, one.col_ids) == (other.row_ids, other.col_ids)
    assert (one.heldout is None) == (other.heldout is None)
    if one.heldout is not None:
        for name in ("rmse", "standard_error", "count", "quantiles"):
            assert getattr(one.heldout, name) == getattr(other.heldout, name)
    assert (one.outliers is None) == (other.outliers is None)
    if one.outliers is not None:
        for name in ("rows", "cols", "values"):
            np.testing.assert_array_equal(getattr(one.outliers, name), getattr(other.outliers, name))
    assert (one.offsets is None) == (other.offsets is None)
    if one.offsets is not None:
        assert one.offsets.mean == other.offsets.mean
        for a, b in ((one.offsets.row, other.offsets.row), (one.offsets.col, other.offsets.col)):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


def stages(recovery):
    """Names of the stages of all runs."""
    return [run.stage for run in recovery.runs]


def weights_of(recovery):
    return [to_host(w) for w in recovery.network.weights]


def signs_as_in(weights, expected):
    """The weights of the same network whose components have the signs of the expected ones.

    A library may turn a pair of singular vectors round: rows of one layer with columns of the next.
    """
    weights = [np.array(w) for w in weights]
    for below, above, wanted in zip(weights, weights[1:], expected, strict=False):
        signs = np.where(np.sum(below * wanted, axis=1) < 0, -1, 1).astype(below.dtype)
        below *= signs[:, None]
        above *= signs
    return weights


def assert_same_weights(one, other):
    """Bit for bit."""
    for a, b in zip(weights_of(one), weights_of(other), strict=True):
        np.testing.assert_array_equal(a, b)


def assert_finite(recovery):
    assert np.isfinite(recovery.history.loss).all()
    assert np.isfinite(recovery.history.seconds).all()
    assert all(np.isfinite(w).all() for w in weights_of(recovery))
    assert isinstance(recovery.outcome, Outcome)
    assert recovery.message.endswith(".")


def ctrl_c_at(monkeypatch, call, solver=VariationalBayes):
    """Ctrl-C in call number `call` of the solver; returns the list of its calls."""
    advance, calls = solver.advance, []

    def interrupted(self, data, state, iterations):
        calls.append(iterations)
        if len(calls) == call:
            raise KeyboardInterrupt
        return advance(self, data, state, iterations)

    monkeypatch.setattr(solver, "advance", interrupted)
    return calls


def count_host_reads(monkeypatch, array_type):
    """List that gets the name of each conversion of an array of a device to numbers of the host, from now on."""
    reads, inside = [], []

    def counted(name, method):
        def convert(self, *arguments, **options):
            if not inside:  # conversions call each other
                reads.append(name)
            inside.append(name)
            try:
                return method(self, *arguments, **options)
            finally:
                inside.pop()

        return convert

    for name in ("get", "item", "tolist", "__bool__", "__float__", "__int__"):
        if hasattr(array_type, name):
            monkeypatch.setattr(array_type, name, counted(name, getattr(array_type, name)))
    return reads
