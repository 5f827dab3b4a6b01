"""Every form that Python has for a matrix, in every call: it works and comes back in its form, or a clear error says why."""

import pickle
from importlib import import_module

import numpy as np
import pytest
import scipy.sparse

import dmf
from dmf.errors import DmfError, ObservationError, ShapeError
from dmf.estimators import DeepMatrixCompletion, TableImputer
from dmf.io.forms import read_form

NAMES = list("abcdef")
COMPLETE = np.random.default_rng(0).integers(-9, 9, (12, 2)) @ np.random.default_rng(1).integers(-9, 9, (2, 6)) / 1.0
HOLED = COMPLETE.copy()
HOLED[[0, 3, 5, 7, 11], [1, 0, 5, 2, 3]] = np.nan


def pandas(values, dtype=None, **more):
    frame = pytest.importorskip("pandas").DataFrame(values, columns=NAMES, index=[f"r{k}" for k in range(len(values))])
    return frame if dtype is None else frame.astype(dtype)


def with_dates(values):
    frame = pandas(values)
    frame.insert(2, "when", pytest.importorskip("pandas").date_range("2024", periods=len(values)))
    return frame


def polars(values):
    pl = pytest.importorskip("polars")
    return pl.DataFrame(values, schema=NAMES).fill_nan(None)


def polars_integers(values):
    return polars(values).cast(pytest.importorskip("polars").Int32)


def arrow(values):
    pa = pytest.importorskip("pyarrow")
    return pa.table({name: pa.array(column, from_pandas=True) for name, column in zip(NAMES, values.T, strict=True)})


def xarray(values):
    xr = pytest.importorskip("xarray")
    return xr.DataArray(values, dims=("time", "site"), coords={"site": NAMES})


def masked(values):
    return np.ma.masked_array(np.where(np.isnan(values), -999, values), np.isnan(values))


def masked_integers(values):
    return np.ma.masked_array(np.where(np.isnan(values), -999, values).astype(np.int16), np.isnan(values))


def nested(values):
    return [[None if value != value else value for value in row] for row in values.tolist()]


def read_only(values):
    values = values.copy()
    values.flags.writeable = False
    return values


FORMS = {
    "array": lambda values: values,
    "read-only": read_only,
    "fortran": np.asfortranarray,
    "big-endian": lambda values: values.astype(">f8"),
    "float32": lambda values: values.astype(np.float32),
    "float16": lambda values: values.astype(np.float16),
    "masked": masked,
    "masked integers": masked_integers,
    "nested lists": nested,
    "objects": lambda values: np.array(nested(values), object),
    "pandas": pandas,
    "pandas nullable": lambda values: pandas(values).convert_dtypes(),
    "pandas Int64": lambda values: pandas(values, "Int64"),
    "pandas arrow": lambda values: pandas(values, "float64[pyarrow]"),
    "pandas float32": lambda values: pandas(values, np.float32),
    "pandas with dates": with_dates,
    "pandas sparse": lambda values: pandas(values).astype(import_module("pandas").SparseDtype(float)),
    "polars with dates": lambda values: pytest.importorskip("polars").from_pandas(with_dates(values)),
    "pyarrow with dates": lambda values: pytest.importorskip("pyarrow").Table.from_pandas(with_dates(values)),
    "polars": polars,
    "polars integers": polars_integers,
    "pyarrow": arrow,
    "xarray": xarray,
    **{
        f"sparse {kind}": lambda values, kind=kind: sparse(values, kind)
        for kind in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia")
    },
}


HAVE_INDEX = [name for name in FORMS if name.startswith("pandas")] + ["pyarrow with dates"]


def sparse(values, kind):
    rows, cols = np.nonzero(~np.isnan(values))
    matrix = scipy.sparse.coo_array((values[rows, cols], (rows, cols)), values.shape)
    return (
        matrix.tobsr((1, 1)) if kind == "bsr" else matrix.asformat(kind)
    )  # larger blocks would store what is missing as 0


CALLS = {
    "complete": lambda data: dmf.complete(data).filled(),
    "factorize": lambda data: dmf.factorize(data).product(),
    "complete_table": lambda data: dmf.complete_table(data).filled(),
    "DeepMatrixCompletion": lambda data: DeepMatrixCompletion().fit_transform(data),
    "TableImputer": lambda data: TableImputer().fit_transform(data),
}


def numbers(result):
    """The cells of a result in any form, without columns of dates and an index."""
    if hasattr(result, "to_pandas"):
        result = result.to_pandas()
    if hasattr(result, "select_dtypes"):
        result = result.select_dtypes("number")
    return np.asarray(result, dtype=float)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("call", [pytest.param(n, marks=pytest.mark.slow) if n == "TableImputer" else n for n in CALLS])
def test_every_form_goes_into_every_call(form, call):
    data = FORMS[form](COMPLETE if call == "factorize" else HOLED)
    try:
        result = CALLS[call](data)
    except (DmfError, ValueError, TypeError) as error:
        told = str(error)
        assert (form.startswith("sparse") and "toarray()" in told) or ("dates" in form and "no number" in told)
        assert not told.startswith("The DType") and "Traceback" not in told
        return
    if call in ("complete_table", "TableImputer"):  # few rows tell it little
        known = ~np.isnan(HOLED)
        assert np.isfinite(numbers(result)).all()
        np.testing.assert_array_equal(numbers(result)[known], HOLED[known])
    else:
        assert np.abs(numbers(result) - COMPLETE).max() < (0.2 if form == "float16" else 1e-4)
    if call.startswith("complete") and form.startswith(("pandas", "polars", "pyarrow", "xarray")):
        assert type(result) is type(data)


