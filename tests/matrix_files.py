"""What the suites of matrix files share: contents of small files, ids, and what was found in a file."""

import io
import zipfile

import numpy as np
from hypothesis import strategies as st

MTX = "%%MatrixMarket matrix "
COORDINATE = MTX + "coordinate real general\n"
DENSE = np.array([[1.5, np.nan, -2.0], [4.0, 0.0, 1e300]])
CSR = {"format": np.bytes_("csr"), "shape": [2, 2], "data": [1.0, 2.0], "indices": [0, 1], "indptr": [0, 1, 2]}
COO = {"format": np.bytes_("coo"), "shape": [2, 2], "data": [1.0, 2.0], "row": [0, 1], "col": [1, 1]}


def triplets(found):
    """(row id, column id, value), sorted."""
    entries = found
    rows = range(entries.shape[0]) if found.row_ids is None else found.row_ids
    cols = range(entries.shape[1]) if found.col_ids is None else found.col_ids
    return sorted(
        (rows[i], cols[j], v)
        for i, j, v in zip(entries.rows.tolist(), entries.cols.tolist(), entries.values.tolist(), strict=True)
    )


def words(extra):
    """Ids: letters, digits, quotes, dots and `extra`; no comment sign, which would start a comment in the first line."""
    letters = st.characters(categories=("Lu", "Ll", "Lo", "Nd"))
    return st.text(st.one_of(letters, st.sampled_from("'.-_()" + extra)), min_size=1, max_size=8).filter(str.strip)


def npy_of(array, **options):
    file = io.BytesIO()
    np.save(file, array, **options)
    return file.getvalue()


def npz(method=zipfile.ZIP_STORED, **members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, array in members.items():
            archive.writestr(f"{name}.npy", array if type(array) is bytes else npy_of(np.asarray(array)))
    return file.getvalue()
