"""Delimited text: every dialect reads the same, and bad text is refused with its line."""

import csv
import gzip
import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmf.errors import FileError
from dmf.io import delimited
from dmf.io.matrices import read_entries

from matrix_files import MTX, triplets, words


@st.composite
def text_files(draw):
    delimiter = draw(st.sampled_from(["\t", "::", ",", ";", "|", " ", "   "]))
    quoted = len(delimiter) == 1 and delimiter != " "
    ids = words(f'" {delimiter}' if quoted else "").map(str.strip)
    entries = draw(st.lists(st.tuples(ids, ids, st.floats(allow_nan=False, allow_infinity=False)), min_size=1))
    extra = draw(st.lists(st.sampled_from(["time", "genre"]), unique=True))
    header = draw(st.booleans())
    lines = [["user", "item", "rating", *extra]] if header else []
    lines += [[row, col, repr(value), *("x" for _ in extra)] for row, col, value in entries]
    newline = draw(st.sampled_from(["\n", "\r\n"]))
    text = io.StringIO()
    if quoted:
        style = draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]))
        csv.writer(text, delimiter=delimiter, lineterminator=newline, quoting=style).writerows(lines)
    else:
        text.writelines(delimiter.join(line) + newline for line in lines)
    content = draw(st.sampled_from(["", "# a comment\n% another\n", "\n \n"])) + text.getvalue()
    if draw(st.booleans()):  # the last line without its end, and some blank ones
        content = content.rstrip("\r\n")
    else:
        content += draw(st.sampled_from(["", newline, f"  {newline}"]))
    return draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + content.encode(), entries, header, extra


@given(case=text_files())
def test_text_reads_back_what_was_written_whatever_its_dialect(folder, case):
    """Every delimiter, quoting, header, line end, byte order mark, comment and number of further columns gives the same."""
    content, entries, header, extra = case
    path = folder / "case.txt"
    path.write_bytes(content)
    found = read_entries(path)
    assert triplets(found) == sorted(entries)
    assert found.row_ids == tuple(dict.fromkeys(row for row, _, _ in entries))
    assert found.col_ids == tuple(dict.fromkeys(col for _, col, _ in entries))
    assert ("a header; " in found.notes[0]) == header
    assert any("columns ignored" in note for note in found.notes) == bool(extra)


@pytest.mark.parametrize(
    "text, delimiter",
    [
        ("196\t242\t3\t881250949\n186\t302\t3\t891717742\n", "tab"),
        ("1::1193::5::978300760\n", "'::'"),
        ("user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t2\t5\t9\n", "tab"),
        ("userId,movieId,rating\n1,31,2.5\n", "comma"),
        ("a;b;3;4,5\nc;d;1;2,5\n", "semicolon"),
        ("New York,New Jersey,5\nLos Angeles,San Francisco,1\n", "comma"),
        ('"Doe, John",item,3\n', "comma"),
        ("a, b, 3\nc, d, 4\n", "comma"),
        ("a b 3\nc\td   4\n", "blanks"),
        ("a|b|3|x,y\n", "'|'"),
    ],
)
def test_delimiter_of_common_files_is_found(write, text, delimiter):
    found = read_entries(write("ratings.dat", text))
    assert delimiter in found.notes[0]
    assert all(row == row.strip() and '"' not in row for row in found.row_ids)


def test_notes_name_what_was_ignored_and_repeated(write):
    found = read_entries(write("a.csv", "# c\nu,i,r,time,x1,x2,x3,x4,x5,x6\n" + 2 * "a,b,1,0,0,0,0,0,0,0\n"))
    assert found.notes == (
        "comma-separated, a header; each line an entry: row id in column 'u', column id in 'i', value in 'r' (--columns changes "
        "it)",
        "1 comment lines at the top skipped",
        "columns ignored: time, x1, x2, x3, x4, and 2 more",
    )


def test_quoted_fields_may_span_lines_and_errors_still_name_the_line(write):
    found = read_entries(write("a.csv", 'a,b,1,"two\nlines"\nc,"d\ne",2,x\n'))
    assert triplets(found) == [("a", "b", 1), ("c", "d\ne", 2)]
    with pytest.raises(FileError, match=r"line 3: .*'x'"):
        read_entries(write("b.csv", 'a,b,1,"two\nlines"\nc,d,x,"more\nlines"\n'))


