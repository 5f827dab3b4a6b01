"""`Observations.ridge` and `gain` for every kind of observation, against dense algebra."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.observations.base import _RIDGE_TOLERANCE
from dmf.observations.linear import _PROBES
from dmf.observations.operators import DenseOperator

from helpers import CASES, DTYPES, dense_form, examples, like, observe, over, seeds

dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
shapes = st.tuples(st.integers(3, 7), st.integers(3, 7))


def is_direct(observations):
    """Whether the regression is solved by factorisation; by conjugate gradients otherwise."""
    return isinstance(observations, (dmf.SampledEntries, dmf.FullMatrix)) or (
        isinstance(observations, dmf.LinearMeasurements) and isinstance(observations.operator, DenseOperator)
    )


kinds_and_libraries = over(CASES)
# By name: observations built here would be built, and kernels compiled, wherever tests are collected.
direct_kinds_and_libraries = over([case for case in CASES if re.search("full|entries|linear array", case[0])])


def design_of(observations, side, factor):
    """Matrix (m, n w) of the map from the fitted factor, flattened, to the measurements, in float64."""
    matrices = dense_form(observations).astype(float).reshape(-1, *observations.shape)
    product = (matrices if side == 0 else matrices.transpose(0, 2, 1)) @ factor
    return product.reshape(product.shape[0], -1)


def added_by(observations, side, variances):
    """What the variances of the given factor add to the diagonals of the normal matrices, (n, w)."""
    if isinstance(observations, dmf.SampledEntries):
        mine, other = observations.rows, observations.cols
        if side == 1:
            mine, other = other, mine
        added, met = np.zeros((observations.shape[side], variances.shape[1])), variances[to_host(other)]
        weights = 1 if observations.weights is None else to_host(observations.weights).astype(float)[:, None]
        np.add.at(added, to_host(mine), weights * met)
        return added
    return np.tile(observations.gain * variances.sum(axis=0), (observations.shape[side], 1))


@kinds_and_libraries
@dtypes
@examples(2)
@given(shape=shapes, seed=seeds, width=st.integers(1, 3), side=st.sampled_from([0, 1]), uncertain=st.booleans())
def test_ridge_satisfies_the_normal_equations(kind, move, dtype, shape, seed, width, side, uncertain):
    """``(D^T D + penalty + added) x = D^T y`` for the dense design D: to rounding, or to the tolerance of the iteration."""
    rng = np.random.default_rng(seed)
    observations = observe(kind, seed, shape, dtype, move)
    factor = rng.standard_normal((shape[1 - side], width)).astype(dtype)
    penalty = rng.uniform(0.1, 3, width).astype(dtype)
    variances = rng.uniform(0, 1, factor.shape).astype(dtype) if uncertain else None
    result = observations.ridge(
        side,
        like(observations, factor),
        like(observations, penalty),
        like(observations, variances) if uncertain else None,
    )
    assert result.rows.dtype == observations.dtype
    assert result.rows.device == observations.values.device
    rows = to_host(result.rows).astype(float)
    assert rows.shape == (shape[side], width)
    direct = is_direct(observations)
    assert (result.variances is not None) == (direct and uncertain)
    design, values = design_of(observations, side, factor.astype(float)), to_host(observations.values).astype(float)
    added = added_by(observations, side, variances) if direct and uncertain else np.zeros_like(rows)
    ridge = (added + penalty).ravel()
    normal, target = design.T @ design + np.diag(ridge), design.T @ values
    eps = 100 * rows.size * np.finfo(dtype).eps
    if direct:
        terms = np.abs(design).T @ (np.abs(design) @ np.abs(rows.ravel()) + np.abs(values)) + ridge * np.abs(
            rows.ravel()
        )
        assert np.linalg.norm(normal @ rows.ravel() - target) <= eps * np.linalg.norm(terms)
    else:
        scale = 1 / np.sqrt(observations.gain * np.sum(factor.astype(float) ** 2, axis=0) + penalty)
        scale = np.tile(scale, shape[side])
        residual = np.linalg.norm(scale * (normal @ rows.ravel() - target))
        assert residual <= (1.01 * _RIDGE_TOLERANCE + eps) * np.linalg.norm(scale * target)
    residual = design @ rows.ravel() - values
    size = np.abs(design) @ np.abs(rows.ravel()) + np.abs(values)
    assert isinstance(result.square, float)
    assert abs(result.square - residual @ residual) <= eps * (size @ size)
    if result.variances is None:
        assert result.uncertainty == result.freedom == 0
        return
    exact = 1 / np.diag(normal)  # the posterior factorises over all numbers
    np.testing.assert_allclose(to_host(result.variances).ravel(), exact, rtol=eps)
    np.testing.assert_allclose(result.uncertainty, np.sum(rows**2 * added), rtol=eps)
    seen = np.sum(design**2, axis=0) + added.ravel()
    np.testing.assert_allclose(result.freedom, seen @ exact, rtol=eps)


@direct_kinds_and_libraries
@examples(2)
@given(seed=seeds, width=st.integers(1, 3), side=st.sampled_from([0, 1]))
def test_freedom_is_at_least_the_trace_of_the_hat_matrix(kind, move, seed, width, side):
    """``tr D N^-1 D^T <= <diag D^T D, 1 / diag N>``: what the variances of the numbers, each given the others, add.

    Equal where the normal matrix is diagonal, as for sampled entries and width 1.
    """
    observations = observe(kind, seed, move=move)
    rng = np.random.default_rng(seed)
    factor, penalty = rng.standard_normal((observations.shape[1 - side], width)), rng.uniform(0.1, 3, width)
    freedom = observations.ridge(
        side, like(observations, factor), like(observations, penalty), like(observations, 0 * factor)
    ).freedom
    design = design_of(observations, side, factor)
    normal = design.T @ design + np.diag(np.tile(penalty, observations.shape[side]))
    trace = np.trace(design @ np.linalg.inv(normal) @ design.T)
    assert freedom >= trace * (1 - 1e-12)
    if width == 1 and isinstance(observations, dmf.SampledEntries):
        np.testing.assert_allclose(freedom, trace, rtol=1e-12)


@kinds_and_libraries
@pytest.mark.parametrize("side", [0, 1])
def test_ridge_is_a_minimum(kind, move, side, rng):
    """The penalised square is lower than at points around the solution; a solution as start is kept."""
    observations = observe(kind, move=move)
    factor, penalty = rng.standard_normal((observations.shape[1 - side], 2)), np.array([0.5, 2.0])
    moved = like(observations, factor), like(observations, penalty)
    result = observations.ridge(side, *moved)
    design, values = design_of(observations, side, factor), to_host(observations.values)

    def objective(rows):
        return np.sum((design @ rows.ravel() - values) ** 2) + np.sum(penalty * rows**2)

    rows = to_host(result.rows)
    for _ in range(5):
        step = 0.1 * rng.standard_normal(rows.shape)
        assert objective(rows) < objective(rows + step)
    again = observations.ridge(side, *moved, start=result.rows)
    np.testing.assert_allclose(to_host(again.rows), rows, rtol=1e-12, atol=1e-12)


@kinds_and_libraries
@examples(2)
@given(shape=shapes, seed=seeds)
def test_gain_is_the_mean_square_of_the_map(kind, move, shape, seed):
    """``||A||_F^2 / (d1 d2)``, to rounding; where it is estimated from Gaussian matrices, within 5 standard deviations."""
    observations = observe(kind, seed, shape, move=move)
    assert isinstance(observations.gain, float)
    matrix = dense_form(observations)
    exact = np.sum(matrix**2) / (shape[0] * shape[1])
    tolerance = 1e-12
    if isinstance(observations, dmf.LinearMeasurements):
        tolerance = 5 * np.sqrt(2 / _PROBES) * np.linalg.norm(matrix @ matrix.T) / np.sum(matrix**2)
    assert abs(observations.gain - exact) <= tolerance * exact
