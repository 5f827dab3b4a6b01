import csv
import io
import os
import sys
import zipfile

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import assume, given
from hypothesis import strategies as st

from dmf.errors import DmfError, DTypeError, FileError, MissingPackageError, ObservationError, ShapeError
from dmf.io import formats
from dmf.io.matrices import (
    format_predictions,
    read_entries,
    read_matrix,
    read_pairs,
    read_sensing,
    write_predictions,
)

MTX = "%%MatrixMarket matrix "
DENSE = np.array([[1.5, np.nan, -2.0], [4.0, 0.0, 1e300]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("matrices")


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def triplets(found):
    """(row id, column id, value), sorted."""
    entries = found.observations
    rows = range(entries.shape[0]) if found.row_ids is None else found.row_ids
    cols = range(entries.shape[1]) if found.col_ids is None else found.col_ids
    return sorted(
        (rows[i], cols[j], v)
        for i, j, v in zip(entries.rows.tolist(), entries.cols.tolist(), entries.values.tolist(), strict=True)
    )


# Delimited text


def words(extra):
    """Ids: letters, digits, quotes, dots and `extra`; no comment sign, which would start a comment in the first line."""
    letters = st.characters(categories=("Lu", "Ll", "Lo", "Nd"))
    return st.text(st.one_of(letters, st.sampled_from("'.-_()" + extra)), min_size=1, max_size=8).filter(str.strip)


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
    assert ("header: user, item, rating" in found.notes[0]) == header
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
        "comma-separated, header: u, i, r, time, x1, and 5 more",
        "1 comment lines at the top skipped",
        "columns ignored: time, x1, x2, x3, x4, and 2 more",
        "1 entries repeat a position; each counts as a measurement of its own",
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
    "word as value": ("a,b,1\na,c,four\n", "line 2: the value (third field) is 'four'"),
    "nan": ("a,b,1\na,c,nan\n", "line 2: the value is 'nan'"),
    "nan in the first line": ("a,b,nan\na,c,1\n", "line 1: the value is 'nan'"),
    "inf": ("a,b,1\na,c,-inf\n", "line 2: the value is '-inf'"),
    "overflow": ("a,b,1\na,c,1e999\n", "line 2: the value is '1e999'"),
    "empty value": ("a,b,1\na,c,\n", "line 2: the value (third field) is empty"),
    "empty value in the first line": ("a,b,\na,c,1\n", "line 1: the value (third field) is empty"),
    "decimal comma": ("a;b;3,5\na;c;4\n", "line 1: the value is '3,5', but numbers have a decimal point"),
    "quoted decimal comma": ('u,i,r\na,b,"3,5"\n', "line 2: the value is '3,5', but numbers have a decimal point"),
    "empty row id": ("a,b,1\n ,c,1\n", "line 2: an id is empty"),
    "empty column id": ('a,b,1\na,"",1\n', "line 2: an id is empty"),
    "header only": ("user,item,rating\n", "line 1: a header, but no entry"),
    "comments only": ("# a\n% b\n\n", "only blank lines or comments"),
    "latin-1": ("a,b,1\ncaf\xe9,b,1\n".encode("latin-1"), "line 2: no UTF-8 text (byte 0xe9"),
    "latin-1 far down": (("a,b,1\n" * 500 + "caf\xe9,b,1\n").encode("latin-1"), "line 501: no UTF-8 text"),
    "NUL bytes": (b"\x01\x02\0\0", "line 1: no text"),
    "UTF-16": ("a,b,1\n".encode("utf-16"), "UTF-16"),
    "gzip": (b"\x1f\x8b\x08\0", "gzip"),
    "zip": (b"PK\x03\x04rest", "zip archive"),
    "npy": (b"\x93NUMPY\x01\0", ".npy"),
    "parquet": (b"PAR1rest", ".parquet"),
    "mtx": (MTX + "array real general\n1 1\n1\n", ".mtx"),
    "one endless line": (b"a" * 2**20, "line of a MiB"),
    "old line ends": ("a,b,1\rc,d,2\r", "line 1: a carriage return"),
    "open quote": ('a,b,1\n"a,b,1\n', "line 2: unexpected end of data"),
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


@pytest.mark.parametrize("read", [read_entries, read_matrix, read_sensing, lambda path: read_pairs(path, (), ())])
def test_paths_that_cannot_be_read(read, tmp_path, monkeypatch):
    empty = tmp_path / "empty.npz"
    empty.touch()
    for path, message in (
        (tmp_path, "it is a folder"),
        (tmp_path / "missing.csv", "No such file"),
        (empty, "it is empty"),
        (empty / "below", "Not a directory"),
        ("a\0b", "null"),
    ):
        with pytest.raises(FileError, match=message):
            read(path)
    locked = tmp_path / "locked.csv"
    locked.write_text("a,b,1\n")

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied", str(locked))

    monkeypatch.setattr(io, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(FileError, match="Permission denied"):
        read(locked)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_text_is_read_in_one_pass_so_that_pipes_work():
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as file:
        file.write("u,i,r\na,b,1\nc,d,2\n")
    try:
        assert triplets(read_entries(f"/dev/fd/{read_end}")) == [("a", "b", 1), ("c", "d", 2)]
    finally:
        os.close(read_end)


# npy and npz


@pytest.mark.parametrize("dtype", ["f4", "f8", ">f8", ">f4", "i4", ">i2", "u8", "?"])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("suffix", [".npy", ".NPY", ".npz"])
def test_dense_arrays_keep_their_values_and_precision(tmp_path, dtype, order, suffix):
    matrix = np.array([[1, 0, 1], [3, 4, 0]]).astype(dtype, order=order)
    path = tmp_path / f"m{suffix}"
    with path.open("wb") as file:
        np.save(file, matrix) if suffix.lower() == ".npy" else np.savez_compressed(file, matrix)
    result, entries = read_matrix(path), read_entries(path)
    expected = np.float32 if dtype.endswith("f4") else np.float64
    assert result.matrix.dtype == entries.observations.dtype == expected
    np.testing.assert_array_equal(result.matrix, matrix.astype(float))
    assert [v for _, _, v in triplets(entries)] == matrix.astype(float).ravel().tolist()
    assert result.row_ids is result.col_ids is entries.row_ids is entries.col_ids is None


def test_nan_marks_missing_entries(tmp_path):
    np.save(tmp_path / "m.npy", DENSE)
    found = read_entries(tmp_path / "m.npy")
    assert triplets(found) == [(0, 0, 1.5), (0, 2, -2.0), (1, 0, 4.0), (1, 1, 0.0), (1, 2, 1e300)]
    assert found.notes == ("dense float64 array 2 x 3", "1 of 6 entries are NaN, which marks them as missing")


@pytest.mark.parametrize("kind", ["coo", "csr", "csc"])
@pytest.mark.parametrize("compressed", [True, False])
def test_sparse_matrices_are_read_as_their_stored_entries(tmp_path, kind, compressed):
    coo = scipy.sparse.coo_array(([1.0, 0.0, 3.0], ([0, 2, 2], [1, 0, 3])), shape=(4, 5))  # a stored zero is observed
    scipy.sparse.save_npz(tmp_path / "s.npz", coo.asformat(kind), compressed=compressed)
    found = read_entries(tmp_path / "s.npz")
    assert found.observations.shape == (4, 5)
    assert triplets(found) == [(0, 1, 1.0), (2, 0, 0.0), (2, 3, 3.0)]


@pytest.mark.parametrize("shape", [None, (4, 5)])
def test_members_rows_cols_values(tmp_path, shape):
    members = {"rows": np.array([2, 0], np.uint8), "cols": [1, 3], "values": np.array([1, 2], np.float32), "more": 5}
    np.savez(tmp_path / "t.npz", **members, **({} if shape is None else {"shape": shape}))
    found = read_entries(tmp_path / "t.npz")
    assert found.observations.shape == (shape or (3, 4))
    assert found.observations.dtype == np.float32
    assert triplets(found) == [(0, 3, 2.0), (2, 1, 1.0)]
    assert found.notes == ("members rows, cols, values", "members ignored: more")


def npy(header, data=b"", version=(1, 0)):
    text = header.encode()
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + data


def npy_of(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


NPY_ERRORS = {
    "text": (b"a,b,1\n", "no array in npy format"),
    "version": (b"\x93NUMPY\x03\0" + bytes(20), "format (3, 0)"),
    "huge shape": (
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000)}"),
        "but there are 0",
    ),
    "truncated": (npy_of(np.eye(9))[:-1], "647"),
    "too long": (npy_of(np.eye(9)) + b"x", "649"),
    "negative shape": (npy("{'descr': '<f8', 'fortran_order': False, 'shape': (-1, -1)}", bytes(8)), "(-1, -1)"),
    "zero times huge": (
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (0, 4611686018427387904)}"),
        "no entries",
    ),
    "objects": (npy_of(np.array([[{}]]), allow_pickle=True), "dtype is object"),
    "complex": (npy_of(np.eye(2) * 1j), "dtype is complex128"),
    "strings": (npy_of(np.array([["a"]])), "dtype is <U1"),
    "records": (npy_of(np.zeros(2, "f8,f8")), "holds real numbers"),
    "vector": (npy_of(np.zeros(3)), "shape (3,)"),
    "three dimensions": (npy_of(np.zeros((2, 2, 2))), "shape (2, 2, 2)"),
    "forty dimensions": (npy_of(np.zeros((1,) * 40)), "40 dimensions"),
    "no rows": (npy_of(np.zeros((0, 3))), "no entries"),
    "header is code": (npy("__import__('os').getcwd()"), "no array in npy format"),
    "header is open": (npy("{'descr': '<f8', 'shape': ((((((("), "no array in npy format"),
    "header is deep": (npy("(" * 9000), "no array in npy format"),
    "header of gigabytes": (b"\x93NUMPY\x02\0\xff\xff\xff\xff{}", "no array in npy format"),
    "descr is odd": (npy("{'descr': [('a', 3)], 'fortran_order': False, 'shape': (1, 1)}"), "no array in npy format"),
}


@pytest.mark.parametrize("case", NPY_ERRORS)
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_bad_arrays_are_refused(write, case, suffix):
    content, message = NPY_ERRORS[case]
    if suffix == ".npz":
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("arr_0.npy", content)
        content = archive.getvalue()
    path = write(f"bad{suffix}", content)
    for read in (read_entries, read_matrix):
        with pytest.raises(FileError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert message in str(caught.value)


def npz(method=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in members.items():
            archive.writestr(f"{name}.npy", array if type(array) is bytes else npy_of(np.asarray(array)))
    return file.getvalue()


CSR = {"format": np.bytes_("csr"), "shape": [2, 2], "data": [1.0, 2.0], "indices": [0, 1], "indptr": [0, 1, 2]}
COO = {"format": np.bytes_("coo"), "shape": [2, 2], "data": [1.0, 2.0], "row": [0, 1], "col": [1, 1]}
NPZ_ERRORS = {
    "not a zip": (b"a,b,1", "not a zip file"),
    "cut off": (npz(m=np.eye(50))[:-100], "no intact npz file"),
    "damaged": (npz(m=np.eye(50)).replace(bytes(64), b"\1" * 64, 1), "CRC"),
    "nothing": (npz(), "no array"),
    "other members": (npz(a=[1], b=[2]), "the members 'a', 'b'"),
    "measurements": (npz(A=np.ones((1, 1, 1)), y=[1.0]), "dmf sense"),
    "lzma": (npz(zipfile.ZIP_LZMA, m=np.eye(3)), "compression"),
    "float positions": (npz(**{**COO, "row": [0.0, 1.0]}), "no intact coo"),
    "position outside": (npz(**{**COO, "row": [0, 2]}), "no intact coo"),
    "index outside": (npz(**{**CSR, "indices": [0, 2**30]}), "no intact csr"),
    "negative index": (npz(**{**CSR, "indices": [0, -5]}), "no intact csr"),
    "pointers back": (npz(**{**CSR, "shape": [3, 2], "indptr": [0, 2**30, 1, 2]}), "no intact csr"),
    "pointers too few": (npz(**{**CSR, "indptr": [0, 2]}), "no intact csr"),
    "data is a matrix": (npz(**{**CSR, "data": [[1.0, 2.0]]}), "no intact csr"),
    "indices missing": (npz(**{k: v for k, v in CSR.items() if k != "indptr"}), "no intact csr"),
    "three dimensions": (npz(**{**COO, "shape": [2, 2, 2]}), "no intact coo"),
    "bsr": (npz(**{**CSR, "format": np.bytes_("bsr")}), "format 'bsr'"),
    "format is a number": (npz(**{**CSR, "format": 3}), "dtype is int64"),
    "huge sparse shape": (npz(**{**COO, "shape": [2**31 - 1, 2**31 - 1]}), "almost all rows or columns are empty"),
    "huge shape": (npz(rows=[0], cols=[0], values=[1.0], shape=[2**31 - 1, 1]), "almost all rows or columns are empty"),
    "huge index": (npz(rows=[2**31 - 2], cols=[0], values=[1.0]), "almost all rows or columns are empty"),
}


@pytest.mark.parametrize("case", NPZ_ERRORS)
def test_bad_npz_files_are_refused(write, case):
    content, message = NPZ_ERRORS[case]
    path = write("bad.npz", content)
    with pytest.raises(FileError) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_a_bomb_is_refused_before_it_unpacks(write, monkeypatch):
    monkeypatch.setattr(formats, "_SMALL", 2**12)
    monkeypatch.setattr(formats, "_read_array", lambda *args: pytest.fail("unpacked"))
    with pytest.raises(FileError, match="more than 100 times"):
        read_entries(write("bomb.npz", npz(zipfile.ZIP_DEFLATED, m=np.zeros((1000, 1000)))))


@pytest.mark.parametrize(
    "content, error",
    [
        (npz(rows=[0, 1], cols=[0], values=[1.0, 2.0]), ShapeError),
        (npz(rows=[0.5], cols=[0], values=[1.0]), DTypeError),
        (npz(rows=[-1], cols=[0], values=[1.0]), ObservationError),
        (npz(rows=[3], cols=[0], values=[1.0], shape=[2, 2]), ObservationError),
        (npz(rows=[0], cols=[0], values=[1.0], shape=[2, 2, 2]), ShapeError),
        (npz(rows=[0], cols=[0], values=[1.0], shape=[2.5, 2]), ShapeError),
        (npz(rows=[0], cols=[0], values=[np.nan]), ObservationError),
        (npz(m=np.zeros((2, 2), np.float16)), DTypeError),
        (npz(m=np.full((2, 2), np.nan)), ObservationError),
        (npz(m=np.full((2, 2), np.inf)), ObservationError),
    ],
)
def test_errors_of_the_observations_pass_through(write, content, error):
    with pytest.raises(error):
        read_entries(write("bad.npz", content))


# Matrix Market


@pytest.mark.parametrize("symmetry", ["general", "symmetric", "skew-symmetric"])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("dtype", [float, int])
def test_matrix_market_agrees_with_scipy(tmp_path, rng, symmetry, sparse, dtype):
    matrix = rng.integers(-9, 10, (5, 5)).astype(dtype)
    if symmetry != "general":
        matrix = matrix + matrix.T if symmetry == "symmetric" else matrix - matrix.T
    path = tmp_path / "m.mtx"
    scipy.io.mmwrite(
        path, scipy.sparse.coo_array(matrix) if sparse else matrix, comment="caf\xe9\nx", symmetry=symmetry
    )
    found = read_entries(path)
    assert found.row_ids == found.col_ids == ("1", "2", "3", "4", "5")
    expected = scipy.sparse.coo_array(scipy.io.mmread(path))
    if sparse:
        stored = zip(*(a.tolist() for a in (*expected.coords, expected.data)), strict=True)
        assert triplets(found) == sorted((str(i + 1), str(j + 1), v) for i, j, v in stored)
    else:
        np.testing.assert_array_equal(read_matrix(path).matrix, matrix)


def test_matrix_market_arrays_are_written_by_columns_and_may_have_gaps(write):
    path = write("m.mtx", MTX + "array real general\n% x\n\n2 3\n1\n4\nnan\n5\n3\n6")
    assert triplets(read_entries(path)) == [
        ("1", "1", 1), ("1", "3", 3), ("2", "1", 4), ("2", "2", 5), ("2", "3", 6),
    ]  # fmt: skip
    with pytest.raises(FileError, match=r"1 of 6 entries \(2 x 3\) are missing"):
        read_matrix(path)


COORDINATE = MTX + "coordinate real general\n"
MTX_ERRORS = {
    "no banner": ("3 3 1\n1 1 1\n", "line 1: '3 3 1'"),
    "vector": ("%%MatrixMarket vector array real general\n1\n1\n", "line 1:"),
    "complex": (MTX + "coordinate complex general\n1 1 1\n1 1 1 1\n", "entries are complex"),
    "pattern": (MTX + "coordinate pattern general\n1 1 1\n1 1\n", "entries are pattern"),
    "hermitian": (MTX + "coordinate real hermitian\n1 1 1\n1 1 1\n", "real hermitian"),
    "not square": (MTX + "coordinate real symmetric\n3 2 1\n1 1 1\n", "symmetric, but 3 x 2"),
    "no size": (COORDINATE, "size line is ''"),
    "size of two": (COORDINATE + "3 3\n1 1 1\n", "size line is '3 3'"),
    "negative size": (COORDINATE + "-3 3 1\n1 1 1\n", "size line is '-3 3 1'"),
    "endless size": (COORDINATE + "9" * 5000 + " 3 1\n1 1 1\n", "size line"),
    "no entries": (COORDINATE + "3 3 0\n", "each at least 1"),
    "too few": (COORDINATE + "3 3 4\n1 1 1\n", "4 entries"),
    "none": (COORDINATE + "3 3 2\n", "there are 0 lines"),
    "too many": (COORDINATE + "3 3 1\n1 1 1\n2 2 2\n", "there are 2 lines of 3"),
    "cut off in an exponent": (COORDINATE + "6 5 2\n2 4 3.1\n6 4 6.23e-", "'6.23e-'"),  # crashed scipy.io.mmread
    "cut off in a line": (COORDINATE + "6 5 2\n2 4 3.1\n6 4", "columns changed"),
    "word": (COORDINATE + "3 3 1\n1 1 abc\n", "'abc'"),
    "position 0": (COORDINATE + "3 3 1\n0 1 1\n", "entry 1 is at (0, 1)"),
    "position outside": (COORDINATE + "3 3 2\n1 1 1\n3 4 1\n", "entry 2 is at (3, 4)"),
    "half position": (COORDINATE + "3 3 1\n1.5 1 1\n", "entry 1 is at (1.5, 1)"),
    "nan position": (COORDINATE + "3 3 1\nnan 1 1\n", "entry 1 is at (nan, 1)"),
    "huge count": (COORDINATE + "3 3 900000000000\n1 1 1\n", "take at least"),
    "huge array": (MTX + "array real general\n1000000000 1000000000\n1\n", "take at least"),
    "huge symmetric array": (MTX + "array real symmetric\n1000000000 1000000000\n1\n", "take at least"),
    "huge shape": (COORDINATE + "2000000000 2000000000 1\n1 1 1\n", "almost all rows or columns are empty"),
}


@pytest.mark.parametrize("case", MTX_ERRORS)
def test_bad_matrix_market_files_are_refused(write, case):
    content, message = MTX_ERRORS[case]
    path = write("bad.mtx", content)
    with pytest.raises(FileError) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


# Parquet


@pytest.mark.parametrize("dictionary", [True, False])
@pytest.mark.parametrize("value_type", ["float64", "float32", "int16", "decimal128"])
def test_parquet_reads_its_first_three_columns(tmp_path, dictionary, value_type):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    users = pa.array(["b", " a ", "b", "a"])
    kind = pa.decimal128(6, 1) if value_type == "decimal128" else getattr(pa, value_type)()
    columns = {
        "u": users.dictionary_encode() if dictionary else users,
        "i.d": pa.array([30, 10, 10, 20]),
        "r": pa.array([1, 2, 3, 4], pa.int16()).cast(kind, safe=False),
        "t": users,
    }
    pq.write_table(pa.table(columns), tmp_path / "r.parquet", row_group_size=2)
    found = read_entries(tmp_path / "r.parquet")
    assert found.row_ids == ("b", "a")
    assert found.col_ids == ("30", "10", "20")
    assert triplets(found) == [("a", "10", 2), ("a", "20", 4), ("b", "10", 3), ("b", "30", 1)]
    assert found.observations.dtype == (np.float32 if value_type == "float32" else np.float64)
    assert found.notes == ("Parquet, columns u, i.d, r", "columns ignored: t")


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"u": ["a"], "i": ["b"]}, "2 columns ['u', 'i']"),
        ({"u": ["a", "b"], "i": ["b", "b"], "r": [1.0, None]}, "1 values are null, NaN or infinite (the first in row 2)"),
        ({"u": ["a"], "i": ["b"], "r": [float("inf")]}, "column 'r': 1 values"),
        ({"u": ["a"], "i": ["b"], "r": ["5"]}, "column 'r': values of type string"),
        ({"u": [None, "a"], "i": ["b", "b"], "r": [1, 2]}, "column 'u': 1 ids are null"),
        ({"u": [" "], "i": ["b"], "r": [1]}, "column 'u': an id is empty"),
        ({"u": [[1]], "i": ["b"], "r": [1]}, "cannot read"),
        ({"u": [b"\xff"], "i": ["b"], "r": [1]}, "cannot read"),
    ],
)  # fmt: skip
def test_bad_parquet_is_refused(tmp_path, columns, message):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table(columns), path)
    with pytest.raises(FileError) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


