"""Times of entries in files: of the column that is named, in the order of the entries, or an error."""

import datetime as dt

import numpy as np
import pytest

from dmf.errors import ArgumentError, FileError
from dmf.io.matrices import read_entries
from dmf.io.pairs import read_pairs

HEADER = "user,film,stars,when\n"
DATES = ["2024-01-31", "2024-01-31 18:30", "2024-01-31T18:30:00+02:00", "2024-02-01T00:00:00.5Z"]
SECONDS = [1706659200.0, 1706725800.0, 1706718600.0, 1706745600.5]


@pytest.fixture
def write(tmp_path):
    def write(text):
        (tmp_path / "r.csv").write_text(text)
        return tmp_path / "r.csv"

    return write


def lines(times, values=(3, 4, 5, 1)):
    return "".join(f"u{k},f{k % 2},{v},{t}\n" for k, (v, t) in enumerate(zip(values, times, strict=True)))


@pytest.mark.parametrize(
    ("times", "expected"),
    [([5, 1e3, -2.5, 7], [5, 1e3, -2.5, 7]), (DATES, SECONDS), ([60, *DATES[1:]], [60, *SECONDS[1:]])],
)
def test_numbers_and_dates_are_read_from_the_column_that_is_named(write, times, expected):
    path = write(HEADER + lines(times))
    for name in ("when", "4"):
        found = read_entries(path, time=name)
        assert found.times.tolist() == expected and "time in column" not in found.notes[0]
        assert "time in 'when'" in found.notes[0] and found.values.tolist() == [3, 4, 5, 1]
    assert read_entries(path).times is None  # never by a guess
    assert read_entries(write(lines(times)), time="4").times.tolist() == expected  # without a header


def test_lines_without_a_value_keep_their_times_for_the_predictions(write):
    found = read_entries(write(HEADER + lines([1, 2, 3, 4], [3, "", 5, ""])), keep_text=True, time="when")
    assert found.times.tolist() == [1, 3] and found.hole_times.tolist() == [2, 4]


@pytest.mark.parametrize("unit", ["s", "us", "ns"])
def test_parquet_has_numbers_or_dates(tmp_path, unit):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    dates = [dt.datetime(2024, 1, 31), None, dt.datetime(1970, 1, 1, 0, 0, 2)]
    columns = {"user": ["a", "b", "b"], "film": [1, 1, 2], "stars": [1.0, 2.0, 3.0]}
    for k, times in enumerate(
        (pa.array([5, None, 2]), pa.array(dates, pa.timestamp(unit, "UTC")), pa.array(dates, pa.timestamp(unit)))
    ):
        table = pa.table(columns | {"when": times})
        path = tmp_path / f"{k}.parquet"
        pq.write_table(table, path)
        with pytest.raises(FileError, match="no time in row 2"):
            read_entries(path, time="when")
        pq.write_table(table.take([0, 2]), path)
        assert read_entries(path, time="when").times.tolist() == [1706659200.0 if k else 5.0, 2.0]


def test_parquet_has_days_and_parts_of_microseconds(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    days = pa.array([dt.date(1970, 1, 3), dt.date(1969, 12, 31)])
    for times, expected in ((days, [172_800.0, -86_400.0]), (pa.array([1, 2], pa.timestamp("ns")), [1e-9, 2e-9])):
        pq.write_table(
            pa.table({"user": ["a", "b"], "film": [1, 1], "stars": [1.0, 2.0], "when": times}), tmp_path / "t.parquet"
        )
        assert read_entries(tmp_path / "t.parquet", time="when").times.tolist() == expected


@pytest.mark.parametrize(
    ("text", "stated", "told"),
    [
        (HEADER + lines([1, 2, "noon", 4]), {"time": "when"}, r"line 4: the time \(column 4\) is 'noon'"),
        (HEADER + lines([1, "", 3, 4]), {"time": "when"}, r"line 3: the time \(column 4\) is ''"),
        (HEADER + lines([1, 2, 3, "inf"]), {"time": "when"}, r"line 5: the time \(column 4\) is 'inf'"),
        (HEADER + lines([1, 2, 3, 4]), {"time": "then"}, r"no column 'then' \(--time\)"),
        (HEADER + lines([1, 2, 3, 4]), {"time": "stars", "value": "stars"}, "one column is named twice"),
    ],
)
def test_what_is_no_time_is_refused(write, text, stated, told):
    with pytest.raises(FileError, match=told):
        read_entries(write(text), **stated)


def test_tables_and_arrays_have_no_column_of_times(write, tmp_path):
    with pytest.raises(ArgumentError, match="times"):
        read_entries(write(HEADER), layout="table", time="when")
    np.save(tmp_path / "a.npy", np.eye(2))
    with pytest.raises(FileError, match="time='when'"):
        read_entries(tmp_path / "a.npy", time="when")


def test_pairs_have_times_where_a_column_of_them_is_named(write):
    text = "row,column,when\nu0,f0,2024-01-31\nnobody,f1,7\n"
    found = read_pairs(write(text), {"u0"}, {"f0", "f1"}, time="when")
    assert found.times.tolist() == [1706659200.0, 7.0] and found.row_ids == ["u0", "nobody"]
    assert read_pairs(write(text), {"u0"}, {"f0", "f1"}).times is None
    with pytest.raises(FileError, match="line 2: the time is 'soon'"):
        read_pairs(write("row,column,when\nu0,f0,soon\n"), {"u0"}, {"f0"}, time="when")
    with pytest.raises(FileError, match=r"no column 'then' \(--time\)"):
        read_pairs(write(text), {"u0"}, {"f0"}, time="then")
