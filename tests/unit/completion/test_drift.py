"""Entries with times: rows that drift are found, and what has nothing to do with time stays as it is."""

from functools import cache

import numpy as np
import pytest

import dmf
from dmf import SampledEntries, complete
from dmf.errors import ArgumentError, DTypeError, FileError, ObservationError, ShapeError
from dmf.solvers.drift import fit_drift

SHAPE, M = (80, 60), 2_400


def drawn(drift=0.6, noise=0.2, rank=1, seed=0, dtype=float):
    """Rows, columns, values and times; each row rises and falls over the whole time."""
    rng = np.random.default_rng(seed)
    rows, cols = np.divmod(rng.choice(SHAPE[0] * SHAPE[1], M, replace=False), SHAPE[1])
    times = rng.uniform(0, 1_000, M)
    low = (rng.standard_normal((SHAPE[0], rank)) @ rng.standard_normal((rank, SHAPE[1])))[rows, cols]
    wave = np.sin(times / 100 + rng.uniform(0, 6, SHAPE[0])[rows])
    values = low + drift * wave + noise * rng.standard_normal(M)
    return rows, cols, values.astype(dtype), times


def entries_of(data, index=slice(None), times=True):
    rows, cols, values, at = (array[index] for array in data)
    return SampledEntries(rows, cols, values, SHAPE, times=at if times else None)


def error(recovery, data, index, times=True):
    rows, cols, values, at = (array[index] for array in data)
    return np.sqrt(np.mean((recovery.predict(rows, cols, at if times else None) - values) ** 2))


@cache
def fitted():
    return complete(entries_of(drawn()), offsets=True)


def test_rows_that_drift_are_found_and_predicted():
    data, new = drawn(), np.arange(M) % 5 == 0
    plain = complete(entries_of(data, ~new, times=False), offsets=True)
    recovery = complete(entries_of(data, ~new), offsets=True)
    assert recovery.drift.rows is not None and "rows drift with time" in recovery.message
    assert error(recovery, data, new) < 0.75 * error(plain, data, new)
    assert recovery.found.noise < 0.75 * plain.found.noise
    assert error(recovery, data, new, times=False) > 1.3 * error(
        recovery, data, new
    )  # of no time the mean is predicted


def test_columns_that_drift_are_found_as_rows_are():
    rows, cols, values, times = drawn()
    new = np.arange(M) % 5 == 0
    known = SampledEntries(cols[~new], rows[~new], values[~new], SHAPE[::-1], times=times[~new])
    recovery = complete(known, offsets=True)
    assert recovery.drift.rows is None and "columns drift with time" in recovery.message
    off = [recovery.predict(cols[new], rows[new], at) - values[new] for at in (times[new], None)]
    assert np.std(off[0]) < 0.75 * np.std(off[1])


@pytest.mark.parametrize("noise", [0.2, 0.0])
def test_what_does_not_drift_stays_as_it_is(noise):
    """To the last bit, with noise and without."""
    data = drawn(drift=0.0, noise=noise)
    plain, timed = complete(entries_of(data, times=False)), complete(entries_of(data))
    assert timed.drift is None and timed.message == plain.message and timed.found.exact == (noise == 0)
    np.testing.assert_array_equal(timed.product(), plain.product())
    np.testing.assert_array_equal(timed.predict(*data[:2], data[3]), plain.predict(*data[:2]))


def test_order_beginning_and_unit_of_times_do_not_matter():
    rows, cols, _, times = data = drawn()
    expected = fitted().predict(rows, cols, times)
    order = np.random.default_rng(1).permutation(M)
    for other, at in (
        (tuple(array[order] for array in data), times),
        ((*data[:3], 1e6 + 60 * times), 1e6 + 60 * times),
    ):
        found = complete(entries_of(other), offsets=True).predict(rows, cols, at)
        assert np.sqrt(np.mean((found - expected) ** 2)) < 1e-3 * np.std(expected)


@pytest.mark.parametrize("most", [1e-318, 1e300, 700.0])
def test_times_of_any_size_have_effects_that_are_finite(most):
    """Down to the smallest numbers, up to the largest, and over all of these at once."""
    rows, cols, values, times = (array[:1_000] for array in drawn())
    times = np.exp(1.4 * (times - 500)) if most == 700.0 else times / 1_000 * most
    recovery = complete(SampledEntries(rows, cols, values, SHAPE, times=times), offsets=True)
    assert np.isfinite(recovery.predict(rows, cols, times[::-1])).all()


