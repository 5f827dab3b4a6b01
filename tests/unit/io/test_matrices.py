"""Complete matrices, measurements, pairs and predictions; damage to files of any format."""

import contextlib
import io
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dmf.errors import DmfError, FileError, ShapeError
from dmf.io.matrices import read_entries, read_matrix, read_sensing
from dmf.io.pairs import read_pairs, read_row_ids
from dmf.io.predictions import format_predictions, write_predictions

from matrix_files import COO, COORDINATE, CSR, DENSE, MTX, npy_of, npz, triplets, words


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
        ("m.npy", npy_of(DENSE), "1 of 6 entries (2 x 3) are missing (they are NaN or empty)"),
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
    with pytest.raises(FileError, match="infinite"):
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
        ("User_ID::movieId\nu2::i1\n", ["u2"], ["i1"]),
        ("user_id:token\titem_id:token\trating:float\nu2\ti1\t3\n", ["u2"], ["i1"]),
        ("person,where\n7,8\n8,9\n", ["7", "8"], ["8", "9"]),  # words above numbers
        ("someone,something,stars\nu2,i1,3.5\n", ["u2"], ["i1"]),
        ("probe,tissue\nu2,i1\n", ["u2"], ["i1"]),  # words above ids that have digits
        ("new,9\nu2,i1\n", ["new", "u2"], ["9", "i1"]),  # new on both sides, and a pair all the same
        ("new,9,3\nu2,i1,4\n", ["new", "u2"], ["9", "i1"]),
        ("12,13\nu2,i1\n", ["12", "u2"], ["13", "i1"]),
        ('"u 1", i1\n', ["u 1"], ["i1"]),
    ],
)
def test_pairs_and_their_header(write, text, rows, cols):
    pairs = read_pairs(write("pairs.txt", text), *KNOWN)
    assert (pairs.row_ids, pairs.col_ids) == (rows, cols)
    assert ("columns ignored: number 3" in pairs.notes) == ("more" in text or "9,3" in text)
    told = [note for note in pairs.notes if "is taken as a pair (--header" in note]
    assert len(told) == (rows[0] in ("new", "12"))


@pytest.mark.parametrize(
    "text, rows",
    [
        ("user\nu2\n", ["user", "u2"]),  # a known id
        ("customers\nu2\n", ["u2"]),
        ("new 1\nu2\n", ["new 1", "u2"]),  # an unknown id, which is refused where it is looked up
        ("new,stars\nu2,3\n", ["u2"]),
        ("customer\n", ["customer"]),
    ],
)
def test_row_ids_and_their_header(write, text, rows):
    ids, notes = read_row_ids(write("rows.txt", text), KNOWN[0])
    assert ids == rows
    assert ("no header" in notes[0]) == (text.count("\n") == len(rows))  # a line that is left out is told


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
    write_predictions(path, rows, cols, {"prediction": values, "low": np.full(len(rows), np.nan)})
    assert path.read_text().startswith("row,column,prediction,low\n")
    found = read_entries(path)
    read_back = [(row, col, dtype(value)) for row, col, value in triplets(found)]
    assert sorted(read_back) == sorted(zip(rows, cols, values, strict=True))
    pairs = read_pairs(path, set(rows), set(cols))
    assert (pairs.row_ids, pairs.col_ids) == (rows, cols)


def test_predictions_have_the_digits_of_their_dtype():
    for dtype, text in ((np.float32, "0.100000001"), (np.float64, "0.1")):
        lines = list(format_predictions(['a"b'], ["c,d"], {"p": np.array([0.1], dtype), "high": np.array([np.nan])}))
        assert lines == ["row,column,p,high\n", f'"a""b","c,d",{text},\n']


def test_predictions_of_unequal_length_write_nothing(tmp_path):
    with pytest.raises(ShapeError, match=r"lengths \(1, 2, 1\)"):
        write_predictions(tmp_path / "p.csv", ["a"], ["b", "c"], {"prediction": np.zeros(1)})
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileError, match="cannot write"):
        write_predictions(tmp_path / "missing" / "p.csv", ["a"], ["b"], {"prediction": np.zeros(1)})


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
        with contextlib.suppress(DmfError):
            read(path)