@pytest.mark.parametrize("form", [name for name in FORMS if name.startswith(("pandas", "polars", "pyarrow", "xarray"))])
def test_frames_come_back_with_their_names_and_types(form):
    data = FORMS[form](HOLED)
    recovery = pickle.loads(pickle.dumps(dmf.complete(data)))
    filled = recovery.filled()
    assert recovery.col_ids == tuple(NAMES)
    assert recovery.row_ids == (tuple(f"r{k}" for k in range(12)) if form in HAVE_INDEX else None)
    for attribute in ("dtypes", "index", "schema", "dims", "coords"):
        if hasattr(data, attribute):
            assert str(getattr(filled, attribute)) == str(getattr(data, attribute))
    if recovery.row_ids is not None:
        assert abs(recovery.predict_named(["r0"], ["b"])[0][0] - COMPLETE[0, 1]) < 1e-4
    np.testing.assert_array_equal(numbers(filled)[~np.isnan(HOLED)], COMPLETE[~np.isnan(HOLED)])


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_integers_that_no_float_holds_come_back_as_they_were(library):
    module, known = pytest.importorskip(library), [2**53 + 1, None, 3]
    if library == "pandas":
        frame = module.DataFrame({"a": module.array(known, "Int64"), "b": [1.0, 2.0, 3.0]})
    else:
        frame = (module.DataFrame if library == "polars" else module.table)({"a": known, "b": [1.0, 2.0, 3.0]})
    values, form = read_form(frame)
    filled = form.restored(np.where(np.isnan(values), 6.6, values))
    assert list(map(str, filled["a"])) == [str(2**53 + 1), "7", "3"]
    assert str(frame["a"][1]) in ("<NA>", "None")


def test_long_frames_are_entries_and_are_told_when_given_as_a_matrix():
    pd = pytest.importorskip("pandas")
    long = pd.DataFrame({"userId": [7, 7, 100, 3], "movieId": ["x", "y", "x", "z"], "rating": [5, None, 3, 1]})
    with pytest.raises(ShapeError, match=r"from_frame\(data, row='userId', column='movieId', value='rating'\)"):
        dmf.complete(long)
    for frame in (long, long.convert_dtypes(), polars_of(long), long.to_dict("list")):
        seen = dmf.SampledEntries.from_frame(frame, row="userId", column="movieId", value="rating")
        assert seen.shape == (3, 3) and seen.n_measurements == 3
        recovery = dmf.complete(seen)
        assert (recovery.row_ids, recovery.col_ids) == (("7", "100", "3"), ("x", "y", "z"))
        assert recovery.predict_named([7], ["x"])[1].tolist() == [True]
    with pytest.raises(DmfError, match="row='user', but the columns are userId"):
        dmf.SampledEntries.from_frame(long, "user", "movieId", "rating")
    with pytest.raises(ObservationError, match=r"column \('movieId'\) has no id in row 1"):
        dmf.SampledEntries.from_frame(long.assign(movieId=["x", None, "x", "z"]), "userId", "movieId", "rating")
    with pytest.raises(DmfError, match=r"'rating' holds '5' in row 0"):
        dmf.SampledEntries.from_frame(long.assign(rating=["5", "4", "3", "1"]), "userId", "movieId", "rating")


def polars_of(frame):
    return pytest.importorskip("polars").DataFrame(frame.to_dict("list"))


@pytest.mark.parametrize(
    "data, message",
    [
        (np.array([[np.nan, np.nan, 1.0], [2.0, np.inf, 3.0]]), "row 1, column 1, from 0"),
        ([["a", 1.0], [2.0, 3.0]], "column 0 holds 'a' in row 0"),
        (np.eye(3) * 1j, "complex128, but matrices here are real"),
        (np.array([["2024-01-01"]], "datetime64[D]"), "numbers are needed"),
    ],
)
def test_errors_name_row_and_column(data, message):
    with pytest.raises(DmfError, match=message):
        dmf.complete(data)


def test_a_series_or_three_dimensions_are_refused():
    for data in (pandas(HOLED)["a"], polars(HOLED).lazy(), np.zeros((2, 2, 2)), {"a": [1.0]}, "table.csv"):
        for call in (dmf.complete, dmf.complete_table):
            with pytest.raises(ShapeError):
                call(data)
    with pytest.raises(ShapeError, match="Stack some"):
        dmf.complete(pytest.importorskip("xarray").DataArray(np.zeros((2, 2, 2))))


def test_two_columns_of_one_name_and_dates_are_told_by_estimators():
    frame = with_dates(HOLED)
    for data, message in (
        (frame.rename(columns={"b": "a"}), "two columns called 'a'"),
        (pytest.importorskip("polars").from_pandas(frame), "dates or times in 'when'"),
        (frame[["when"]].to_numpy(), "dtype datetime64"),
    ):
        with pytest.raises(DmfError, match=message):
            DeepMatrixCompletion().fit(data)