def test_entries_of_one_position_keep_their_own_times():
    """Here those of the second round are 1 larger throughout: a drift of all rows that no matrix explains."""
    rows, cols, values, times = (array[:600] for array in drawn(drift=0))
    twice = SampledEntries(
        *(np.tile(array, 2) for array in (rows, cols)), np.append(values, values + 1), SHAPE,
        times=np.append(times, times + 2_000),
    )  # fmt: skip
    place = np.lexsort((np.tile(cols, 2), np.tile(rows, 2)))
    assert twice.n_distinct == 600
    np.testing.assert_array_equal(twice.times, np.append(times, times + 2_000)[place])
    early, late = (complete(twice, offsets=True).predict(rows, cols, at) for at in (times, times + 2_000))
    assert abs(np.mean(late - early) - 1) < 0.2


def test_held_out_errors_are_those_of_a_fit_that_never_saw_the_entries():
    entries = entries_of(drawn())
    kept, held = entries.split(0.2, 0)
    recovery = complete(entries, holdout=0.2, offsets=True)
    assert recovery.drift is not None
    assert recovery.heldout.rmse == dmf.calibrate(complete(kept, offsets=True), held).heldout.rmse
    low, high = dmf.prediction_interval(recovery, held.rows, held.cols, 0.8, held.times)
    np.testing.assert_allclose((low + high) / 2, recovery.predict(held.rows, held.cols, held.times))
    with pytest.raises(ArgumentError, match="Pass times"):
        dmf.prediction_interval(recovery, held.rows, held.cols)
    with pytest.raises(ArgumentError, match="held entries have no times"):
        dmf.calibrate(recovery, entries_of(drawn(), times=False))


def test_a_model_file_holds_the_drift(tmp_path):
    rows, cols, _, times = drawn()
    fitted().save(tmp_path / "model.npz")
    loaded = dmf.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(loaded.predict(rows, cols, times), fitted().predict(rows, cols, times))
    assert loaded.message == fitted().message
    wrong = {
        "times": lambda a: a[::-1],
        "starts": lambda a: a + 1,
        "counts": lambda a: 0 * a,
        "states": lambda a: a * np.nan,
        "sizes": lambda a: -a,
    }
    with np.load(tmp_path / "model.npz") as archive:
        arrays = dict(archive)
    for name, broken in wrong.items():
        part = f"drift_rows_{name}"
        np.savez(tmp_path / "broken.npz", **arrays | {part: broken(arrays[part])})
        with pytest.raises(FileError, match="drift of rows"):
            dmf.load(tmp_path / "broken.npz")


def test_times_come_with_matrices_and_frames():
    """Of a matrix as a matrix, of a frame as a column; dates are seconds since 1970."""
    rows, cols, values, times = drawn()
    matrix, when = np.full(SHAPE, np.nan), np.full(SHAPE, np.nan)
    matrix[rows, cols], when[rows, cols] = values, times
    np.testing.assert_array_equal(
        complete(matrix, time=when, offsets=True).predict(rows, cols, times), fitted().predict(rows, cols, times)
    )
    dates = np.array(["1970-01-02", "1970-01-01T00:00:01.5", "1970-01-03"], "datetime64[ms]")
    frame = {"row": ["a", "b", "b"], "column": ["x", "x", "y"], "value": [1.0, np.nan, 3.0], "when": dates}
    entries = SampledEntries.from_frame(frame, "row", "column", "value", time="when")
    assert entries.times.tolist() == [86_400.0, 172_800.0]
    assert SampledEntries([1, 0], [0, 0], [1.0, 2.0], (2, 1), times=dates[:2]).times.tolist() == [1.5, 86_400.0]


