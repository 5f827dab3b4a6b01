"""New rows and columns of a recovered matrix."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.models import LowRank
from dmf.models.offsets import Offsets
from dmf.recovery import Found
from dmf.solvers import History, Outcome

from helpers import DTYPES, LIBRARIES, seeds


def recovery_of(left, right, noise, offsets=None):
    """A recovery of ``left @ right`` as a solver would return it, with this noise level."""
    history = History({"iteration": [0], "loss": [0.0], "seconds": [0.0]})
    found = Found(left.shape[1], noise, noise == 0, offsets is not None)
    return dmf.Recovery(LowRank.of_factors(left, right, offsets), found, Outcome.SOLVED, history)


def random_case(seed, with_offsets, noise, d1=9, d2=7, rank=3, new=6):
    """A recovery, a table (new, d2) with holes, its first row empty, and the generator."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((d1, rank)) * [3, 1, 0.5], rng.standard_normal((rank, d2))
    offsets = Offsets(rng.standard_normal(), rng.standard_normal(d1), rng.standard_normal(d2)) if with_offsets else None
    table = np.where(rng.random((new, d2)) < 0.6, 3 * rng.standard_normal((new, d2)), np.nan)
    table[0], table[1, 0] = np.nan, 1.0
    return recovery_of(left, right, noise, offsets), table, rng


def ridge_of_one_row(recovery, row):
    """Prediction for a new row by the normal equations of this row alone, in coordinates of unit prior variance.

    The prior has the mean and the variances of the fitted rows.
    """
    left, right = recovery.network.factors()
    u, s, vt = np.linalg.svd(left @ right, full_matrices=False)
    rank = left.shape[1]
    design = vt[:rank].T * s[:rank] * np.std(u[:, :rank], axis=0)
    shift = np.mean(recovery.product(), axis=0)
    if recovery.offsets is not None:
        design = np.column_stack([design, np.full(len(shift), np.std(recovery.offsets.row))])
    seen = ~np.isnan(row)
    normal = design[seen].T @ design[seen] + recovery.found.noise**2 * np.eye(design.shape[1])
    return shift + design @ np.linalg.solve(normal, design[seen].T @ (row - shift)[seen])


@given(seed=seeds, with_offsets=st.booleans(), noise=st.floats(0.01, 10))
def test_new_rows_are_ridge_regressions_row_by_row(seed, with_offsets, noise):
    recovery, table, _ = random_case(seed, with_offsets, noise)
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table))
    expected = np.stack([ridge_of_one_row(recovery, row) for row in table])
    np.testing.assert_allclose(found.product(), expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    seen = ~np.isnan(table)
    np.testing.assert_array_equal(found.filled()[seen], table[seen])
    rows, cols = np.nonzero(~seen)
    np.testing.assert_allclose(found.predict(rows, cols), found.filled()[~seen], rtol=0, atol=1e-12)
    loss = np.mean((found.product() - table)[seen] ** 2) / 2
    assert found.history.loss[-1] == pytest.approx(loss, rel=1e-9, abs=1e-15)


@given(seed=seeds, with_offsets=st.booleans(), noise=st.sampled_from([0.0, 0.3]))
def test_new_columns_are_new_rows_of_the_transpose(seed, with_offsets, noise):
    recovery, table, _ = random_case(seed, with_offsets, noise)
    left, right = recovery.network.factors()
    offsets = recovery.offsets
    if offsets is not None:
        offsets = Offsets(offsets.mean, offsets.col, offsets.row)
    transposed = recovery_of(right.T, left.T, noise, offsets)
    rows = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table)).product()
    cols = dmf.new_columns(transposed, dmf.SampledEntries.from_dense(table.T)).product()
    # Without noise, four entries of a row determine its four unknowns however badly: rounding of the singular vectors grows.
    tolerance = 1e-9 if noise else 1e-7
    np.testing.assert_allclose(cols, rows.T, rtol=0, atol=tolerance * np.abs(rows).max())


