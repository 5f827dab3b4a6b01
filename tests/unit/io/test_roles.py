"""Which column is what: stated, or inferred from headings and content, and never wrong in silence."""

import numpy as np
import pytest

from dmf.errors import ArgumentError, FileError
from dmf.io.matrices import read, read_entries, read_matrix

from matrix_files import triplets


def csv_of(*columns, header=None):
    lines = [list(header)] if header else []
    lines += [list(map(str, line)) for line in zip(*columns, strict=True)]
    return "".join(",".join(line) + "\n" for line in lines)


# Entries

USERS, ITEMS, RATINGS = [7, 7, 8, 9, 9], [501, 502, 501, 501, 503], [3, 4, 5, 1, 2]
TIMES = [881250949 + 7 * k for k in range(5)]
EXPECTED = sorted((str(u), str(i), float(r)) for u, i, r in zip(USERS, ITEMS, RATINGS, strict=True))
NAMED = {"userId": USERS, "movieId": ITEMS, "rating": RATINGS, "timestamp": TIMES}


@pytest.mark.parametrize(
    "order",
    [
        ("userId", "movieId", "rating"),
        ("timestamp", "userId", "movieId", "rating"),
        ("userId", "rating", "movieId"),
        ("rating", "userId", "movieId"),
        ("movieId", "userId", "timestamp", "rating"),
    ],
)
@pytest.mark.parametrize("counted", [True, False])
def test_headings_say_which_columns_hold_users_items_and_ratings(write, order, counted):
    """In any order, beside times, and behind the numbers of the lines that pandas writes in front."""
    columns, header = [NAMED[name] for name in order], list(order)
    if counted:
        columns, header = [range(5), *columns], ["", *header]
    found = read_entries(write("r.csv", csv_of(*columns, header=header)))
    assert triplets(found) == EXPECTED
    assert "row id in column 'userId', column id in 'movieId', value in 'rating'" in found.notes[0]


def test_without_telling_headings_the_order_decides_but_times_and_line_numbers_are_left_out(write):
    found = read_entries(
        write("r.csv", csv_of(range(5), TIMES, USERS, ITEMS, RATINGS, header=["", "time", "a", "b", "c"]))
    )
    assert triplets(found) == EXPECTED


