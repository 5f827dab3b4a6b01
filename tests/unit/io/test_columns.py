"""Files of columns: Parquet, folders of it, DuckDB, Excel; and compressed text. All give what the same csv gives."""

import csv
import gzip
import io
import sqlite3
import zipfile
from contextlib import closing

import numpy as np
import pytest

from dmf.errors import FileError
from dmf.io.matrices import read, read_entries, read_matrix

from matrix_files import triplets

LONG = {"user": ["b", "a", "b", "c"], "item": [30, 10, 10, 20], "rating": [1.5, 2.0, None, 4.0], "time": [7, 8, 9, 9]}
WIDE = {
    "name": [f"s{k}" for k in range(6)],
    "x": [1.5, None, 3.25, 4.0, 5.0, -1.0],
    "y": [1, 2, 3, None, 5, 6],
    "z": [0.5, 0.25, None, 1.0, 2.0, 3.0],
    "colour": ["red", "red", None, "blue", "red", "red"],
    "w": [10.0, 20.0, 30.0, 40.0, None, 60.0],
    "v": [7.0, 8.0, 9.0, 1.0, 2.0, 3.0],
}


def text_of(columns):
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([list(columns), *zip(*columns.values(), strict=True)])
    return text.getvalue()


def parquet(folder, columns):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(pa.table(columns), folder / "t.parquet")
    return folder / "t.parquet", {}