@given(seed=seeds, noise=st.sampled_from([0.0, 0.3]), scale=st.floats(-8, 8), with_offsets=st.booleans())
def test_units_do_not_matter(seed, noise, scale, with_offsets):
    recovery, table, _ = random_case(seed, with_offsets, noise)
    factor, offsets = 10.0**scale, recovery.offsets
    if offsets is not None:
        offsets = Offsets(factor * offsets.mean, factor * offsets.row, factor * offsets.col)
    left, right = recovery.network.factors()
    scaled = recovery_of(factor * left, right, factor * noise, offsets)
    plain = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table)).product()
    other = dmf.new_rows(scaled, dmf.SampledEntries.from_dense(factor * table)).product() / factor
    np.testing.assert_allclose(other, plain, rtol=0, atol=1e-6 * np.abs(plain).max())


@given(seed=seeds, with_offsets=st.booleans())
def test_a_row_without_entries_is_the_mean_of_the_others_or_has_no_factor(seed, with_offsets):
    """The mean where there is noise; without it, mean and column offsets are left."""
    for noise in (0.0, 0.5):
        recovery, table, _ = random_case(seed, with_offsets, noise)
        rows = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table)).product()
        expected = recovery.offsets.mean + recovery.offsets.col if with_offsets else np.zeros(table.shape[1])
        if noise:
            expected = np.mean(recovery.product(), axis=0)
        np.testing.assert_allclose(rows[0], expected, rtol=0, atol=1e-13 * np.max(np.abs(rows)))


@given(seed=seeds, with_offsets=st.booleans(), condition=st.floats(0, 5))
def test_exact_recoveries_give_exact_rows(seed, with_offsets, condition):
    """Where a row has more entries than the model has components."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((30, 4)) * np.logspace(0, -condition, 4), rng.standard_normal((4, 40))
    offsets = Offsets(1.0, rng.standard_normal(30), rng.standard_normal(40)) if with_offsets else None
    whole = left @ right + (offsets.mean + offsets.row[:, None] + offsets.col if with_offsets else 0)
    recovery = recovery_of(left[:25], right, 0.0, offsets and dataclasses.replace(offsets, row=offsets.row[:25]))
    table = whole[25:].copy()
    for row in table:
        row[rng.permutation(40)[:24]] = np.nan
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table))
    np.testing.assert_allclose(found.product(), whole[25:], rtol=0, atol=1e-9 * np.abs(whole).max())


def test_exact_rows_of_a_completed_matrix(rng):
    matrix = rng.standard_normal((120, 4)) @ rng.standard_normal((4, 80))
    table = np.where(rng.random(matrix.shape) < 0.3, matrix, np.nan)
    recovery = dmf.complete(table[:100])
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table[100:]))
    assert np.linalg.norm(found.product() - matrix[100:]) <= 1e-12 * np.linalg.norm(matrix[100:])
    assert found.success and found.outcome is Outcome.SOLVED
    turned = dmf.new_columns(dmf.complete(table[:, :60]), dmf.SampledEntries.from_dense(table[:, 60:]))
    assert np.linalg.norm(turned.product() - matrix[:, 60:]) <= 1e-12 * np.linalg.norm(matrix[:, 60:])


@given(seed=seeds, scale=st.integers(-12, 12), spread=st.integers(0, 6), with_offsets=st.booleans())
def test_only_ratios_of_weights_within_a_row_matter_without_noise(seed, scale, spread, with_offsets):
    """Rows are exact whatever the scale of their weights, and however it differs between rows; so are columns."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((30, 3)), rng.standard_normal((3, 40))
    offsets = Offsets(1.0, rng.standard_normal(30), rng.standard_normal(40)) if with_offsets else None
    whole = left @ right + (offsets.mean + offsets.row[:, None] + offsets.col if with_offsets else 0)
    rows, cols = np.nonzero(rng.random(whole.shape) < 0.5)
    for fold_in, own, size in ((dmf.new_rows, rows, 30), (dmf.new_columns, cols, 40)):
        weights = 10.0 ** (scale + rng.uniform(-spread, spread, size)[own]) * rng.uniform(0.1, 1, rows.size)
        entries = dmf.SampledEntries(rows, cols, whole[rows, cols], whole.shape, weights)
        found = fold_in(recovery_of(left, right, 0.0, offsets), entries)
        enough = np.bincount(own, minlength=size) > 6
        errors = np.abs(found.product() - whole)[enough] if own is rows else np.abs(found.product() - whole)[:, enough]
        assert errors.max(initial=0) <= 1e-9 * np.abs(whole).max()


