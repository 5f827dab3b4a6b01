"""What a solver returns: reading it, filling it in, naming its rows and columns."""

import numpy as np
import pytest

import dmf
from dmf.arrays.backend import to_host
from dmf.errors import ObservationError
from dmf.recovery.ranking import top_columns

from helpers import LIBRARIES, assert_same_model, example_model

EPS = np.finfo(float).eps


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("offsets", [True, False])
def test_product_factors_and_predictions_agree(move, offsets):
    """``network + mean + row_i + col_j``, to a few roundings."""
    model = example_model(move=move, offsets=offsets)
    expected = to_host(model.network.product())
    if offsets:
        expected = expected + 0.5 + to_host(model.offsets.row)[:, None] + to_host(model.offsets.col)
    bounded = np.maximum(expected, -0.5) if offsets else expected
    tolerance = 50 * EPS * np.abs(expected).max()
    np.testing.assert_allclose(to_host(model.product()), bounded, rtol=0, atol=tolerance)
    left, right = map(to_host, model.factors())
    np.testing.assert_allclose(left @ right, expected, rtol=0, atol=tolerance)
    rows, cols = np.divmod(np.arange(12), 3)
    for index in (np.int32, np.int64, np.uint64):
        predicted = model.predict(move(rows.astype(index)), move(cols.astype(index)))
        np.testing.assert_allclose(to_host(predicted), bounded.ravel(), rtol=0, atol=tolerance)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_filled_keeps_observed_entries_and_means_of_repeated_ones(move):
    observations = dmf.SampledEntries(
        move(np.array([0, 3, 0, 3, 3])),
        move(np.array([1, 2, 1, 2, 0])),
        move(np.array([1.0, 3.0, 2.0, 6.0, 9.0])),
        (4, 3),
    )
    model = example_model(move=move)
    filled, product = to_host(model.filled(observations)), to_host(model.product())
    assert filled[0, 1] == 1.5
    assert filled[3, 2] == 4.5
    assert filled[3, 0] == 9.0
    others = np.ones((4, 3), bool)
    others[[0, 3, 3], [1, 2, 0]] = False
    np.testing.assert_array_equal(filled[others], product[others])


def test_filled_needs_observations_of_the_same_shape():
    with pytest.raises(dmf.errors.ArgumentError, match=r"Pass filled\(observations=...\)") as caught:
        example_model().filled()
    assert caught.value.argument == "observations"
    with pytest.raises(dmf.errors.ShapeError, match="the model is of a") as caught:
        example_model().filled(dmf.FullMatrix(np.ones((3, 4))))
    assert (caught.value.value, caught.value.limit) == ((3, 4), (4, 3))


def test_a_product_beyond_the_memory_is_an_error(monkeypatch):
    monkeypatch.setattr("os.sysconf", lambda name: 9)
    with pytest.raises(dmf.errors.ArgumentError, match=r"Use predict\(rows, cols\)") as caught:
        example_model().product()
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("shape", 96, 81)
    assert example_model().predict([0], [0]).shape == (1,)


def test_names_of_rows_and_columns():
    model = example_model(ids=False).with_ids(list("abcd"), None)
    assert model.row_ids == ("a", "b", "c", "d")
    assert model.col_ids is None
    assert_same_model(model.with_ids(None, None), example_model(ids=False))


@pytest.mark.parametrize("ids", [list("abc"), list("abcde"), list("aabc"), [1, 2, 3, None]])
def test_names_that_could_not_be_loaded_again_are_refused(ids):
    with pytest.raises(dmf.errors.ArgumentError, match="4 different strings are needed") as caught:
        example_model().with_ids(ids, None)
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("row_ids", len(ids), 4)


def test_history_is_a_mapping_of_columns():
    history = example_model().history
    assert list(history) == ["iteration", "loss", "seconds", "held out"]
    assert len(history) == 4
    assert "loss" in history
    assert history.loss is history["loss"]
    assert history.iteration.tolist() == [0, 5, 7]
    assert history.seconds[-1] == 0.6
    assert "3 records" in repr(history)
    with pytest.raises(KeyError):
        history["other"]


@pytest.fixture(scope="module")
def named():
    """A noisy frame with holes and the recovery of it."""
    pandas, rng = pytest.importorskip("pandas"), np.random.default_rng(0)
    truth = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 20))
    values = np.where(rng.random(truth.shape) < 0.6, truth + 0.1 * rng.standard_normal(truth.shape), np.nan)
    frame = pandas.DataFrame(values, [f"r{i}" for i in range(40)], [f"c{j}" for j in range(20)])
    return frame, dmf.complete(frame)


@pytest.mark.parametrize(
    "call",
    [
        lambda recovery, frame: dmf.new_rows(recovery, dmf.SampledEntries.from_dense(frame.iloc[:3, ::-1])),
        lambda recovery, frame: dmf.new_columns(recovery, dmf.SampledEntries.from_dense(frame.iloc[::-1, :3])),
        lambda recovery, frame: recovery.update(dmf.SampledEntries.from_dense(frame.iloc[::-1])),
        lambda recovery, frame: recovery.filled(dmf.SampledEntries.from_dense(frame.iloc[:, ::-1])),
        lambda recovery, frame: dmf.calibrate(recovery, dmf.SampledEntries.from_dense(frame.iloc[::-1])),
        lambda recovery, frame: top_columns(recovery, np.arange(2), 1, dmf.SampledEntries.from_dense(frame.iloc[::-1])),
    ],
    ids=["new rows", "new columns", "update", "filled", "calibrate", "top"],
)
def test_entries_that_are_named_in_another_order_are_refused(named, call):
    """Entries go by position: those of other rows would be taken for them."""
    frame, recovery = named
    with pytest.raises(ObservationError, match="in the order of the recovery"):
        call(recovery, frame)


def test_names_in_order_and_other_names_pass(named):
    frame, recovery = named
    new = dmf.new_rows(recovery, dmf.SampledEntries.from_dense(frame.iloc[:3]))
    assert new.row_ids == ("r0", "r1", "r2") and new.col_ids == recovery.col_ids
    assert list(new.filled().index) == ["r0", "r1", "r2"]
    other = frame.iloc[:3].rename(columns=str.upper)
    np.testing.assert_array_equal(dmf.new_rows(recovery, dmf.SampledEntries.from_dense(other)).product(), new.product())


def test_a_frame_stays_one_after_an_update(named):
    frame, _ = named
    part = frame.copy()
    part.iloc[:5, :5] = np.nan
    rows, cols = np.nonzero(~np.isnan(frame.to_numpy()[:5, :5]))
    more = dmf.SampledEntries(rows, cols, frame.to_numpy()[rows, cols], frame.shape)
    filled = dmf.complete(part).update(more).filled()
    assert list(filled.index) == list(frame.index)
    seen = ~np.isnan(frame.to_numpy())
    np.testing.assert_array_equal(filled.to_numpy()[seen], frame.to_numpy()[seen])
