"""Features of rows and columns: they help where they tell something, do no harm elsewhere, and say what to expect of new ones."""

import numpy as np
import pytest

import dmf
from dmf.errors import ArgumentError, DmfError, FileError
from dmf.io.features import Feature, read_feature_file, read_features

D1, D2, COLD = 160, 200, slice(130, None)
SOME = slice(0, 130)


@pytest.fixture(scope="module")
def case():
    """A matrix whose rows follow two numbers and whose columns follow a category; the last rows have no entry."""
    rng = np.random.default_rng(5)
    numbers, kinds = rng.standard_normal((D1, 2)), rng.integers(3, size=D2)
    left = numbers @ rng.standard_normal((2, 2)) + 0.15 * rng.standard_normal((D1, 2))
    right = 1.5 * rng.standard_normal((3, 2))[kinds] + 0.3 * rng.standard_normal((D2, 2))
    truth = 3 + numbers[:, :1] + left @ right.T
    mask = rng.random(truth.shape) < 0.22
    mask[COLD] = False
    rows, cols = np.nonzero(mask)
    noisy = truth + 1.5 * rng.standard_normal(truth.shape)
    entries = dmf.SampledEntries(rows, cols, noisy[rows, cols], truth.shape)
    return truth, noisy, entries, numbers, np.array(["a", "b", "c"], object)[kinds]


@pytest.fixture(scope="module")
def plain(case):
    return dmf.complete(case[2], offsets=True)


@pytest.fixture(scope="module")
def told(case):
    return dmf.complete(case[2], row_features=case[3], column_features=case[4])


def rmse(found, truth):
    return np.sqrt(np.mean((found - truth) ** 2))


def test_features_tell_of_rows_with_few_entries_and_more_of_those_without(case, plain, told):
    truth = case[0]
    assert rmse(told.product()[SOME], truth[SOME]) < 0.9 * rmse(plain.product()[SOME], truth[SOME])
    assert rmse(told.product()[COLD], truth[COLD]) < 0.4 * rmse(plain.product()[COLD], truth[COLD])


def test_a_component_that_features_alone_keep_is_not_counted(told):
    assert told.found.rank <= 2


def test_random_features_do_no_harm(case, plain):
    truth, _, entries, *_ = case
    rng = np.random.default_rng(0)
    found = dmf.complete(
        entries, offsets=True, row_features=rng.standard_normal((D1, 10)), column_features=rng.standard_normal((D2, 10))
    )
    assert rmse(found.product()[SOME], truth[SOME]) < 1.03 * rmse(plain.product()[SOME], truth[SOME])


def test_by_id_and_by_position_are_one(case, told):
    _, _, entries, numbers, kinds = case
    order = np.random.default_rng(1).permutation(D1)
    by_id = {int(i): {"0": numbers[i, 0], "1": numbers[i, 1]} for i in order}
    again = dmf.complete(entries, row_features=by_id, column_features=dict(enumerate(kinds)))
    np.testing.assert_allclose(again.product(), told.product(), rtol=0, atol=1e-9)


def test_neither_unit_nor_origin_of_a_feature_matters(case, told):
    _, _, entries, numbers, kinds = case
    again = dmf.complete(entries, row_features=1e6 * numbers + 1e7, column_features=kinds)
    np.testing.assert_allclose(again.product(), told.product(), rtol=0, atol=1e-5)


def test_new_rows_follow_their_features(case, told):
    truth, noisy, _, numbers, _ = case
    seen = np.random.default_rng(2).random(truth[COLD].shape) < 0.03
    rows, cols = np.nonzero(seen)
    few = dmf.SampledEntries(rows, cols, noisy[COLD][rows, cols], seen.shape)
    none = dmf.new_rows(told, features=numbers[COLD])
    np.testing.assert_allclose(none.product(), told.product()[COLD], rtol=0, atol=1e-3)
    with_both = dmf.new_rows(told, few, numbers[COLD]).product()
    assert rmse(with_both, truth[COLD]) < rmse(none.product(), truth[COLD])
    assert rmse(with_both, truth[COLD]) < 0.7 * rmse(dmf.new_rows(told, few).product(), truth[COLD])


def test_new_columns_follow_their_features(case, told):
    kinds = case[4]
    found = dmf.new_columns(told, features=kinds[:5]).product()[SOME]
    assert rmse(found, case[0][SOME, :5]) < 0.5 * np.std(case[0])


