"""Tables with missing cells: what is read, what is refused, and that filling changes nothing but the missing cells."""

import csv
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmf.errors import FileError
from dmf.io.filling import split_records
from dmf.io.matrices import read, read_entries, read_matrix

from matrix_files import npy_of

MISSING = ["", "NA", "NaN", "nan", "null"]


def dense(found):
    """The matrix that was read, NaN where a cell is missing."""
    matrix = np.full(found.shape, np.nan)
    matrix[found.rows, found.cols] = found.values
    return matrix


@st.composite
def tables(draw):
    """Content of a file, a pattern of the same filled, the matrix, names of rows and columns."""
    delimiter = draw(st.sampled_from(["\t", "::", ",", ";", "|", " "]))
    shape = d1, d2 = draw(st.integers(2, 6)), draw(st.integers(3, 5))
    numbers = st.floats(-1e6, 1e6).filter(lambda x: x % 1)
    matrix = np.array(draw(st.lists(numbers, min_size=d1 * d2, max_size=d1 * d2))).reshape(shape)
    holes = np.array(draw(st.lists(st.booleans(), min_size=d1 * d2, max_size=d1 * d2))).reshape(shape)
    holes[0, 1:] = holes[1:, 0] = False  # every row and every column has a number
    holes[0, 0] = True
    mark = draw(st.sampled_from(MISSING if delimiter != " " else MISSING[1:]))
    header, named, noted = (draw(st.booleans()) for _ in range(3))
    quote = draw(st.sampled_from(["", '"'])) if len(delimiter) == 1 and delimiter != " " else ""
    newline = draw(st.sampled_from(["\n", "\r\n"]))

    def text(hole):
        lines = [[hole if h else f"{quote}{v!r}{quote}" for h, v in zip(*pair, strict=True)]
                 for pair in zip(holes.tolist(), matrix.tolist(), strict=True)]  # fmt: skip
        lines = [[f"{quote}r{i}{quote}"] * named + line + ["remark"] * noted for i, line in enumerate(lines)]
        lines[:0] = [["item"] * named + [f"x{k}" for k in range(d2)] + ["remarks"] * noted] * header
        return start + newline.join(map(delimiter.join, lines)) + end

    start, end = draw(st.sampled_from(["", "# a comment\n", "\ufeff"])), draw(st.sampled_from(["", "\n", "\n  \n"]))
    names = (
        tuple(f"r{i}" if named else str(i) for i in range(d1)),
        tuple(f"x{k}" if header else str(k) for k in range(d2)),
    )
    contents = text(f"{quote}{mark}{quote}").encode(), re.escape(text("@")).replace("@", r"0\.[0-9]+")
    return *contents, np.where(holes, np.nan, matrix), names


@given(case=tables())
def test_tables_of_all_dialects_are_read_and_only_their_holes_are_filled(folder, case):
    """Delimiters, quotes, marks of missing cells, names, comments, line ends: read alike; all else stays byte for byte."""
    content, expected, matrix, names = case
    path = folder / "table.txt"
    path.write_bytes(content)
    found = read_entries(path, keep_text=True)
    np.testing.assert_array_equal(dense(found), matrix)
    assert (found.row_ids, found.col_ids) == names
    assert len(found.text.holes) == np.isnan(matrix).sum()
    found.text.write_filled(folder / "filled.txt", np.full(len(found.text.holes), 0.25))
    assert re.fullmatch(expected, (folder / "filled.txt").read_bytes().decode())


@given(text=st.text(alphabet='ab1,;" \n'), delimiter=st.sampled_from([",", ";", "::", "blanks"]))
def test_the_parts_of_any_text_joined_are_the_text(text, delimiter):
    assert "".join(part for record in split_records(text, delimiter) for part in record) == text


@pytest.mark.parametrize(
    "text, rows, cols",
    [
        ("1,2,3\n2,4,\n3,,9\n", "0 1 2", "0 1 2"),  # whole numbers, which could be ids
        ("1,2,3\n2,4,\n3,,9\n4,1,\n", "1 2 3 4", "0 1"),  # whole numbers that count
        ("907,2,3\n222,4,\n322,,9\n", "907 222 322", "0 1"),  # far larger than the others
        ("a,1,2,3\nb,2,4,6\nc,3,,9\n", "a b c", "0 1 2"),  # row names, no header
        ("land,2001,2002,2003\nA,1,,3\nB,2,3,4\n", "A B", "2001 2002 2003"),  # years
        (",0,1,2\n7,1.5,,3\n8,1,2,3\n", "7 8", "0 1 2"),  # as pandas writes it
        ("id,a,b,c\n7,1.5,,3\n8,,2,3\n", "7 8", "a b c"),
        ("date,a,b\n2020-01-01,1,\n2020-01-02,,2\n", "2020-01-01 2020-01-02", "a b"),
        ("city,a,b,c\nx,,3,1\nx,1,,2\n", "0 1", "a b c"),  # text that repeats names nothing
        ("1_000,1.5,,3\n1_001,1,2.5,3\n", "1_000 1_001", "0 1 2"),  # what only Python takes for numbers is text
        ("١,1.5,,3\n٢,1,2.5,3\n", "١ ٢", "0 1 2"),
        ("a,b,c,d\n1,,,3\n,,,\n2,,4,\n", "0 2", "a c d"),  # nothing is known of the second row and column
        ("1,2,3,4,5\n1,2,3,4,5.5\n" * 2, "0 1 2 3", "0 1 2 3 4"),  # nothing missing, but too wide for entries
    ],
)
def test_names_of_rows_and_columns(write, text, rows, cols):
    found = read_entries(write("t.csv", text))
    assert (" ".join(found.row_ids), " ".join(found.col_ids)) == (rows, cols)


