"""Arrays in npy, npz and Parquet files: read as they are, or refused."""

import io
import sys
import zipfile

import numpy as np
import pytest
import scipy.sparse

from dmf.errors import FileError, MissingPackageError
from dmf.io.archive import read_archive
from dmf.io.matrices import read_entries, read_matrix

from matrix_files import COO, CSR, DENSE, npy_of, npz, triplets

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
    assert result.matrix.dtype == entries.values.dtype == expected
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
    assert found.shape == (4, 5)
    assert triplets(found) == [(0, 1, 1.0), (2, 0, 0.0), (2, 3, 3.0)]


@pytest.mark.parametrize("shape", [None, (4, 5)])
def test_members_rows_cols_values(tmp_path, shape):
    members = {"rows": np.array([2, 0], np.uint8), "cols": [1, 3], "values": np.array([1, 2], np.float32), "more": 5}
    np.savez(tmp_path / "t.npz", **members, **({} if shape is None else {"shape": shape}))
    found = read_entries(tmp_path / "t.npz")
    assert found.shape == (shape or (3, 4))
    assert found.values.dtype == np.float32
    assert triplets(found) == [(0, 3, 2.0), (2, 1, 1.0)]
    assert found.notes == ("members rows, cols, values", "members ignored: more")


def npy(header, data=b"", version=(1, 0)):
    text = header.encode()
    size = len(text).to_bytes(2 if version == (1, 0) else 4, "little")
    return b"\x93NUMPY" + bytes(version) + size + text + data


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
    path = write("bomb.npz", npz(zipfile.ZIP_DEFLATED, m=np.zeros((2000, 2200))))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args: pytest.fail("unpacked"))
    with pytest.raises(FileError, match="real data stays below 100 times"):
        read_entries(path)


@pytest.mark.parametrize(
    "members, message",
    [
        ({"rows": [0, 1], "cols": [0], "values": [1.0, 2.0]}, "(2,), (1,) and (2,)"),
        ({"rows": [0.5], "cols": [0], "values": [1.0]}, "rows have dtype float64"),
        ({"rows": [np.nan, 0], "cols": [0, 1], "values": [1.0, 2]}, "rows have dtype float64"),
        ({"rows": [np.inf, 0], "cols": [0, 1], "values": [1.0, 2]}, "rows have dtype float64"),
        ({"rows": [-1], "cols": [0], "values": [1.0]}, "its shape is (0, 1)"),
        ({"rows": [3], "cols": [0], "values": [1.0], "shape": [2, 2]}, "rows go from 3 to 3"),
        ({"rows": [0], "cols": [0], "values": [1.0], "shape": [2, 2, 2]}, "its shape is (2, 2, 2)"),
        ({"rows": [0], "cols": [0], "values": [1.0], "shape": [2.5, 2]}, "its shape is (2.5, 2.0)"),
        ({"rows": [0, 1], "cols": [0, 2], "values": [1, np.nan]}, "row 1, column 2 (from 0) is nan"),
        ({"m": np.full((2, 2), np.nan)}, "all entries are NaN"),
        ({"m": [[0, 1], [np.inf, 2]]}, "1 entries are infinite, the first at row 1, column 0"),
    ],
)
def test_members_that_are_no_entries_are_refused(write, members, message):
    with pytest.raises(FileError) as caught:
        read_entries(write("bad.npz", npz(**members)))
    assert message in str(caught.value)


def test_half_precision_becomes_single(write):
    found = read_matrix(write("half.npy", npy_of(np.array([[0.5, 2]], np.float16))))
    assert found.matrix.dtype == np.float32
    assert found.matrix.tolist() == [[0.5, 2]]


