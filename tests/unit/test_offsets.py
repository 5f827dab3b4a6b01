"""Mean, row and column offsets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.backend import to_host
from dmf.offsets import _ROUNDS, Offsets, fit_offsets

from helpers import DTYPES, KINDS, LIBRARIES, dense_form, observe, seeds

EPS = np.finfo(float).eps


def table(offsets):
    left, right = map(to_host, offsets.factors())
    return left @ right


@given(d1=st.integers(1, 6), d2=st.integers(1, 6), seed=seeds)
def test_factors_multiply_to_the_table(d1, d2, seed):
    rng = np.random.default_rng(seed)
    offsets = Offsets(rng.standard_normal(), rng.standard_normal(d1), rng.standard_normal(d2))
    expected = offsets.mean + offsets.row[:, None] + offsets.col
    np.testing.assert_allclose(table(offsets), expected, rtol=0, atol=20 * EPS)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_additive_tables_are_recovered(move, share, rng):
    """Without noise the ridge falls to 1e-8 of the variance and the solver ends at 1e-6 of the right-hand side.

    A factor of 10 is left for the conditioning of the sampled table.
    """
    truth = 3.0 + rng.standard_normal(25)[:, None] + 2 * rng.standard_normal(20)
    rows, cols = np.nonzero(rng.random(truth.shape) < share)
    offsets = fit_offsets(dmf.SampledEntries(move(rows), move(cols), move(truth[rows, cols]), truth.shape))
    assert np.linalg.norm(table(offsets) - truth) <= 1e-5 * np.linalg.norm(truth)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_offsets_have_library_dtype_and_device_of_the_observations(kind, dtype, move):
    observations = observe(kind, dtype=dtype, move=move)
    offsets = fit_offsets(observations)
    assert isinstance(offsets.mean, float)
    for array, size in zip((offsets.row, offsets.col), observations.shape, strict=True):
        assert type(array) is type(observations.values)
        assert array.dtype == observations.dtype
        assert array.device == observations.values.device
        assert array.shape == (size,)
        assert np.isfinite(to_host(array)).all()


def dense_offsets(observations):
    """The same estimate with dense normal equations: ``(B^T B + diag(ridge)) x = B^T (y - mean)`` in each round."""
    d1, d2 = observations.shape
    matrix, values = dense_form(observations), observations.values
    unit = matrix.sum(axis=1)  # A(1 1^T)
    mean = unit @ values / (unit @ unit)
    cube = matrix.reshape(-1, d1, d2)
    design = np.concatenate([cube.sum(axis=2), cube.sum(axis=1)], axis=1)
    counts = np.abs(design.T @ unit)
    target = values - mean * unit
    total = target @ target / values.size
    noise, row_variance, col_variance = total, total / 4, total / 4
    for _ in range(_ROUNDS):
        floor = 1e-8 * total
        variances = np.repeat([max(row_variance, floor), max(col_variance, floor)], [d1, d2])
        ridge = max(noise, floor) / variances
        effects = np.linalg.solve(design.T @ design + np.diag(ridge), design.T @ target)
        residual = target - design @ effects
        spread = effects**2 + max(noise, floor) / (counts + ridge)
        noise = residual @ residual / values.size
        row_variance, col_variance = spread[:d1].mean(), spread[d1:].mean()
    return mean, effects[:d1], effects[d1:]


@pytest.mark.parametrize("kind", ["full", "entries", "linear array", "part of full"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_offsets_solve_the_ridge_equations(kind, seed):
    """Conjugate gradients end at 1e-6 of the right-hand side; 100 for conditioning and for the rounds, which carry it on.

    With more measurements than offsets, that is: an interpolating fit, without noise, has no conditioning to speak of.
    """
    observations = observe(kind, seed, (8, 7))
    offsets = fit_offsets(observations)
    mean, row, col = dense_offsets(observations)
    assert abs(offsets.mean - mean) <= 1e3 * EPS * max(1, abs(mean))
    size = np.linalg.norm(np.concatenate([row, col]))
    error = np.linalg.norm(np.concatenate([offsets.row - row, offsets.col - col]))
    assert error <= 1e-4 * max(size, np.std(observations.values))


def test_rows_and_columns_without_entries_have_no_offset(rng):
    truth = 1.0 + rng.standard_normal(12)[:, None] + rng.standard_normal(10)
    mask = rng.random(truth.shape) < 0.7
    mask[4] = mask[:, 7] = False
    rows, cols = np.nonzero(mask)
    offsets = fit_offsets(dmf.SampledEntries(rows, cols, truth[rows, cols], truth.shape))
    assert offsets.row[4] == 0
    assert offsets.col[7] == 0
    assert np.count_nonzero(offsets.row) == 11


def test_rows_seen_once_are_trusted_less_than_rows_seen_often(rng):
    """One row is seen once, another 40 times, both 2 above the rest: the first is shrunk more."""
    truth = np.zeros((30, 40))
    truth[0] = truth[1] = 2.0
    noisy = truth + rng.standard_normal(truth.shape)
    mask = rng.random(truth.shape) < 0.5
    mask[0], mask[1] = False, True
    mask[0, 3], noisy[0, 3] = True, 2.0
    rows, cols = np.nonzero(mask)
    offsets = fit_offsets(dmf.SampledEntries(rows, cols, noisy[rows, cols], truth.shape))
    assert 0 <= offsets.row[0] < 0.7 * offsets.row[1]
    assert 1.2 < offsets.row[1] < 2.4  # mean of 40 samples: standard error 0.16, shrunk by less than a third


def test_pure_noise_is_not_taken_for_offsets(rng):
    """Each offset is shrunk to less than half of the mean of its row."""
    noise = rng.standard_normal((30, 20))
    offsets = fit_offsets(dmf.FullMatrix(noise))
    raw = noise.mean(axis=1) - noise.mean()
    assert np.linalg.norm(offsets.row) < 0.5 * np.linalg.norm(raw)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_table_has_a_mean_only(value):
    offsets = fit_offsets(dmf.FullMatrix(np.full((4, 3), value)))
    assert abs(offsets.mean - value) <= 4 * EPS * value
    np.testing.assert_allclose(offsets.row, 0, atol=20 * EPS * value)
    np.testing.assert_allclose(offsets.col, 0, atol=20 * EPS * value)


def test_measurements_that_do_not_see_constants_have_no_mean():
    """Antisymmetric measurements give 0 for the all-ones matrix: no division by zero."""
    operator = np.array([[[0.0, 1.0], [-1.0, 0.0]]])
    offsets = fit_offsets(dmf.LinearMeasurements(operator, np.array([1.0])))
    assert offsets.mean == 0
    assert np.isfinite(table(offsets)).all()