@pytest.mark.parametrize(
    "columns, problem",
    [
        ((USERS, ITEMS, TIMES), "column 3 would be the values, but holds whole numbers like seconds"),
        ((USERS, ITEMS, TIMES, RATINGS), None),
        ((TIMES, USERS, ITEMS, RATINGS), None),
        ((range(0, 120, 3), [k % 7 for k in range(40)], [k // 7 for k in range(40)], [k % 4 for k in range(40)]), None),
        (
            (
                [7 * k % 41 for k in range(40)],
                [k % 7 for k in range(40)],
                [k // 7 for k in range(40)],
                [k % 4 for k in range(40)],
            ),
            "no two lines have the same id in column 1",
        ),
        (([k % 5 + 1 for k in range(40)], range(101, 141), [200 + k // 2 for k in range(40)]), None),
        ((range(40), [k % 9 for k in range(40)], [k // 9 for k in range(40)], [k % 4 for k in range(40)]), None),
        (([0.5, 3.5, 4.5], USERS[:3], ITEMS[:3]), "column 1 would be ids, but holds fractions"),
        (([k // 8 for k in range(40)], [k % 2 for k in range(40)], range(100, 140)), "pairs of columns 1 and 2 repeat"),
    ],
)
def test_an_order_that_would_take_ids_or_times_for_values_is_an_error(write, columns, problem):
    path = write("r.csv", csv_of(*columns))
    if problem is None:
        found = read_entries(path)
        assert found.values.tolist() == list(columns[-1])
        return
    with pytest.raises(FileError, match=f"{problem}.*--columns 1,2,3 if it is right"):
        read_entries(path)
    assert read_entries(path, columns=("1", "2", "3")).values.size == len(columns[0])


@pytest.mark.parametrize(
    "stated",
    [
        {"columns": ("b", "c", "a")},
        {"columns": ("2", "3", "1")},
        {"columns": ("b", "c"), "value": "a"},
        {"value": "a"},
        {"columns": ("b", "c"), "layout": "entries"},
    ],
)
def test_columns_are_taken_as_stated(write, stated):
    path = write("r.csv", csv_of(RATINGS, USERS, ITEMS, header="abc"))
    assert triplets(read_entries(path, **stated)) == EXPECTED


@pytest.mark.parametrize(
    "stated, error, message",
    [
        ({"columns": ("a", "b", "x")}, FileError, "no column 'x' .* its columns are a, b, c"),
        ({"columns": ("1", "2", "4")}, FileError, "a number from 1 to 3"),
        ({"columns": ("a", "a", "b")}, FileError, "one column is named twice"),
        ({"columns": ("a", "b", "c"), "value": "a"}, ArgumentError, "Name these three, or two and the value"),
        ({"value": "a", "layout": "table"}, ArgumentError, "Leave out one or the other"),
        ({"columns": ("a",)}, ArgumentError, "Name these three"),
        ({"decimal": ";"}, ArgumentError, "decimal=';'"),
        ({"index_column": "x"}, FileError, "no column 'x'"),
        ({"index_column": "d"}, FileError, "no column 'd'"),
        ({"header": False, "columns": ("a", "b", "c")}, FileError, "it has no header and 3 columns"),
    ],
)
def test_what_is_stated_and_cannot_be_is_refused(write, stated, error, message):
    with pytest.raises(error, match=message):
        read_entries(write("r.csv", csv_of(RATINGS, USERS, ITEMS, header="abc")), **stated)


def test_lines_without_a_value_are_missing_entries_and_can_be_filled(write, tmp_path):
    """As pandas melts a table with holes."""
    path = write("long.csv", "timestamp,sensor,value\n00:00,s1,1.25\n00:00,s2,\n01:00,s1,NA\n01:00,s2,4.50\n")
    found = read_entries(path, keep_text=True)
    assert triplets(found) == [("00:00", "s1", 1.25), ("01:00", "s2", 4.5)]
    assert found.shape == (2, 2)
    assert "2 lines have no value: these entries are missing" in found.notes
    assert found.text.holes[:, 2:].tolist() == [[0, 1], [1, 0]]
    found.text.write_filled(tmp_path / "filled.csv", np.array([2.0, 3.126]))
    assert (tmp_path / "filled.csv").read_text() == path.read_text().replace("s2,\n", "s2,2.00\n").replace("NA", "3.13")


# Tables

INDEXES = {
    "time": 1704067200 + 900 * np.arange(12),
    "timestamp": 1704067200 + 900 * np.arange(12),
    "epoch": 1704067200 + 901 * np.arange(12) ** 2,
    "step": np.arange(1, 13),
    "station_id": 1000 + 17 * np.arange(12),
    "StationID": np.random.default_rng(0).permutation(1000 + 17 * np.arange(12)),
    "datetime": 202401010000 + np.arange(12),
    "": np.arange(12),
}


@pytest.fixture
def sensors():
    table = 10 + np.random.default_rng(1).standard_normal((12, 5)).round(3)
    table[2, 3] = table[7, 0] = np.nan
    return table


def table_text(index, heading, table):
    columns = [index, *(["" if np.isnan(v) else v for v in column] for column in table.T)]
    return csv_of(*columns, header=[heading, *(f"s{k}" for k in range(table.shape[1]))])


@pytest.mark.parametrize("heading", INDEXES)
def test_a_first_column_of_times_numbers_or_ids_is_no_data(write, sensors, heading):
    path = write("t.csv", table_text(INDEXES[heading], heading, sensors))
    found = read_entries(path)
    assert found.row_ids == tuple(map(str, INDEXES[heading]))
    assert found.col_ids == ("s0", "s1", "s2", "s3", "s4")
    assert any("--index-column none takes it as data" in note for note in found.notes)
    if heading:
        assert read_entries(path, index_column="none").col_ids == (heading, *found.col_ids)


def test_times_that_are_not_the_first_column_or_repeat_are_no_data_either(write, sensors):
    times = 1704067200 + 900 * (np.arange(12) // 2)
    found = read_entries(write("t.csv", table_text(times, "time", sensors)))
    assert found.col_ids == ("s0", "s1", "s2", "s3", "s4")
    sensors[:, 1] = 1704067200 + np.arange(12)
    path = write("u.csv", table_text([f"r{k}" for k in range(12)], "name", sensors))
    with pytest.raises(
        FileError, match=r"column 3 \('s1'\) holds whole numbers like seconds since 1970.*--columns s0,s2,s3,s4"
    ):
        read_entries(path)
    assert read_entries(path, layout="table", columns=("s0", "s2", "s3", "s4")).col_ids == ("s0", "s2", "s3", "s4")
    assert read_entries(path, index_column="1").shape == (12, 5)


@pytest.mark.parametrize("corner", ["userId", "user_id", ""])
def test_a_pivot_of_ratings_has_whole_numbers_as_column_names(write, corner):
    items = [1, 2, 3, 6, 10, 16, 25]
    ratings = np.random.default_rng(0).integers(1, 6, (9, 7)).astype(float)
    ratings[np.random.default_rng(1).random(ratings.shape) < 0.3] = np.nan
    columns = [range(1, 10), *(["" if np.isnan(v) else v for v in column] for column in ratings.T)]
    path = write("p.csv", csv_of(*columns, header=[corner, *map(str, items)]))
    found = read_entries(path)
    assert (found.row_ids, found.col_ids) == (tuple(map(str, range(1, 10))), tuple(map(str, items)))
    assert read_entries(path, header=True).col_ids == found.col_ids
    assert any("--no-header takes them as data" in note for note in found.notes)


def test_a_first_line_of_numbers_may_be_stated_to_be_a_header_or_not(write):
    path = write("t.csv", "a,1,2,4\nb,2,4,6\nc,3,,9\n")
    assert read_entries(path).shape == (3, 3)
    assert read_entries(path, layout="table", header=True).col_ids == ("1", "2", "4")
    years = write("y.csv", "land,2001,2002\nA,1,\nB,2,3\n")
    assert read_entries(years, header=False, index_column="1").col_ids == ("0", "1")


# Missing marks, decimal signs


@pytest.mark.parametrize("mark", ["NA", "N/A", "#N/A", "None", "<NA>", "nan", "NULL"])
def test_what_pandas_reads_as_missing_is_missing(write, mark):
    assert read_entries(write("t.csv", f"a,b,c\n1,{mark},3\n4,5,6.5\n")).values.size == 5


@pytest.mark.parametrize("mark", ["-", "?", ".", "\\N", "ND", "n.d."])
def test_another_mark_of_missing_cells_is_refused_with_the_option_that_reads_it(write, mark):
    path = write("t.csv", f"a,b,c\n1,{mark},3\n4,5,6.5\n7,8,9\n")
    with pytest.raises(FileError, match="--missing"):
        read_entries(path, "table")
    assert read_entries(path, "table", missing=[mark]).values.size == 8


@pytest.mark.parametrize("sentinel", ["-999", "-9999.0", "9.99e20"])
def test_a_number_that_stands_for_missing_cells_is_told_and_read_as_stated(write, sensors, sentinel):
    cells = [line.split(",") for line in table_text([f"r{k}" for k in range(12)], "", sensors).splitlines()]
    for line in cells[3:6]:
        line[2] = sentinel
    path = write("t.csv", "\n".join(map(",".join, cells)) + "\n")
    (told,) = [note for note in read_entries(path).notes if "far outside the others" in note]
    assert f"--missing {float(sentinel):.10g}" in told
    found = read_entries(path, missing=[str(float(sentinel))])
    assert found.values.size == 12 * 5 - 2 - 3
    assert np.abs(found.values).max() < 20


def test_zeros_and_ones_are_no_marks_of_missing_cells(write):
    found = read_entries(write("t.csv", "a,b,c,d\n1,0,1,\n0,1,0,1\n1,1,0,0\n"))
    assert not any("far outside" in note for note in found.notes)


def test_decimal_commas_are_read_and_written_where_they_are_stated(write, tmp_path):
    path = write("eu.csv", ";a;b;c\nr1;1,25;;3,5\nr2;2,5;4,125;\n")
    with pytest.raises(FileError, match="--decimal ,"):
        read_entries(path)
    found = read_entries(path, decimal=",", keep_text=True)
    assert triplets(found) == [("r1", "a", 1.25), ("r1", "c", 3.5), ("r2", "a", 2.5), ("r2", "b", 4.125)]
    found.text.write_filled(tmp_path / "out.csv", np.array([7.0, 8.26]))
    assert (tmp_path / "out.csv").read_text() == ";a;b;c\nr1;1,25;7,000;3,5\nr2;2,5;4,125;8,3\n"
    with pytest.raises(FileError, match=r"no '\.'"):
        read_entries(write("p.csv", "a;b;c\n1.5;;2\n1;2,5;3\n"), decimal=",")


@pytest.mark.parametrize(
    "text, stated",
    [
        ("sep=;\na;b;c\n1.5;;3\n2;4;5\n", {}),
        ("Report, 2024-02-02\n\na,b,c\n1.5,,3\n2,4,5\n", {"skip": 1}),
        ("a;b;c\n0.015e2;;3\n2;4;5\n", {}),
        ('a,b,c\n1.5,,"0,003"\n2,"0,004",5\n', {"thousands": ","}),
        ("a;b;c\n1,5;;3\n2;4;5\n", {"decimal": ",", "thousands": "."}),
    ],
)
def test_titles_spreadsheet_lines_and_grouped_digits(write, text, stated):
    path = write("t.csv", text)
    assert triplets(read_entries(path, "table", **stated)) == [
        ("0", "a", 1.5), ("0", "c", 3), ("1", "a", 2), ("1", "b", 4), ("1", "c", 5),
    ]  # fmt: skip


def test_what_stays_empty_is_counted(write):
    found = read_entries(write("t.csv", ",a,b,c,e\nr,1,,3,\ns,,,,\nt,4,5,6,\n"), keep_text=True)
    assert len(found.text.holes) == 1
    assert found.text.n_left_empty == 3 + 3  # the row s, and the column e


def test_options_of_text_are_refused_for_files_that_need_none(tmp_path):
    np.save(tmp_path / "m.npy", np.eye(3))
    with pytest.raises(FileError, match="says itself what it holds"):
        read_matrix(tmp_path / "m.npy", decimal=",")


def test_parquet_columns_are_named_alike(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pq.write_table(
        pa.table({name: NAMED[name] for name in ("timestamp", "rating", "userId", "movieId")}), tmp_path / "r.parquet"
    )
    assert triplets(read_entries(tmp_path / "r.parquet")) == EXPECTED
    found = read_entries(tmp_path / "r.parquet", columns=("movieId", "userId"), value="timestamp")
    assert found.values.tolist() == TIMES


def test_a_line_of_units_is_left_out_and_kept_when_the_table_is_filled(write, tmp_path):
    content = "name,a,b\n,degC,hPa\nr,1.5,\ns,,2.5\nt,3.5,4.5\n"
    path = write("u.csv", content)
    found = read_entries(path, "table", keep_text=True)
    assert triplets(found) == [("r", "a", 1.5), ("s", "b", 2.5), ("t", "a", 3.5), ("t", "b", 4.5)]
    assert any("(degC, hPa) is taken as units" in note for note in found.notes)
    found.text.write_filled(tmp_path / "out.csv", np.array([7.0, 8.0]))
    assert (tmp_path / "out.csv").read_text() == content.replace("1.5,\n", "1.5,7.0\n").replace("s,,", "s,8.0,")


def test_a_title_is_told_with_the_option_that_leaves_it_out(write):
    for title in ("Report", "Report, 2024"):
        path = write("t.csv", f"{title}\n\na,b,c,d\n1,2,,4\n4,5,6,7\n")
        with pytest.raises(FileError, match="--skip"):
            read_entries(path)
        assert read_entries(path, "table", skip=1).shape == (2, 4)


def test_values_that_are_all_the_same_are_told_to_hold_no_ranking(write):
    found = read_entries(write("r.csv", "u,i,r\n" + "".join(f"u{k},i{k % 3},1\n" for k in range(12))))
    assert any("hold no ranking" in note for note in found.notes)


@pytest.mark.parametrize(
    "index, told",
    [
        ([0.25 * k for k in range(30)], "holds numbers at even distances and is taken as row names"),
        ([2460000.5 + k for k in range(30)], "holds numbers at even distances and is taken as row names"),
        ([1990 + k // 3 for k in range(30)], "is taken as data, though it only rises"),
    ],
)
def test_a_first_column_of_regular_or_rising_numbers_is_told(write, index, told):
    rng = np.random.default_rng(0)
    rows = [
        [i, *("" if gone else f"{value:.3f}" for value, gone in zip(rng.random(5), rng.random(5) < 0.1, strict=True))]
        for i in index
    ]
    found = read(write("t.csv", csv_of(*zip(*rows, strict=True), header=["when", *"abcde"])))
    assert any(told in note for note in found.notes)
    assert found.matrix.shape == (30, 5 if "names" in told else 6)


def test_ids_that_are_not_the_first_column_are_no_data_and_keys_in_front_make_no_entries(write):
    rng = np.random.default_rng(0)
    values = [["" if rng.random() < 0.1 else f"{rng.random():.3f}" for _ in range(30)] for _ in range(5)]
    ids = rng.permutation(30) + 100
    found = read(write("t.csv", csv_of(*values, ids, header=[*"abcde", "row_id"])))
    assert found.col_ids == tuple("abcde") and any("'row_id' holds different whole" in note for note in found.notes)
    named = read(write("t.csv", csv_of(*values, ids, header=[*"abcde", "row_id"])), index_column="row_id")
    assert named.row_ids == tuple(map(str, ids))
    keys = [k // 2 for k in range(30)], [k % 2 for k in range(30)]
    found = read(write("t.csv", csv_of(*keys, *values, header=["site", "visit", *"abcde"])))
    assert found.matrix.shape == (30, 7)