def test_a_model_file_knows_the_features(case, told, tmp_path):
    told.save(tmp_path / "model.npz")
    again = dmf.load(tmp_path / "model.npz")
    assert again.priors[1].features == told.priors[1].features
    found = dmf.new_rows(again, features=case[3][:4]).product()
    np.testing.assert_array_equal(found, dmf.new_rows(told, features=case[3][:4]).product())
    with np.load(tmp_path / "model.npz") as file:
        arrays = dict(file)
    arrays["row_prior"] = arrays["row_prior"][1:]
    np.savez(tmp_path / "spoiled.npz", **arrays)
    with pytest.raises(FileError, match="row_prior"):
        dmf.load(tmp_path / "spoiled.npz")
    with pytest.raises(ArgumentError, match="precision"):
        told.save(tmp_path / "small", precision="posterior")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"row_features": np.ones((3, 2))}, "160 rows"),
        ({"row_features": np.ones((D1, 2))}, "tell nothing"),
        ({"row_features": {"nobody": 1.0}}, "none of the 1 ids"),
        ({"row_features": np.full((D1, 1), np.inf)}, "infinite"),
        ({"row_features": np.zeros((D1, 2, 2))}, "dimensions"),
        ({"row_features": np.zeros((D1, 0))}, "no feature"),
        ({"row_features": {1: [1.0], 2: [1.0, 2.0]}}, "alike"),
        ({"row_features": {1: {1.0}, 2: [{}]}}, "features"),
        ({"column_features": np.arange(D2), "offsets": False}, "offsets=False"),
        ({"column_features": np.arange(D2), "feedback": "implicit"}, "column_features"),
    ],
)
def test_features_that_do_not_fit_are_refused(case, options, told):
    with pytest.raises(DmfError, match=told):
        dmf.complete(case[2], **options)


def test_features_of_new_rows_must_be_those_of_the_fit(case, plain, told):
    for recovery, features, message in (
        (plain, case[3], "without row_features"),
        (told, case[3][:, :1], "lack '1'"),
        (told, np.full((2, 2), "x", object), "holds texts"),
    ):
        with pytest.raises(ArgumentError, match=message):
            dmf.new_rows(recovery, features=features)
    with pytest.raises(ArgumentError, match="new ones"):
        dmf.new_rows(told, case[2], case[3][:7])
    with pytest.raises(ArgumentError, match="fitted with features"):
        told.update(case[2])


def test_categories_and_numbers():
    texts = np.array(["x|y", "x", None, "y", "once"], object)
    feature = Feature.of("f", texts)
    assert feature.levels == ("x", "y")
    np.testing.assert_allclose(feature.encoded(texts), [[0.5, 0.5], [0.5, -0.5], [0, 0], [-0.5, 0.5], [-0.5, -0.5]])
    numbers = Feature.of("n", np.array([1.0, 3.0, np.nan]))
    np.testing.assert_allclose(numbers.encoded(np.array([3.0, np.nan])), [[1], [0]])
    assert Feature.of("alike", np.array([2.0, 2.0])) is None
    assert Feature.of("different", np.array(["a", "b"], object)) is None


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_frames_are_read_by_id(library):
    frames = pytest.importorskip(library)
    columns = {"id": [7, 8], "age": [20, None], "job": ["a", "b"]}
    frame = frames.table(columns) if library == "pyarrow" else frames.DataFrame(columns)
    table = read_features(frame.set_index("id") if library == "pandas" else frame, "row_features")
    assert table.ids == ("7", "8")
    np.testing.assert_array_equal(table.columns["age"], [20, np.nan])
    assert table.columns["job"].tolist() == ["a", "b"]


def test_a_file_has_ids_first(tmp_path):
    path = tmp_path / "users.csv"
    path.write_text("user,age,job\n1,20,x\n2,,y\n")
    table = read_feature_file(path, {"1"}, "row_features")
    assert table.ids == ("1", "2")
    assert list(table.columns) == ["age", "job"]
    assert np.isnan(table.columns["age"][1])
    path.write_text("1,20\n1,30\n")
    with pytest.raises(FileError, match="line 2"):
        read_feature_file(path, {"1"}, "row_features")


def test_features_of_an_earlier_call_have_no_part_in_another(told, plain, tmp_path):
    """The observations of a recovery are entries alone."""
    again = dmf.complete(told.observations, offsets=True)
    assert again.priors == (None, None)
    np.testing.assert_array_equal(again.product(), plain.product())
    again.save(tmp_path / "model.npz")
    assert dmf.load(tmp_path / "model.npz").priors == (None, None)


def test_what_features_say_of_columns_is_not_asked_of_a_matrix_of_new_rows(told, case, tmp_path):
    """Its factors have other directions."""
    new = dmf.new_rows(told, features=case[3][:5])
    with pytest.raises(ArgumentError, match="fitted without column_features"):
        dmf.new_columns(new, features=case[4][:2])
    new.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(dmf.load(tmp_path / "model.npz").product(), new.product())