def test_line_numbers_count_comments_and_blank_lines_beyond_the_sample(write):
    lines = ["# comment", "", "u,i,r", "", *("a,b,1" for _ in range(200)), "", "a,b,bad"]
    with pytest.raises(FileError, match=rf"{len(lines)}: .*'bad'"):
        read_entries(write("a.csv", "\n".join(lines)))


TEXT_ERRORS = {
    "two columns": ("a,b\nc,d\n", "line 1: 2 columns ('a', 'b')"),
    "one column": ("abc\n", "line 1: 1 column ('abc')"),
    "ragged": ("a,b,1\na,b\n", "line 2: 2 columns, but the first record has 3"),
    "unquoted delimiter": ("a,b,1\na,b,c,1\n", "line 2: 4 columns"),
    "row names of R": ("user,item,rating\n1,a,b,5\n", "line 2: 4 columns"),
    "word as value": (
        "a,b,1\na,c,four\n",
        "line 2: the value (column 3) is 'four', which is no number. If",
    ),
    "no values": ("a,b,nan\na,c,\n", "no value in any line"),
    "inf": ("a,b,1\na,c,-inf\n", "line 2: the value is '-inf'"),
    "overflow": ("a,b,1\na,c,1e999\n", "line 2: the value is '1e999'"),
    "decimal comma": (
        "a;b;3,5\na;c;4\n",
        "line 1: the value (column 3) is '3,5', but numbers have the decimal sign '.'",
    ),
    "quoted decimal comma": ('u,i,r\na,b,"3,5"\n', "Pass --decimal , or --thousands ,"),
    "digits in groups": ("a,b,1\na,c,1_000\n", "line 2: the value (column 3) is '1_000', which is no number"),
    "digits in groups in the first line": (
        "a,b,1_000\na,c,1\n",
        "line 1: the value (column 3) is '1_000', which is no",
    ),
    "digits of another script": ("a,b,1\na,c,٣\n", "line 2: the value (column 3) is '٣', which is no number"),
    "digits of another script in the first line": ("a,b,٣\na,c,1\n", "line 1: the value (column 3) is '٣'"),
    "a percentage in the first line": ("a,b,12%\na,c,1\n", "line 1: the value (column 3) is '12%'"),
    "empty row id": ("a,b,1\n ,c,1\n", "line 2: an id is empty"),
    "empty column id": ('a,b,1\na,"",1\n', "line 2: an id is empty"),
    "header only": ("user,item,rating\n", "line 1: a header, but no entry"),
    "comments only": ("# a\n% b\n\n", "only blank lines or comments"),
    "latin-1": ("a,b,1\ncaf\xe9,b,1\n".encode("latin-1"), "line 2: no UTF-8 text (byte 0xe9"),
    "latin-1 far down": (("a,b,1\n" * 500 + "caf\xe9,b,1\n").encode("latin-1"), "line 501: no UTF-8 text"),
    "NUL bytes": (b"\x01\x02\0\0", "line 1: no text"),
    "UTF-16": ("a,b,1\n".encode("utf-16"), "UTF-16"),
    "gzip that was cut off": (gzip.compress(b"a,b,1\n" * 50)[:-9], "it is damaged or was cut off"),
    "damaged gzip": (b"\x1f\x8b\x08\0" + bytes(20), "cannot read"),
    "zip": (b"PK\x03\x04rest", "zip archive"),
    "npy": (b"\x93NUMPY\x01\0", ".npy"),
    "parquet": (b"PAR1rest", ".parquet"),
    "mtx": (MTX + "array real general\n1 1\n1\n", ".mtx"),
    "one endless line": (b"a" * 2**20, "line 1: a line of 1048576 bytes or more"),
    "a wide table": (",".join(map(str, range(200_000))) + "\n", "pass a table as wide as this as .npy"),
    "old line ends": ("a,b,1\rc,d,2\r", "line 1: a carriage return"),
    "open quote": ('a,b,1\n"a,b,1\n', "line 2: unexpected end of data"),
    "open quote far up": ('a,b,1\n\n"a,b,1\n' + "a,b,1\n" * 50, "line 3: unexpected end of data (noticed on line 53)"),
    "open quote before a quote": (
        '"a\nb",b,1\n"a,b,1\na,b,1\n"c,d",x,1\n',
        "line 3: ',' expected after '\"' (noticed on line 5)",
    ),
    "open quote of a large file": ('# x\n\na,b,1\n"a,b,1\n' + "a,b,1\n" * 50_000, "line 4: field larger"),
    "stray quote": ('a\tb\t1\t"x" y\n', "line 1: "),
    "endless field": ("a,b,1\n" + "a" * 200_000 + ",b,1\n", "line 2: field larger"),
}