def test_exact_rows_from_a_small_share_of_many_columns_in_single_precision(rng):
    """What is seen decides the penalty, not the 2500 times larger design of all columns."""
    matrix = (rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50_000))).astype(np.float32)
    recovery = dmf.factorize(matrix, 3)
    rows, cols = np.repeat(np.arange(60), 20), rng.integers(0, 50_000, 1200)
    found = dmf.new_rows(recovery, dmf.SampledEntries(rows, cols, matrix[rows, cols], matrix.shape))
    assert np.linalg.norm(found.product() - matrix) <= 1e-5 * np.linalg.norm(matrix)


@pytest.mark.parametrize("offsets", [False, True])
def test_folding_a_fitted_row_in_gives_it_back(offsets, rng):
    """To a few tenths of its distance to the truth: the fit also knows how uncertain the columns are, and fits offsets first."""
    truth = rng.standard_normal((300, 3)) @ rng.standard_normal((3, 80))
    truth += offsets * (3 + rng.standard_normal((300, 1)) + rng.standard_normal(80))
    table = np.where(rng.random(truth.shape) < 0.4, truth + 0.5 * rng.standard_normal(truth.shape), np.nan)
    recovery = dmf.complete(table, offsets=offsets)
    again = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table))
    error = np.linalg.norm(recovery.product() - truth)
    assert np.linalg.norm(again.product() - recovery.product()) <= 0.4 * error
    assert np.linalg.norm(again.product() - truth) <= 1.02 * error


def test_new_rows_are_predicted_as_well_as_fitted_ones(rng):
    truth = rng.standard_normal((400, 3)) @ rng.standard_normal((3, 80))
    table = np.where(rng.random(truth.shape) < 0.4, truth + 0.5 * rng.standard_normal(truth.shape), np.nan)
    recovery = dmf.complete(table[:300])
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table[300:]))
    errors = np.mean((found.product() - truth[300:]) ** 2), np.mean((recovery.product() - truth[:300]) ** 2)
    assert errors[0] <= 1.1 * errors[1]


@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_a_matrix_of_zeros_has_rows_of_zeros(noise, with_offsets):
    """Nothing that the fitted rows lack appears in new ones."""
    offsets = Offsets(2.0, np.zeros(4), np.zeros(3)) if with_offsets else None
    recovery = recovery_of(np.zeros((4, 1)), np.zeros((1, 3)), noise, offsets)
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(np.array([[1.0, np.nan, 5.0]])))
    np.testing.assert_array_equal(found.product(), np.full((1, 3), 2.0 * with_offsets))


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("noise", [0.0, 0.3])
@pytest.mark.parametrize("with_offsets", [False, True])
def test_library_dtype_and_device_are_those_of_the_data(move, dtype, noise, with_offsets):
    recovery, table, _ = random_case(0, with_offsets, noise)
    table = table + (recovery.product()[:6] - np.nan_to_num(table))  # entries of fitted rows, at the same positions
    expected = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table)).product()
    left, right = (move(f.astype(dtype)) for f in recovery.network.factors())
    offsets = recovery.offsets
    if offsets is not None:
        offsets = Offsets(offsets.mean, move(offsets.row.astype(dtype)), move(offsets.col.astype(dtype)))
    observations = dmf.SampledEntries.from_dense(move(table.astype(dtype)))
    found = dmf.new_rows(recovery_of(left, right, noise, offsets), observations).product()
    assert type(found) is type(left) and found.dtype == left.dtype and found.device == left.device
    np.testing.assert_allclose(to_host(found), expected, rtol=0, atol=1e-3 if dtype == np.float32 else 1e-7)