@pytest.mark.parametrize(
    "text",
    [
        "196\t242\t3\t881250949\n186\t302\t3\t891717742\n196\t302\t1\t\n",  # a time is missing
        "1,1,4,9,9,9\n1,2,3,9,9,9\n2,1,3,9,9,9\n",  # many columns, but the first two repeat ids
        "u,i,r\n1,1,4\n1,2,3\n2,1,3\n",
        "u,i,r,remark\na,x,1,\na,y,2,good\n",
    ],
)
def test_lines_of_entries_are_no_tables(write, text):
    assert read_entries(write("t.csv", text)).col_ids != ("0", "1", "2")
    assert "each line an entry" in read_entries(write("t.csv", text)).notes[0]


def test_the_layout_can_be_given(write):
    path = write("t.csv", "1,1,4\n1,2,3\n")
    assert read_entries(path).shape == (1, 2)
    assert read_entries(path, "table").shape == (2, 3)
    wide = write("w.csv", "1,1,4,2,2\n1,2,3,,2\n3,1,4,2,2\n")
    assert read_entries(wide, "entries").shape == (2, 2)
    np.testing.assert_array_equal(read_matrix(path, "table").matrix, [[1, 1, 4], [1, 2, 3]])
    with pytest.raises(FileError, match="says itself what it holds"):
        read_entries(write("m.npy", npy_of(np.eye(2))), "table")


def test_notes_say_what_was_decided(write):
    found = read_entries(write("t.csv", "# c\nname,a,b,colour\nr,1,NA,red\ns,2,3,red\nt,,,\n"))
    assert found.notes == (
        "comma-separated; a table, column names in the first line, row names in column 'name'",
        "1 comment lines at the top skipped",
        "1 rows without any number ignored",
        "1 of 4 cells are missing",
        "columns of text ignored: colour",
    )


@pytest.mark.parametrize("labels", [("x", "y", "x"), ("2001", "2002", "2001"), ("x", "", "y")])
@pytest.mark.parametrize("heading", ["name", "Year"])
def test_labels_that_repeat_name_no_rows(write, tmp_path, heading, labels):
    """The table is read without them, and filled around them."""
    lines = [f"{label},{k + 0.5},,{k + 1.5}\n" for k, label in enumerate(labels)]
    lines[0] = lines[0].replace(",,", ",7,")
    path = write("t.csv", f"{heading},a,b,c\n" + "".join(lines))
    if heading == "name" and labels[0].isdecimal():  # numbers under such a heading: an error rather than lost names
        with pytest.raises(FileError, match=r"line 4: .*--index-column none takes it as data"):
            read_entries(path)
        return
    found = read_entries(path, keep_text=True)
    assert (found.row_ids, found.col_ids) == (("0", "1", "2"), ("a", "b", "c"))
    reason = "line 4: the row name" if labels[1] else "line 3: the row name is empty"
    (told,) = [note for note in found.notes if "names no rows" in note]
    assert reason in told
    assert len(found.text.holes) == 2
    found.text.write_filled(tmp_path / "out.csv", np.full(2, 9.0))
    filled = "".join(lines).replace(",,2.5", ",9,2.5").replace(",,3.5", ",9,3.5")
    assert (tmp_path / "out.csv").read_text() == f"{heading},a,b,c\n{filled}"


@pytest.mark.parametrize(
    "observed, filled",
    [("3", "0"), ("1.50", "0.12"), ("1.23456789", "0.12345679"), ("1e-5", "0.123457"), ("-0.0001", "0.1235")],
)
def test_numbers_are_as_precise_as_their_column(write, tmp_path, observed, filled):
    found = read_entries(write("t.csv", f"a,b,c\n{observed},1,2\n,1,2\n"), keep_text=True)
    found.text.write_filled(tmp_path / "out.csv", np.array([0.123456789123]))
    assert (tmp_path / "out.csv").read_text() == f"a,b,c\n{observed},1,2\n{filled},1,2\n"


words = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.sampled_from(' ,"'), min_size=1).map(
    lambda text: f"w{text}w"
)