def test_parquet_files_that_are_none_or_too_large_or_empty_are_refused(write, tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    with pytest.raises(FileError, match=r"bad\.parquet"):
        read_entries(write("bad.parquet", "a,b,1\n"))
    table = pa.table({"u": ["a"] * 10_000, "i": ["b"] * 10_000, "r": [1.0] * 10_000})
    pq.write_table(table.slice(0, 0), tmp_path / "none.parquet")
    with pytest.raises(FileError, match="without rows"):
        read_entries(tmp_path / "none.parquet")
    pq.write_table(pa.Table.from_arrays(list(table.columns), names=["u", "i", "u"]), tmp_path / "twice.parquet")
    with pytest.raises(FileError, match="twice"):
        read_entries(tmp_path / "twice.parquet")
    monkeypatch.setattr(formats, "_SMALL", 0)
    monkeypatch.setattr(formats, "_MOST_EXPANSION", 1)
    pq.write_table(table, tmp_path / "large.parquet")
    with pytest.raises(FileError, match="10000 rows"):
        read_entries(tmp_path / "large.parquet")


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'dmf\[parquet\]'"):
        read_entries(write("r.parquet", "x"))


# Complete matrices


@given(data=st.data(), d1=st.integers(1, 5), d2=st.integers(1, 5))
def test_triplets_in_any_order_make_a_complete_matrix(folder, data, d1, d2):
    positions = data.draw(st.permutations([(i, j) for i in range(d1) for j in range(d2)]))
    path = folder / "complete.csv"
    path.write_text("".join(f"r{i},c{j},{10 * i + j}\n" for i, j in positions))
    found = read_matrix(path)
    assert found.matrix.shape == (d1, d2)
    for i, row in enumerate(found.row_ids):
        for j, col in enumerate(found.col_ids):
            assert found.matrix[i, j] == 10 * int(row[1:]) + int(col[1:])


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("m.csv", "a,x,1\na,y,2\nb,x,3\n", "1 of 4 entries (2 x 2) are missing"),
        ("m.csv", "a,x,1\na,x,1\nb,y,3\n", "2 of 4 entries (2 x 2) are missing"),
        ("m.csv", "".join(f"r{k},c{k},1\n" for k in range(100_000)), "9999900000 of 10000000000 entries"),
        ("m.csv", "a,x,1\na,x,2\n", "1 entries repeat a position"),
        ("m.mtx", COORDINATE + "2 2 1\n1 1 1\n", "3 of 4 entries (2 x 2) are missing"),
        ("m.npy", npy_of(DENSE), "1 of 6 entries (2 x 3) are missing (they are NaN)"),
        ("m.npz", npz(**COO), "2 of 4 entries (2 x 2) are missing"),
    ],
)
def test_incomplete_matrices_are_refused_with_the_way_out(write, name, content, message):
    path = write(name, content)
    with pytest.raises(FileError) as caught:
        read_matrix(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)
    assert "`dmf complete`" in str(caught.value)