@pytest.mark.parametrize("case", TEXT_ERRORS)
def test_bad_text_is_refused_with_path_line_and_what_was_found(write, case):
    content, message = TEXT_ERRORS[case]
    path = write("bad.csv", content)
    with pytest.raises(FileError) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_text_is_read_in_one_pass_so_that_pipes_work():
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as file:
        file.write("u,i,r\na,b,1\nc,d,2\n")
    try:
        assert triplets(read_entries(f"/dev/fd/{read_end}")) == [("a", "b", 1), ("c", "d", 2)]
    finally:
        os.close(read_end)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["1", "17", "0", "00", "007", "12345678", "123456789", "-3", "+3", "u1", "ä", "x" * 9, "1.5"]
            ),
            st.sampled_from([" 1", "2 ", "03", "abc", "99999999", "16777216", "Zoë"]),
            st.sampled_from(["1", "2.5", "-3e-5", " 4", "0.123456789", "12345678.5", "+1", ".5", "NA", ""]),
        ),
        min_size=1,
        max_size=30,
    ),
    st.sampled_from([1, 2, 5, 1_000]),
    st.booleans(),
    st.booleans(),
)
def test_blocks_of_arrays_and_single_records_read_the_same(folder, entries, chunk, quoted, blank):
    """However the file is cut into chunks, and whether records of some need the general reader."""
    lines = [("user", "item", "rating"), ("a", "b", "9"), *entries]
    kept = [(row.strip(), col.strip(), float(value)) for row, col, value in lines[1:] if value not in ("NA", "")]
    if quoted:
        lines[len(lines) // 2] = tuple(f'"{field}"' for field in lines[len(lines) // 2])
    path = folder / "blocks.csv"
    path.write_text("".join(",".join(line) + "\n" + "\n" * blank for line in lines), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "_CHUNK", chunk)
        patch.setattr(delimited, "_SAMPLE_LINES", 2)
        found = read_entries(path, "entries")
    assert triplets(found) == sorted(kept)


def test_a_whole_number_written_with_point_zero_is_the_same_id(write):
    """As pandas writes whole numbers beside a missing one; "007" and names stay as they are."""
    found = read_entries(write("a.csv", "u,i,r\n1.0,007,1\n1,7,2\n10.0,7.0,3\n2,x1.0,4\n"))
    assert found.row_ids == ("1", "10", "2") and found.rows.tolist() == [0, 0, 1, 2]
    assert found.col_ids == ("007", "7", "7.0", "x1.0")


def test_errors_in_later_chunks_name_their_line(write):
    lines = ["u,i,r", *("a,b,1" for _ in range(3_000)), "a,b,2", "c,,3"]
    for bad, message in (("c,,3", "an id is empty"), ("c,d,x", "'x'"), ("c,d,inf", "'inf'"), ("c,d", "2 columns")):
        with pytest.raises(FileError, match=rf"line 3003: .*{message}"):
            read_entries(write("a.csv", "\n".join([*lines[:-1], bad])))


@pytest.mark.parametrize("blank", [" ", "\t", "\x0b", "\x1c", "\x1e", "\x1f"])
def test_whatever_strip_takes_for_a_blank_may_follow_a_number(write, blank):
    found = read_entries(write("t.csv", f"a,b,1.5{blank}\na,c,2\nb,c,-1\n"))
    assert found.values.tolist() == [1.5, 2.0, -1.0]