@settings(max_examples=15)
@given(
    levels=st.lists(words, min_size=2, max_size=5, unique=True), quote=st.booleans(), holes=st.sets(st.integers(0, 11))
)
def test_columns_of_text_are_read_and_filled_whatever_they_hold(folder, levels, quote, holes):
    """Commas and quotes within a text come back, and all that is not missing stays byte for byte."""
    texts = [levels[k % len(levels)] for k in range(12)]

    def content(cells):
        file = io.StringIO()
        for k, cell in enumerate(cells):
            quoted = csv.QUOTE_ALL if quote and cell is not None else csv.QUOTE_MINIMAL
            csv.writer(file, lineterminator="\n", quoting=quoted).writerow([f"{k}.5", f"{-k}.25", cell])
        return file.getvalue()

    path = folder / "table.csv"
    path.write_text(content([None if k in holes else text for k, text in enumerate(texts)]), newline="")
    found = read(path, "table", keep_text=True, header=False, index_column="none")
    (column,) = found.words
    assert [None if k in holes else text for k, text in enumerate(texts)] == column.cells().tolist()
    assert column.are_categories == (len(column.levels) > 1 and 2 * len(column.levels) <= 12 - len(holes))
    found.text.write_filled(folder / "filled.csv", np.empty(0), column.filled(np.array(texts, object)))
    with (folder / "filled.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert [row[2] for row in rows] == texts
    assert [row[:2] for row in rows] == [[f"{k}.5", f"{-k}.25"] for k in range(12)]


def test_what_is_a_category(write):
    """Few texts that repeat; "none" may be one of them, unless it is said to mark a missing cell."""
    lines = [f"{k}.5,{k % 7}.25,{'none' if k % 3 else 'mild'},{'NA' if k % 2 else 'yes'},r{k}" for k in range(200)]
    path = write("t.csv", "a,b,pain,flag,remark\n" + "\n".join(lines) + "\n")
    pain, flag = read(path, "table").words
    assert sorted(pain.levels) == ["mild", "none"] and pain.are_categories and (pain.codes >= 0).all()
    assert flag.levels == ("yes",) and not flag.are_categories and np.count_nonzero(flag.codes < 0) == 100
    assert "columns without numbers ignored: remark" in read(path, "table").notes
    assert read(path, "table", missing=["none"]).words[0].levels == ("mild",)
    assert read(path, "table", columns=["a", "pain"]).words[0].name == "pain"
    assert "columns of text ignored: pain, flag" in read_entries(path, "table").notes


ERRORS = {
    "text among numbers": ("a,b,c\n1,2,\n,x,4\n3,4,5\n", "line 3: column 2 ('b') is 'x', which is no number"),
    "digits in groups": ("a,b,c\n1,2,\n1_000,2,4\n3,4,5\n", "line 3: column 1 ('a') is '1_000', which is no number"),
    "another mark": ("a,b,c\n1,2,\n?,2,4\n3,4,5\n", "line 3: column 1 ('a') is '?', which is no number"),
    "decimal comma": (
        "x;y;z\n1,5;2;3\n;3,4;4\n",
        "line 2: column 1 ('x') is '1,5', but numbers have the decimal sign '.'",
    ),
    "grouping comma": ('a,b,c\n"1,234.5",2,\n"2,234.5",2,1\n', "line 2: column 1 ('a') is '1,234.5', but numbers have"),
    "infinity": ("a,b,c\n1,2,\n,inf,4\n", "line 3: column 2 ('b') is 'inf', but cells are finite"),
    "overflow": ("a,b,c\n1,2,\n,1e999,4\n", "line 3: column 2 ('b') is '1e999', but cells are finite"),
    "error in the first line": ("inf,2,\n1,2,3\n", "line 1: column 1 is 'inf'"),
    "ragged": ("a,b,c\n1,2,\n,4\n3,4,5\n", "line 3: 2 columns, but the first record has 3"),
    "repeated name": ("a,b,a\n1,2,\n,3,4\n", "columns 1 and 3 are both called 'a'"),
    "no name": ("a,,c\n1,2,\n,3,4\n", "column 2 has no name"),
    "repeated row name": (
        "id,a,b,c\n1,2,,1\n1,,3,4\n",
        "row names, but the row name '1' was on line 2",
    ),
    "empty row name": (
        "id,a,b,c\n,2,,1\n1,,3,4\n",
        "line 2: the column 'id' seems to hold row names, but the row name is empty",
    ),
    "all missing": ("a,b,c\n,NA,\n,,\n", "0 of 3 columns (comma-separated) hold numbers, but at least 2"),
    "one column": ("a,b,c\nx,1,\ny,,\n", "1 of 3 columns (comma-separated) hold numbers, but at least 2"),
    "a header alone": ("a,b,c\n", "0 of 3 columns"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_bad_tables_are_refused_with_the_place_and_the_reason(write, case):
    text, message = ERRORS[case]
    path = write("bad.csv", text)
    with pytest.raises(FileError) as caught:
        read_entries(path, "table")
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