def test_infinities_of_a_complete_matrix_are_refused(write):
    with pytest.raises(ObservationError, match="infinite"):
        read_matrix(write("m.npy", npy_of(np.array([[1, np.inf]]))))


# Measurements


@pytest.mark.parametrize(
    "dtype, expected", [("f4", np.float32), ("f8", np.float64), ("i4", np.float64), ("?", np.float64)]
)
def test_measurements(write, dtype, expected):
    members = {"A": np.ones((4, 2, 3), dtype), "y": np.ones(4, dtype), "X": np.eye(2)}
    A, y, notes = read_sensing(write("s.npz", npz(**members)))
    assert A.dtype == y.dtype == expected
    assert A.shape == (4, 2, 3)
    assert notes[0].endswith("array 4")
    assert notes[1] == "members ignored: X"


@pytest.mark.parametrize(
    "content, message",
    [
        (npz(A=np.ones((1, 1, 1)), b=[1.0]), "the members 'A', 'b'"),
        (npz(), "no array"),
        (b"PK", "not a zip file"),
        (npz(A=np.ones((1, 1, 1)) * 1j, y=[1.0]), "member 'A': its dtype is complex128"),
    ],
)
def test_bad_measurements_are_refused(write, content, message):
    path = write("s.npz", content)
    with pytest.raises(FileError) as caught:
        read_sensing(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


# Pairs and predictions

KNOWN = {"user", "u 1", "u2"}, {"item", "i1", "i;2"}


@pytest.mark.parametrize(
    "text, rows, cols",
    [
        ("row,column\nu 1,i1\nu2,i;2\n", ["u 1", "u2"], ["i1", "i;2"]),
        ("u 1,i1\nu2,i;2\n", ["u 1", "u2"], ["i1", "i;2"]),
        ("user\titem\tmore\nu2\ti1\tx\n", ["user", "u2"], ["item", "i1"]),  # known ids, so no header
        ("nobody,i1\nu2,i1\n", ["nobody", "u2"], ["i1", "i1"]),  # one id is known, so no header
        ("nobody,nothing\n", ["nobody"], ["nothing"]),  # the only line
        ("a::b\nu2::i1\n", ["u2"], ["i1"]),
        ('"u 1", i1\n', ["u 1"], ["i1"]),
    ],
)
def test_pairs_and_their_header(write, text, rows, cols):
    pairs = read_pairs(write("pairs.txt", text), *KNOWN)
    assert (pairs.row_ids, pairs.col_ids) == (rows, cols)
    assert ("columns ignored: number 3" in pairs.notes) == ("more" in text)


@pytest.mark.parametrize(
    "content, message",
    [
        ("u2\n", "line 1: 1 column ('u2'), but 2 are needed: row id, column id"),
        ("u2,i1\nu2\n", "line 2: 1 columns"),
        ("u2,i1\nu2,\n", "line 2: an id is empty"),
        ("u2,i1\nu2,\xe9\n".encode("latin-1"), "line 2: no UTF-8 text"),
    ],
)
def test_bad_pairs_are_refused(write, content, message):
    path = write("pairs.csv", content)
    with pytest.raises(FileError) as caught:
        read_pairs(path, *KNOWN)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@given(
    ids=st.lists(st.tuples(words('", \n'), words('",;')).map(lambda pair: tuple(p.strip() for p in pair)), min_size=1),
    dtype=st.sampled_from([np.float32, np.float64]),
    data=st.data(),
)
def test_predictions_are_read_back_unchanged(folder, ids, dtype, data):
    width = np.finfo(dtype).bits
    floats = st.floats(allow_nan=False, allow_infinity=False, width=width)
    values = np.array(data.draw(st.lists(floats, min_size=len(ids), max_size=len(ids))), dtype)
    rows, cols = map(list, zip(*ids, strict=True))
    assume("row" not in rows and "column" not in cols)  # such ids make the header a pair
    path = folder / "predictions.csv"
    write_predictions(path, rows, cols, values)
    assert path.read_text().startswith("row,column,prediction\n")
    found = read_entries(path)
    read_back = [(row, col, dtype(value)) for row, col, value in triplets(found)]
    assert sorted(read_back) == sorted(zip(rows, cols, values, strict=True))
    pairs = read_pairs(path, set(rows), set(cols))
    assert (pairs.row_ids, pairs.col_ids) == (rows, cols)


def test_predictions_have_the_digits_of_their_dtype():
    for dtype, text in ((np.float32, "0.100000001"), (np.float64, "0.1")):
        lines = list(format_predictions(['a"b'], ["c,d"], np.array([0.1], dtype)))
        assert lines == ["row,column,prediction\n", f'"a""b","c,d",{text}\n']


def test_predictions_of_unequal_length_write_nothing(tmp_path):
    with pytest.raises(ShapeError, match=r"lengths \(1, 2, 1\)"):
        write_predictions(tmp_path / "p.csv", ["a"], ["b", "c"], np.zeros(1))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError, match="cannot write"):
        write_predictions(tmp_path / "missing" / "p.csv", ["a"], ["b"], np.zeros(1))