def parquet_folder(folder, columns):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    table, path = pa.table(columns), folder / "parts"
    path.mkdir()
    for k in range(2):
        pq.write_table(table.slice(k * len(table) // 2, len(table) // 2), path / f"part-{k}.parquet")
    (path / "_SUCCESS").touch()
    return path, {}


def duckdb(folder, columns):
    duckdb, pa = pytest.importorskip("duckdb"), pytest.importorskip("pyarrow")
    given = pa.table(columns)  # which the query finds by its name
    with duckdb.connect(str(folder / "t.duckdb")) as database:
        database.execute("create table kept as select * from given")
        database.execute("create table other as select 1 as a")
    assert len(given)
    return folder / "t.duckdb", {"query": "select * from kept"}


def sqlite(folder, columns):
    pytest.importorskip("pyarrow")
    with closing(sqlite3.connect(folder / "t.sqlite")) as database, database:
        database.execute("create table kept ({})".format(", ".join(f'"{name}"' for name in columns)))
        marks = ", ".join("?" * len(columns))
        database.executemany(f"insert into kept values ({marks})", zip(*columns.values(), strict=True))
        database.execute("create table other as select 1 as a")
    return folder / "t.sqlite", {"query": "select * from kept"}


def excel(folder, columns):
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    book.active.append(["another sheet"])
    sheet = book.create_sheet("data")
    for record in [list(columns), *zip(*columns.values(), strict=True)]:
        sheet.append(record)
    book.save(folder / "t.xlsx")
    return folder / "t.xlsx", {"sheet": "data"}


def gz(folder, columns):
    (folder / "t.csv.gz").write_bytes(gzip.compress(text_of(columns).encode()))
    return folder / "t.csv.gz", {}


def zst(folder, columns):
    pa = pytest.importorskip("pyarrow")
    with pa.CompressedOutputStream(str(folder / "t.csv.zst"), "zstd") as file:
        file.write(text_of(columns).encode())
    return folder / "t.csv.zst", {}


FORMS = [parquet, parquet_folder, duckdb, sqlite, excel, gz, zst]


@pytest.mark.parametrize("columns", [LONG, WIDE], ids=["long", "wide"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_what_the_same_csv_gives(tmp_path, write, form, columns):
    path, stated = form(tmp_path, columns)
    found, expected = read_entries(path, **stated), read_entries(write("t.csv", text_of(columns)))
    assert triplets(found) == triplets(expected)
    assert found.shape == expected.shape and found.row_ids == expected.row_ids and found.col_ids == expected.col_ids
    tables = sum("a table" in source.notes[0] for source in (found, expected))
    assert tables == (0 if columns is LONG else 2)


@pytest.mark.parametrize("form", FORMS)
def test_what_is_stated_holds_in_every_form(tmp_path, form):
    path, stated = form(tmp_path, WIDE)
    found = read_entries(path, "table", columns=("x", "v"), index_column="name", missing=["-1"], **stated)
    assert found.col_ids == ("x", "v") and found.values.size == 5 - 1 + 6
    assert "s5" in found.row_ids


@pytest.mark.parametrize("form", FORMS)
def test_places_of_wrong_cells_are_named_in_every_form(tmp_path, form):
    """By row, or line, and column."""
    path, stated = form(
        tmp_path,
        WIDE | {"z": [0.5, 0.25, None, "1,5,x" if form in (excel, gz, zst) else np.inf, 2.0, 3.0]}
        if form in (excel, gz, zst)
        else WIDE | {"z": [0.5, 0.25, None, np.inf, 2.0, 3.0]},
    )
    with pytest.raises(FileError, match=r"(row 4|line 5): column 4 \('z'\) is"):
        read_entries(path, **stated)


def test_a_sheet_that_is_not_there_is_told(tmp_path):
    path, _ = excel(tmp_path, LONG)
    with pytest.raises(FileError, match=r"no sheet 'x', but Sheet, data \(--sheet\)"):
        read_entries(path, sheet="x")


@pytest.mark.parametrize("form", [duckdb, sqlite])
def test_what_a_query_does_not_give_is_told(tmp_path, form):
    path, _ = form(tmp_path, LONG)
    with pytest.raises(FileError, match=r"2 tables \(kept, other\).*--query"):
        read_entries(path)
    with pytest.raises(FileError, match="nothing_there"):
        read_entries(path, query="select * from nothing_there")
    with pytest.raises(FileError, match="no rows"):
        read_entries(path, query="select * from kept where time < 0")
    with pytest.raises(FileError, match=r"query='select 1'"):
        read_entries(gz(tmp_path, LONG)[0], query="select 1")


def test_a_complete_wide_parquet_file_is_a_matrix(tmp_path):
    pytest.importorskip("pyarrow")
    path, _ = parquet(tmp_path, {"x": [1.0, 2.0, 3.0], "y": [0.0, 4.0, 9.0]})
    np.testing.assert_array_equal(read_matrix(path, "table").matrix, [[1, 0], [2, 4], [3, 9]])


def test_what_unpacks_to_far_more_than_it_is_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("dmf.io.arrays._ALWAYS_READ", 2**16)
    path = tmp_path / "bomb.csv.gz"
    path.write_bytes(gzip.compress(b"a,b,1\n" * 20_000))
    with pytest.raises(FileError, match="unpacks to more than"):
        read_entries(path)
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<x/>" + " " * 2**17)
    pytest.importorskip("openpyxl")
    with pytest.raises(FileError, match="unpacks to"):
        read_entries(tmp_path / "book.xlsx")


def test_what_is_no_workbook_is_refused(tmp_path):
    pytest.importorskip("openpyxl")
    with zipfile.ZipFile(tmp_path / "book.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(FileError, match="no intact Excel workbook"):
        read_entries(tmp_path / "book.xlsx")


@pytest.mark.parametrize("columns", [LONG, WIDE], ids=["long", "wide"])
@pytest.mark.parametrize("form", [parquet, parquet_folder, duckdb, sqlite])
def test_columns_are_written_as_they_came_with_their_holes_filled(tmp_path, form, columns):
    """Types and all that was there stay; whole numbers are rounded."""
    pq = pytest.importorskip("pyarrow.parquet")
    path, stated = form(tmp_path, columns)
    source = read_entries(path, keep_text=True, **stated)
    source.text.write_filled(tmp_path / "out.parquet", np.full(len(source.text.holes), 2.6))
    filled = pq.read_table(tmp_path / "out.parquet")
    if form in (parquet, parquet_folder):
        assert filled.schema.types == pq.read_table(path).schema.types
    holes = [k for k, name in enumerate(columns) if None in columns[name] and name != "colour"]
    for k, (name, cells) in enumerate(columns.items()):
        fill = 3 if name == "y" else 2.6
        assert filled.column(name).to_pylist() == [fill if cell is None and k in holes else cell for cell in cells]
    source.text.write_filled(tmp_path / "out.csv", np.full(len(source.text.holes), 2.6))
    assert (tmp_path / "out.csv").read_text().splitlines()[0].replace('"', "") == ",".join(columns)


@pytest.mark.parametrize("form", [excel, gz, zst])
def test_sheets_and_compressed_text_are_written_as_text(tmp_path, form):
    path, stated = form(tmp_path, WIDE)
    source = read_entries(path, keep_text=True, **stated)
    source.text.write_filled(tmp_path / "out.csv", np.full(len(source.text.holes), 2.6))
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == ",".join(WIDE) and lines[2] in ("s1,2.60,2,0.25,red,20.0,8.0", "s1,2.60,2,0.25,red,20,8")


@pytest.mark.parametrize("index", ["numbers", "dates", "repeated", "two levels"])
def test_what_pandas_wrote_as_an_index_is_no_data(tmp_path, rng, index):
    pd = pytest.importorskip("pandas")
    values = rng.standard_normal((30, 5))
    values[3, 2] = np.nan
    kinds = {
        "numbers": np.arange(30)[::-1] * 3,
        "dates": pd.date_range("2024", periods=30),
        "repeated": np.repeat(np.arange(10), 3),
        "two levels": pd.MultiIndex.from_product([["a", "b"], range(15)], names=["x", "y"]),
    }
    pd.DataFrame(values, columns=list("abcde"), index=kinds[index]).to_parquet(tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet")
    np.testing.assert_array_equal(found.matrix, values)
    named = index in ("numbers", "dates")
    expected = map(str, kinds[index] if named else range(30))
    assert all(name.startswith(start) for name, start in zip(found.row_ids, expected, strict=True))
    assert any("does not give each row one name" in note for note in found.notes) != named


def test_reading_tells_its_progress(tmp_path):
    path = tmp_path / "entries.csv"
    path.write_text("user,item,rating\n" + "".join(f"u{k % 999},i{k % 1013},{k % 5}\n" for k in range(900_000)))
    told = []
    read_entries(path, progress=lambda lines, share: told.append((lines, share)))
    assert len(told) >= 1 and told == sorted(told) and told[-1] == (900_001, 1.0)
