"""`TableImputer`: mixed tables, pipelines, more rows."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install 'dmf[sklearn]'")

from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline

import dmf
from dmf.estimators import TableImputer


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(0)
    full = rng.standard_normal((60, 1)) * [1.0, 20.0, -3.0] + 0.1 * rng.standard_normal((60, 3))
    return np.where(rng.random(full.shape) < 0.2, np.nan, full)


@pytest.fixture(scope="module")
def frame(table):
    colours = np.where(np.nan_to_num(table[:, 0]) > 0, "red", "blue").astype(object)
    colours[::7] = None
    return pd.DataFrame({"a": table[:, 0], "b": table[:, 1], "colour": colours})


def test_it_fills_as_complete_table_does(table):
    imputer = TableImputer().fit(table)
    np.testing.assert_array_equal(imputer.transform(table), dmf.complete_table(table).filled())
    low, high = imputer.intervals(table)
    assert (low <= high).all()


def test_more_rows_are_fitted_with_the_first(table):
    weights = np.linspace(1, 2, 60)
    once = TableImputer().fit(table, sample_weight=np.r_[np.ones(40), weights[40:]])
    twice = TableImputer().partial_fit(table[:40]).partial_fit(table[40:], sample_weight=weights[40:])
    np.testing.assert_array_equal(twice.transform(table), once.transform(table))


def test_mixed_frames_keep_their_dtypes_in_pipelines_and_out(frame):
    filled = TableImputer().fit_transform(frame)
    assert filled.dtypes.equals(frame.dtypes) and filled.notna().all().all()
    more = TableImputer().partial_fit(frame[:40]).partial_fit(frame[40:])
    pd.testing.assert_frame_equal(more.transform(frame), filled)
    with pytest.raises(ValueError, match="feature names"):
        more.transform(frame.rename(columns={"a": "z"}))


def test_frames_of_numbers_follow_set_output(frame):
    numbers = frame[["a", "b"]]
    assert isinstance(TableImputer().fit_transform(numbers), np.ndarray)
    filled = TableImputer().set_output(transform="pandas").fit_transform(numbers)
    assert list(filled.columns) == ["a", "b"]
    pipeline = make_pipeline(TableImputer(), LinearRegression()).fit(numbers, np.arange(60.0))
    assert pipeline.predict(numbers).shape == (60,)


def test_kinds_and_bounds_of_frames_of_numbers_go_by_the_names_of_columns(table):
    """As they do for frames that hold other things."""
    frame = pd.DataFrame(table, columns=[f"c{j}" for j in range(table.shape[1])])
    low, high = np.nanquantile(table[:, 1], (0.4, 0.6))
    named = TableImputer(bounds={"c1": (low, high)}, kinds={"c0": "real"}).fit_transform(frame)
    placed = TableImputer(bounds={1: (low, high)}, kinds={0: "real"}).fit_transform(table)
    np.testing.assert_array_equal(named, placed)
    filled = placed[np.isnan(table[:, 1]), 1]
    assert filled.size and low <= filled.min() and filled.max() <= high
    with pytest.raises(dmf.errors.ArgumentError, match="bounds names 'c9'"):
        TableImputer(bounds={"c9": (low, high)}).fit(frame)
