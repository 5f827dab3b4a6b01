"""`dmf.complete_table`: filled tables, awkward tables, kinds of columns, uncertainty, files."""

import doctest
from importlib import import_module

import numpy as np
import pandas as pd
import polars as pl
import pytest

import dmf
from dmf.errors import ArgumentError, DmfError, DTypeError, FileError, ObservationError, ShapeError
from dmf.tables import load
from dmf.tables.families import BY_NAME

from helpers import ctrl_c_at


@pytest.fixture(scope="module")
def numbers():
    """A table of three related columns and one of noise, and the same with holes."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal(120)
    table = np.column_stack([x, np.exp(x + 0.1 * rng.standard_normal(120)), 100 - 3 * x, rng.standard_normal(120)])
    return table, np.where(rng.random(table.shape) < 0.2, np.nan, table)


@pytest.fixture(scope="module")
def mixed(numbers):
    table, holed = numbers
    frame = pd.DataFrame(holed[:, :2], columns=["x", "y"])
    codes = np.digitize(table[:, 0], [-0.5, 0.5])
    gone = np.random.default_rng(2).random((120, 4)) < 0.2
    frame["size"] = pd.Categorical.from_codes(np.where(gone[:, 0], -1, codes), ["S", "M", "L"], ordered=True)
    frame["colour"] = pd.Series(np.array(["red", "green", "blue"], object)[codes]).mask(gone[:, 1], None)
    frame["flag"] = pd.Series(table[:, 0] > 0, dtype="boolean").mask(gone[:, 2])
    frame["count"] = pd.Series(np.rint(table[:, 2]).astype(int), dtype="Int64").mask(gone[:, 3])
    return frame, codes, gone


@pytest.fixture(scope="module")
def completed(mixed):
    return dmf.complete_table(mixed[0])


def test_related_columns_are_filled_well_and_what_was_there_is_kept(numbers):
    table, holed = numbers
    filled = dmf.complete_table(holed).filled()
    holes = np.isnan(holed)
    np.testing.assert_array_equal(filled[~holes], table[~holes])
    off = (filled - table) / table.std(axis=0)
    assert np.sqrt(np.mean(off[:, [0, 2]][holes[:, [0, 2]]] ** 2)) < 0.3


def test_units_of_the_columns_do_not_matter(numbers):
    """Nor does their zero, but in columns without negative values, into which nothing negative is filled."""
    holed = numbers[1]
    factors, shifts = np.array([1e6, 1e-3, 1.0, 7.0]), np.array([0.0, 0.0, -2.0, 1e4])
    filled, moved = dmf.complete_table(holed).filled(), dmf.complete_table(holed * factors + shifts).filled()
    np.testing.assert_allclose((moved - shifts) / factors, filled, atol=1e-5)


def test_order_and_seed_hardly_matter(numbers):
    holed = numbers[1]
    first = dmf.complete_table(holed)
    off = first.held_out.truth - first.held_out.predictions
    order = [2, 0, 3, 1]
    for other in (
        dmf.complete_table(holed, seed=5).filled(),
        dmf.complete_table(holed[:, order]).filled()[:, np.argsort(order)],
    ):
        moved = ((other - first.filled()) / np.nanstd(holed, axis=0))[np.isnan(holed)]
        assert np.sqrt(np.mean(moved**2)) < 0.15 * np.sqrt(np.mean(off**2))


def test_order_of_rows_and_columns_does_not_matter(numbers):
    holed = numbers[1]
    rows, columns = np.random.default_rng(0).permutation(len(holed)), [2, 0, 3, 1]
    moved = dmf.complete_table(holed[rows][:, columns]).filled()
    np.testing.assert_allclose(moved, dmf.complete_table(holed).filled()[rows][:, columns], rtol=1e-6, atol=1e-6)


SINES = np.sin(np.arange(120.0)).reshape(40, 3)
AWKWARD = {
    "one column": np.array([[1.0], [np.nan], [3.0], [4.0]]),
    "one row": np.array([[1.0, np.nan, 3.0]]),
    "one cell known": np.array([[np.nan, np.nan], [2.0, np.nan]]),
    "all equal": np.where(np.eye(6, 3) > 0, np.nan, 7.0),
    "fewer rows than columns": np.where(np.arange(60).reshape(4, 15) % 7 == 0, np.nan, np.sin(np.arange(60.0)).reshape(4, 15)),
    "duplicated columns": np.where(np.eye(30, 4) > 0, np.nan, np.repeat(np.cos(np.arange(30.0))[:, None], 4, axis=1)),
    "an empty column": np.column_stack([np.arange(9.0), np.full(9, np.nan), [1, 2, np.nan, 4, 5, 6, 7, 8, 9]]),
    "integers without holes": np.arange(12).reshape(4, 3),
    "an outlier": np.where(np.eye(40, 3) > 0, np.nan, SINES + 1e6 * (np.arange(120) == 77).reshape(40, 3)),
}  # fmt: skip


@pytest.mark.parametrize("table", AWKWARD.values(), ids=AWKWARD)
def test_awkward_tables_are_filled(table):
    recovery = dmf.complete_table(table)
    filled, (low, high) = recovery.filled(), recovery.intervals()
    unknown = np.isnan(table).all(axis=0)
    assert (
        np.isfinite(filled[:, ~unknown]).all()
        and np.isnan(filled[:, unknown]).all()
        and filled.shape == table.shape
        and filled.dtype == table.dtype
    )
    assert (low[:, ~unknown] <= filled[:, ~unknown]).all() and (filled[:, ~unknown] <= high[:, ~unknown]).all()
    assert all(np.isfinite(draw[:, ~unknown]).all() for draw in recovery.sample(2))
    if np.unique(table[~np.isnan(table)]).size == 1:
        assert (filled[:, ~unknown] == np.nanmax(table)).all()


def test_a_column_of_which_nothing_is_known_is_left_as_it_is(tmp_path, rng):
    unknown = pd.DataFrame(
        {
            "whole": pd.array([None] * 40, "Int16"),
            "real": np.full(40, np.nan),
            "colour": pd.Categorical([None] * 40, ["red", "blue", "green"]),
            "size": pd.Categorical([None] * 40, ["s", "m"], ordered=True),
            "boolean": pd.array([None] * 40, "boolean"),
        }
    )
    known = pd.DataFrame({"a": rng.standard_normal(40), "b": pd.array([1, None] * 20, "Int8")})
    recovery = dmf.complete_table(pd.concat([known, unknown], axis=1))
    recovery.save(tmp_path / "model.npz")
    again = dmf.tables.load(tmp_path / "model.npz").filled(pd.concat([known, unknown], axis=1))
    for filled in (recovery.filled(), again, *recovery.sample(2)):
        pd.testing.assert_frame_equal(filled[list(unknown)], unknown)
        assert filled[list(known)].notna().all(axis=None) and filled.b.dtype == "Int8"
    assert np.isnan(recovery.predict_proba("size")).all()


@pytest.mark.parametrize("library", [pd, pytest.param(pl, marks=pytest.mark.slow)])
def test_what_is_filled_in_keeps_to_the_range_of_its_dtype(library, rng):
    whole = np.rint(60 * np.outer(rng.standard_normal(60), rng.standard_normal(8))).clip(-128, 127)
    holed = [
        [None if (i + j) % 9 == 0 else int(cell) for i, cell in enumerate(column)] for j, column in enumerate(whole.T)
    ]
    table = pd.DataFrame({str(j): pd.array(column, "Int8") for j, column in enumerate(holed)})
    table = table if library is pd else pl.from_pandas(table)
    for complete in (dmf.complete, dmf.complete_table):
        filled = complete(table).filled()
        assert [str(filled[name].dtype) for name in filled.columns] == ["Int8"] * 8
        assert all(
            cell == cells for cells, cell in zip(holed[0], filled["0"].to_list(), strict=True) if cells is not None
        )


def test_an_outlier_stays_in_its_row():
    table = AWKWARD["an outlier"]
    filled = dmf.complete_table(table).filled()
    assert np.abs(filled[:3][np.isnan(table[:3])]).max() < 1e5


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"data": np.full((3, 2), np.nan)}, ObservationError),
        ({"data": np.empty((0, 2))}, ObservationError),
        ({"data": np.array([1.0, np.nan])}, ShapeError),
        ({"data": np.array([[1.0, np.inf]])}, ArgumentError),
        ({"data": np.array([[1 + 1j, 2.0]])}, DTypeError),
        ({"data": pd.DataFrame({"t": pd.to_datetime(["2020-01-01", None])})}, DTypeError),
        ({"data": pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])}, ShapeError),
        ({"data": np.eye(2), "kinds": {5: "real"}}, ArgumentError),
        ({"data": np.eye(2), "kinds": {0: "colour"}}, ArgumentError),
        ({"data": np.eye(2), "bounds": (3, 1)}, ArgumentError),
        ({"data": np.eye(2), "bounds": {7: (0, 1)}}, ArgumentError),
        ({"data": np.eye(2), "sample_weight": [1.0]}, ShapeError),
        ({"data": np.eye(2), "sample_weight": [-1.0, 1.0]}, ArgumentError),
        ({"data": np.eye(2), "seed": -1}, ArgumentError),
        ({"data": pd.DataFrame({"a": ["x", "y", None]}), "kinds": {"a": "real"}}, DTypeError),
    ],
)
def test_what_cannot_be_used_is_said(arguments, error):
    with pytest.raises(error) as caught:
        dmf.complete_table(**arguments)
    assert isinstance(caught.value, DmfError)


def test_mixed_columns_keep_their_dtypes(mixed, completed):
    frame, codes, gone = mixed
    filled = completed.filled()
    assert filled.dtypes.equals(frame.dtypes) and not filled.isna().any().any()
    assert [c.kind for c in completed.columns] == ["real", "real", "ordinal", "nominal", "boolean", "count"]
    wrong = (filled["size"].cat.codes.to_numpy() != codes)[gone[:, 0]]
    assert wrong.mean() < 0.5
    known = frame["colour"].notna()
    assert (filled["colour"][known] == frame["colour"][known]).all()


def test_probabilities_add_up_and_know_what_is_known(mixed, completed):
    frame, codes, _ = mixed
    for name in ("size", "colour", "flag"):
        chances = completed.predict_proba(name)
        np.testing.assert_allclose(chances.sum(axis=1), 1)
        known = frame[name].notna().to_numpy()
        assert np.isin(chances[known], (0, 1)).all()
    assert (completed.predict_proba("size")[np.arange(120), codes] > 0.5).mean() > 0.8
    with pytest.raises(ArgumentError):
        completed.predict_proba("x")


def test_kinds_can_be_told(numbers):
    holed = np.round(numbers[1])
    recovery = dmf.complete_table(holed, kinds={3: "ordinal"})
    assert recovery.columns[3].kind == "ordinal"
    assert np.isin(recovery.filled()[:, 3], recovery.columns[3].levels).all()


def test_a_level_seen_once_and_one_of_new_rows_only(mixed):
    frame = mixed[0].copy()
    frame.loc[0, "colour"] = "violet"
    recovery = dmf.complete_table(frame)
    new = frame.iloc[:3].assign(colour=["never", "violet", None])
    filled = recovery.filled(new)
    assert filled["colour"].tolist()[:2] == ["never", "violet"] or filled["colour"].notna().all()


def test_polars_frames_come_back_as_such(mixed):
    frame = mixed[0].drop(columns="size")
    source = pl.DataFrame(
        {name: pl.Series(name, frame[name].astype(object).where(frame[name].notna(), None).tolist()) for name in frame}
    )
    filled = dmf.complete_table(source).filled()
    assert filled.schema == source.schema and filled.null_count().sum_horizontal().item() == 0


def test_new_rows_are_filled_by_the_model(numbers):
    table, holed = numbers
    recovery = dmf.complete_table(holed[:100])
    filled = recovery.filled(holed[100:])
    holes = np.isnan(holed[100:, [0, 2]])
    assert np.sqrt(np.mean(((filled - table[100:]) / table.std(axis=0))[:, [0, 2]][holes] ** 2)) < 0.4
    with pytest.raises(ShapeError):
        recovery.filled(holed[:, :2])


def test_held_out_cells_are_predicted_from_all_others_of_their_rows(rng):
    """What one column says of its double is not lost because both are held out; the levels of a category are no such doubles."""
    x = rng.standard_normal(300)
    held = dmf.complete_table(np.column_stack([x, 2 * x + 1, rng.standard_normal(300)])).held_out
    off = (held.truth - held.predictions)[held.columns < 2]
    assert len(off) > 100 and np.sqrt(np.mean(off**2)) < 0.05
    sorts = pd.DataFrame({"x": x, "y": rng.standard_normal(300), "sort": rng.choice(["a", "b", "c"], 300)})
    held = dmf.complete_table(sorts).held_out
    assert np.sqrt(np.mean((held.truth - held.predictions)[held.columns > 1] ** 2)) > 0.9


def test_bounds_hold(numbers):
    holed = numbers[1]
    recovery = dmf.complete_table(holed, bounds={0: (-0.1, 0.2)})
    filled, (low, high) = recovery.filled(), recovery.intervals()
    holes = np.isnan(holed[:, 0])
    for values in (filled, low, high, *recovery.sample(1)):
        assert values[holes, 0].min() >= -0.1 - 1e-9 and values[holes, 0].max() <= 0.2 + 1e-9


def test_rows_of_no_weight_do_not_count(numbers):
    holed = numbers[1]
    weights = np.ones(120)
    weights[100:] = 0
    spoiled = holed.copy()
    spoiled[100:] *= 50
    kept, other = (dmf.complete_table(t, sample_weight=weights).filled()[:100] for t in (holed, spoiled))
    np.testing.assert_allclose(kept, other, atol=1e-8)


def test_draws_differ_and_are_repeatable(numbers):
    recovery = dmf.complete_table(numbers[1])
    first, second = recovery.sample(2, seed=3)
    holes = np.isnan(numbers[1])
    differ = first[holes] != second[holes]
    assert (differ | (first[holes] == 0)).all() and np.mean(differ) > 0.9  # columns without negative values get none
    assert (first[~holes] == numbers[1][~holes]).all()
    np.testing.assert_array_equal(recovery.sample(1, seed=3)[0], first)


def test_a_file_holds_the_model(mixed, completed, tmp_path):
    completed.save(tmp_path / "table.npz")
    read = load(tmp_path / "table.npz")
    pd.testing.assert_frame_equal(read.filled(mixed[0]), completed.filled())
    np.testing.assert_array_equal(read.intervals(data=mixed[0])[1], completed.intervals()[1])
    with pytest.raises(ArgumentError):
        read.filled()
    damaged = (tmp_path / "table.npz").read_bytes()
    (tmp_path / "half.npz").write_bytes(damaged[: len(damaged) // 2])
    with pytest.raises(FileError):
        load(tmp_path / "half.npz")


def test_ctrl_c_in_the_completion_ends_the_whole(rng, monkeypatch):
    calls = ctrl_c_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        next(BY_NAME["dmf.complete"].path(rng.standard_normal((20, 6)), np.ones(20), None, 0, [6.0]))
    assert len(calls) == 1


def test_a_callback_hears_of_each_step_and_ends_the_call_by_what_it_raises(numbers):
    told = []
    dmf.complete_table(numbers[1], callback=lambda *step: told.append(step))
    works = list(dict.fromkeys(work for work, _, _ in told))
    assert works == ["trying candidates", "fitting candidates to all cells"]
    for work in works:
        steps = [(done, total) for name, done, total in told if name == work]
        assert [done for done, _ in steps] == list(range(1, steps[0][1] + 1)) and {n for _, n in steps} == {len(steps)}

    def stop(work, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dmf.complete_table(numbers[1], callback=stop)


def test_nothing_negative_is_filled_in_where_nothing_is(rng):
    area = np.exp(2 * rng.standard_normal((80, 1)) + 0.5 * rng.standard_normal((80, 3)))
    area[rng.random(area.shape) < 0.2] = np.nan
    assert dmf.complete_table(area).filled().min() >= 0
    assert dmf.complete_table(area, bounds=(-1.0, 1e3)).filled().min() >= -1


@pytest.mark.parametrize("name", ["complete", "recovery"])
def test_the_examples_hold(name):
    failed, tried = doctest.testmod(import_module(f"dmf.tables.{name}"))
    assert tried and not failed
