"""Matrix Market files agree with SciPy, or are refused."""

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from dmf.errors import FileError
from dmf.io.matrices import read_entries, read_matrix

from matrix_files import COORDINATE, MTX, triplets


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