# Damage

SEEDS = {
    "s.npy": npy_of(np.eye(4)),
    "t.npz": npz(rows=[0, 1], cols=[1, 0], values=[1.0, 2.0], shape=[2, 2]),
    "c.npz": npz(zipfile.ZIP_DEFLATED, **CSR),
    "s.mtx": (COORDINATE + "3 2 2\n1 1 1.5e-3\n3 2 2.5\n").encode(),
    "a.mtx": (MTX + "array real symmetric\n2 2\n1\n2\n3e+2\n").encode(),
    "s.csv": b'user,item,rating\n"a, b",x,1.5\nc,y,2\n\n',
}


@pytest.mark.parametrize("name", SEEDS)
@given(data=st.data())
def test_damaged_files_are_read_or_refused_but_nothing_else_happens(folder, name, data):
    content = bytearray(SEEDS[name])
    for _ in range(data.draw(st.integers(1, 3))):
        where = data.draw(st.integers(0, max(len(content) - 1, 0)))
        how = data.draw(st.sampled_from(["cut", "change", "insert", "delete"]))
        if how == "cut":
            del content[where:]
        elif how == "delete":
            del content[where : where + data.draw(st.integers(1, 8))]
        else:
            content[where : where + (how == "change")] = data.draw(st.binary(min_size=1, max_size=3))
    path = folder / f"damaged-{name}"
    path.write_bytes(content)
    for read in (read_entries, read_matrix):
        try:
            read(path)
        except DmfError as error:
            assert len(str(error)) > 20