@pytest.mark.parametrize("read", [read_entries, read_archive])
def test_members_that_overlap_are_refused_before_they_are_read(write, read):
    """Each entry of the directory leads to the same bytes, so that a small file would fill the memory."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("header.npy", npy_of(np.zeros((100, 100))))
        (member,) = archive.infolist()
        for k in range(50):
            copy = zipfile.ZipInfo(f"m{k}.npy")
            copy.compress_size, copy.file_size, copy.CRC = member.compress_size, member.file_size, member.CRC
            copy.header_offset = member.header_offset
            archive.filelist.append(copy)
    with pytest.raises(FileError, match="overlap"):
        read(write("nested.npz", content.getvalue()))


def test_small_integers_that_become_large_floats_are_refused(write):
    """Deflate packs a thousand to one, and each byte becomes a float64."""
    content = npz(zipfile.ZIP_DEFLATED, m=np.zeros((2**12, 2**11), np.int8))
    with pytest.raises(FileError, match="take 67108864 bytes, but at most"):
        read_matrix(write("bytes.npz", content))


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
    assert found.values.dtype == (np.float32 if value_type == "float32" else np.float64)
    assert found.notes == (
        "Parquet; row ids in column 'u', column ids in 'i.d', values in 'r' (--columns changes it)",
        "columns ignored: t",
    )


@pytest.mark.parametrize(
    "columns, message",
    [
        ({"u": ["a"], "i": ["b"]}, "2 columns ['u', 'i']"),
        ({"u": ["a", "b"], "i": ["b", "b"], "r": [1.0, float("-inf")]}, "column 'r': 1 values are infinite (the first in row 2)"),
        ({"u": ["a"], "i": ["b"], "r": [float("nan")]}, "no value in any row"),
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
    with pytest.raises(FileError, match="duplicate field names"):
        read_entries(tmp_path / "twice.parquet")


@pytest.mark.parametrize("rows, id_length", [(5_000_000, 1), (400, 100_000)])
def test_parquet_that_unpacks_to_far_more_than_it_is_is_refused(tmp_path, rows, id_length):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    ids = pa.array(["a" * id_length]).take(pa.array(np.zeros(rows, int)))
    table = pa.table({"u": ids, "i": ids if id_length == 1 else pa.array(["b"] * rows), "r": np.ones(rows)})
    pq.write_table(table, tmp_path / "large.parquet", compression="zstd", use_dictionary=False)
    with pytest.raises(FileError, match=f"{rows} rows take"):
        read_entries(tmp_path / "large.parquet")


def varint(number):
    """As the footer of a Parquet file holds it."""
    number, digits = 2 * number, []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_a_parquet_footer_that_understates_what_its_pages_unpack_to_is_not_believed(tmp_path, codec):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path, rows = tmp_path / "lie.parquet", 400
    ids = pa.array(["a" * 100_000 + str(k) for k in range(rows)])
    table = pa.table({"u": ids, "i": ["b"] * rows, "r": np.ones(rows)})
    pq.write_table(table, path, compression=codec, use_dictionary=False, write_statistics=False)
    size = pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size
    data, true = bytearray(path.read_bytes()), varint(size)
    at = data.rindex(true)
    data[at : at + len(true)] = bytes([128 | 20, *[128] * (len(true) - 2), 0])  # 10, in as many bytes
    path.write_bytes(data)
    assert pq.read_metadata(path).row_group(0).column(0).total_uncompressed_size == 10
    with pytest.raises(FileError, match=f"{rows} rows take"):
        read_entries(path)


def test_a_parquet_page_that_is_none_is_an_error(tmp_path):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "bad.parquet"
    pq.write_table(pa.table({"u": ["a", "b"], "i": ["x", "y"], "r": [1.0, 2.0]}), path)
    assert read_entries(path).values.tolist() == [1, 2]
    good = path.read_bytes()
    for start in (b"\xff" * 8, b"\x19" * 8, b"\x00" * 8, b"\x1b" * 8, b"\x1c" * 60):
        path.write_bytes(good[:4] + start + good[4 + len(start) :])
        with pytest.raises(FileError, match="bad"):
            read_entries(path)


def test_parquet_without_pyarrow_says_what_to_install(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'dmf\[parquet\]'"):
        read_entries(write("r.parquet", "x"))
