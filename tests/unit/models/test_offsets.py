"""Mean, row and column offsets."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.models.offsets import Offsets, fit_offsets

from helpers import DTYPES, LIBRARIES, dense_form, observe, seeds

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
    """To a hundredth: the first regressions take what the other side has still to explain for noise."""
    truth = 3.0 + rng.standard_normal(25)[:, None] + 2 * rng.standard_normal(20)
    rows, cols = np.nonzero(rng.random(truth.shape) < share)
    offsets = fit_offsets(dmf.SampledEntries(move(rows), move(cols), move(truth[rows, cols]), truth.shape))
    assert np.linalg.norm(table(offsets) - truth) <= 1e-2 * np.linalg.norm(truth)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("kind", ["entries", "part of entries", "part of full"])
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
    """The same estimate with dense normal equations of one side at a time."""
    matrix, values = dense_form(observations), observations.values
    cube = matrix.reshape(-1, *observations.shape)
    designs = cube.sum(axis=2), cube.sum(axis=1)
    mean = values.mean()
    target = values - mean
    total = noise = np.mean(target**2)
    effects, variances = [np.zeros(size) for size in observations.shape], [total / 4, total / 4]
    for _ in range(10 if total > 0 else 0):
        for side in (0, 1):
            rest = target - designs[1 - side] @ effects[1 - side]
            ridge = max(noise, 1e-8 * total) / max(variances[side], 1e-8 * total)
            normal = designs[side].T @ designs[side] + ridge * np.eye(observations.shape[side])
            effects[side] = np.linalg.solve(normal, designs[side].T @ rest)
            variances[side] = np.mean(effects[side] ** 2 + noise * np.diag(np.linalg.inv(normal)))
            noise = np.mean((rest - designs[side] @ effects[side]) ** 2)
    return mean, *effects


@pytest.mark.parametrize("kind", ["entries", "part of entries", "part of full"])
@given(seed=seeds, d1=st.integers(2, 9), d2=st.integers(2, 9))
def test_offsets_solve_the_ridge_equations(kind, seed, d1, d2):
    """20 regressions of some 100 roundings each, whose errors the ridge keeps from growing by more than 1e4."""
    observations = observe(kind, seed, (d1, d2))
    offsets = fit_offsets(observations)
    mean, row, col = dense_offsets(observations)
    bound = 20 * 100 * 1e4 * EPS * np.max(np.abs(observations.values))
    assert abs(offsets.mean - mean) <= bound
    np.testing.assert_allclose(offsets.row, row, rtol=0, atol=bound)
    np.testing.assert_allclose(offsets.col, col, rtol=0, atol=bound)


@given(seed=seeds)
def test_offsets_scale_with_the_data(seed):
    """Data times 1e6: offsets times 1e6."""
    observations = observe("entries", seed, (8, 7))
    offsets = fit_offsets(observations)
    scaled = fit_offsets(observations.with_values(1e6 * observations.values))
    np.testing.assert_allclose(table(scaled), 1e6 * table(offsets), rtol=0, atol=1e-3)


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


def entries_of(matrix):
    rows, cols = np.indices(matrix.shape).reshape(2, -1)
    return dmf.SampledEntries(rows, cols, matrix.ravel(), matrix.shape)


def test_pure_noise_is_not_taken_for_offsets(rng):
    """Each offset is shrunk to less than half of the mean of its row."""
    noise = rng.standard_normal((30, 20))
    offsets = fit_offsets(entries_of(noise))
    raw = noise.mean(axis=1) - noise.mean()
    assert np.linalg.norm(offsets.row) < 0.5 * np.linalg.norm(raw)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_constant_table_has_a_mean_only(value):
    offsets = fit_offsets(entries_of(np.full((4, 3), value)))
    assert abs(offsets.mean - value) <= 4 * EPS * value
    np.testing.assert_allclose(offsets.row, 0, atol=20 * EPS * value)
    np.testing.assert_allclose(offsets.col, 0, atol=20 * EPS * value)