@pytest.mark.parametrize(
    ("times", "error", "told"),
    [
        ([1.0, np.nan], ObservationError, "Leave entries without a time out"),
        (np.array(["2024-01-01", "NaT"], "datetime64[s]"), ObservationError, "Leave entries without a time out"),
        ([1.0, 2.0, 3.0], ShapeError, "Pass one for each"),
        (["noon", "night"], DTypeError, "times"),
        ([1j, 2.0], DTypeError, "times"),
    ],
)
def test_times_that_are_none_are_refused(times, error, told):
    with pytest.raises(error, match=told):
        SampledEntries([0, 1], [0, 1], [1.0, 2.0], (2, 2), times=times)
    with pytest.raises(error, match=told):
        fitted().predict([0, 1], [0, 1], times)


def test_where_drift_has_no_place_it_is_refused():
    data = drawn()
    with pytest.raises(ArgumentError, match="times are given for SampledEntries"):
        complete(entries_of(data, times=False), time=data[3])
    with pytest.raises(ShapeError, match="times have shape"):
        complete(np.eye(3), time=np.eye(2))
    with pytest.raises(ArgumentError, match="Leave time out"):
        complete(SampledEntries([0, 1], [0, 1], [1, 2], (2, 2), times=[1, 2]), feedback="implicit")
    with pytest.raises(ArgumentError, match="an update would not know"):
        fitted().update(entries_of(data))
    assert dmf.new_rows(fitted(), SampledEntries([0, 0], [1, 2], [1.0, 2.0], (1, SHAPE[1]))).drift is None
    for call in (
        lambda timed: dmf.complete_together([timed, timed], 1),
        lambda timed: dmf.complete_distances(timed, dimension=1),
        dmf.completion.rank_path,
    ):
        with pytest.raises(ArgumentError, match="which only complete knows"):
            call(SampledEntries([0, 1], [1, 0], [1.0, 1.0], (2, 2), times=[1, 2]))


def test_the_unit_of_values_does_not_matter():
    """To the last bits, by a power of two: no search may end earlier in one unit than in another."""
    rows, cols, values, times = data = drawn()
    found = complete(entries_of((rows, cols, 2.0**20 * values, times)), offsets=True).predict(rows, cols, times)
    np.testing.assert_allclose(found / 2**20, fitted().predict(*data[:2], times), rtol=1e-9)


def test_the_excess_of_outliers_is_over_what_is_predicted_at_their_times():
    rows, cols, values, times = drawn()
    values[::400] += 30
    found = complete(entries_of((rows, cols, values, times)), offsets=True, outliers=True)
    assert found.drift is not None and len(found.outliers) >= 6
    place = {(row, col): k for k, (row, col) in enumerate(zip(rows.tolist(), cols.tolist(), strict=True))}
    out = found.outliers
    at = np.array([place[pair] for pair in zip(out.rows.tolist(), out.cols.tolist(), strict=True)])
    np.testing.assert_allclose(out.values, values[at] - found.predict(out.rows, out.cols, times[at]), atol=1e-9)


def test_new_columns_are_fitted_to_what_the_drift_of_rows_leaves():
    """Where their entries have times."""
    rng, times, model = np.random.default_rng(3), drawn()[3], fitted()
    fixed = model.model.halves()[0]
    truth = fixed @ rng.standard_normal((fixed.shape[1], 8)) + model.offsets.mean + model.offsets.row[:, None]
    at = times[rng.integers(0, M, (SHAPE[0], 8))]
    index = np.repeat(np.arange(SHAPE[0]), 8)
    values = truth.ravel() + model.drift.at(index, 0 * index, at.ravel()) + 0.2 * rng.standard_normal(truth.size)
    cols, off = np.tile(np.arange(8), SHAPE[0]), []
    for given in (at.ravel(), None):
        new = dmf.new_columns(model, SampledEntries(index, cols, values, truth.shape, times=given))
        off.append(np.std(new.product() - truth))
        assert new.observations.entries.tolist() == values.tolist()
    assert off[0] < 0.7 * off[1]


def test_a_single_row_with_two_entries_among_thousands_is_no_error():
    """Of rows of one entry each nothing is told about drift, whichever of them are looked at."""
    count = 30_000
    rows, times = np.append(np.arange(count), 0), np.arange(count + 1.0)
    rng = np.random.default_rng(0)
    rest = SampledEntries(
        rows, rng.integers(0, 40, count + 1), rng.standard_normal(count + 1), (count, 40), times=times
    )
    assert fit_drift(rest) is None