def test_names_of_the_other_side_stay(rng):
    recovery, table, _ = random_case(0, True, 0.3)
    recovery = recovery.with_ids([f"r{i}" for i in range(9)], [f"c{j}" for j in range(7)])
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table)).with_ids(list("abcdef"), recovery.col_ids)
    assert found.predict_named(["b"], ["c2"])[0] == pytest.approx(found.product()[1, 2])
    assert dmf.new_columns(recovery, dmf.SampledEntries.from_dense(np.ones((9, 2)))).row_ids == recovery.row_ids


def test_a_folded_in_recovery_is_saved_and_loaded(tmp_path):
    recovery, table, _ = random_case(0, True, 0.3)
    found = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table))
    found.save(tmp_path / "rows.npz")
    loaded = dmf.load(tmp_path / "rows.npz")
    np.testing.assert_array_equal(loaded.product(), found.product())
    again = dmf.new_rows(loaded, dmf.SampledEntries.from_dense(table))  # models from files take new rows as well
    assert again.shape == (6, 7)


@pytest.mark.parametrize(
    ("observations", "kind", "words"),
    [
        (np.ones((2, 7)), dmf.errors.ArgumentError, "ndarray"),
        (dmf.FullMatrix(np.ones((2, 7))), dmf.errors.ArgumentError, "FullMatrix"),
        (
            dmf.SampledEntries.from_dense(np.ones((2, 8))),
            dmf.errors.ShapeError,
            "8 columns, but the recovered matrix 7",
        ),
        (dmf.SampledEntries.from_dense(np.ones((2, 7), np.float32)), dmf.errors.DTypeError, "float32"),
    ],
)
def test_bad_observations(observations, kind, words):
    recovery, _, _ = random_case(0, False, 0.3)
    with pytest.raises(kind, match=words):
        dmf.new_rows(recovery, observations)


def test_bad_recoveries():
    recovery, table, _ = random_case(0, False, 0.3)
    with pytest.raises(dmf.errors.ShapeError, match=r"Pass the shape \(9, 'n'\)"):
        dmf.new_columns(recovery, dmf.SampledEntries.from_dense(table))


def test_held_out_residuals_stay_with_the_matrix_they_are_of():
    rng = np.random.default_rng(0)
    table = np.where(rng.random((30, 12)) < 0.3, np.nan, rng.standard_normal((30, 2)) @ rng.standard_normal((2, 12)))
    recovery = dmf.complete(table + 0.1 * rng.standard_normal(table.shape), holdout=0.2)
    assert recovery.heldout.residuals is not None
    assert dmf.new_rows(recovery, dmf.SampledEntries.from_dense(table[:3])).heldout.residuals is None


@pytest.mark.parametrize("side", [0, 1])
def test_what_is_said_of_old_rows_is_not_said_of_new_ones(side, tmp_path):
    """Of rows without entries, outliers, and a bound on the rank that few rows do not reach: all is of the other matrix."""
    rng = np.random.default_rng(0)
    truth = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 30))
    table = np.where(rng.random(truth.shape) < 0.8, truth, np.nan)
    table[39] = np.nan
    table[30, 3] += 50
    old = dmf.complete(table if side == 0 else table.T, rank=3, outliers=True)
    assert len(old.outliers) == 1 and old.found.undetermined[side] == (39,)
    new = np.stack([truth[39], np.full(30, np.nan)])
    found = (dmf.new_rows, dmf.new_columns)[side](old, dmf.SampledEntries.from_dense(new if side == 0 else new.T))
    product = found.product() if side == 0 else found.product().T
    np.testing.assert_allclose(product[0], truth[39], atol=1e-9)
    assert found.outliers is None and found.found.undetermined[side] == (1,)
    found.save(tmp_path / "new.npz")
    np.testing.assert_array_equal(dmf.load(tmp_path / "new.npz").product(), found.product())


def test_new_rows_of_a_constant_matrix_are_not_called_constant():
    old = dmf.complete(np.where(np.eye(10, 8) > 0, np.nan, 3.0))
    assert old.found.constant
    assert not dmf.new_rows(old, dmf.SampledEntries.from_dense(np.full((1, 8), 5.0))).found.constant
