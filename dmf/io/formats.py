"""What files hold, one reader for each format, none of which trusts its file: npy, npz, Parquet, delimited text.

A reader allocates in proportion to the bytes that are there, never to what a header promises, and unpickles nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import stat
import zipfile
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import scipy.sparse

from dmf.errors import FileError, MissingPackageError
from dmf.io.delimited import (
    DelimitedText,
    as_number,
    ignored,
    is_meant_as_number,
    is_missing,
    is_number,
    listed,
    open_delimited,
    shown,
)
from dmf.io.tables import Table, is_table, read_table
from dmf.observations import SampledEntries

_CHUNK = 2**20
_MOST_EXPANSION = 100  # of compressed data: real matrices stay below, and a deflate bomb reaches 1032
_SMALL = 2**28  # bytes that are always fine, whatever they were compressed from
_NO_VALUE = "Leave the line out if the entry is missing; for a table with missing cells pass --format table."
_TRIPLET = ("row id", "column id", "value")


@dataclass(frozen=True)
class Found:
    """What a file holds: a two-dimensional array (NaN where it has it), or entries; ids, if it names any; notes; its layout."""

    data: np.ndarray | SampledEntries
    notes: tuple[str, ...]
    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None
    table: Table | None = None


@contextlib.contextmanager
def readable(path: str | os.PathLike) -> Iterator[Path]:
    """The path, with the errors of the operating system as FileError."""
    path = Path(path)
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise FileError(f"cannot read {path}: it is a folder. Name a file.")
        if stat.S_ISREG(status.st_mode) and status.st_size == 0:
            raise FileError(f"cannot read {path}: it is empty (0 bytes). Name a file with a matrix in it.")
    except ValueError as error:  # a NUL byte
        raise FileError(f"cannot read {str(path)!r}: {error}.") from error
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}. Name a file that exists.") from error
    try:
        yield path
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}. Name a file that can be read.") from error


def times(shape: Sequence[int]) -> str:
    """A shape in words, "3 x 4"."""
    return " x ".join(map(str, shape))


def members_text(names: Sequence[str]) -> str:
    """What an npz file holds, for messages."""
    return "the members " + ", ".join(listed([repr(name) for name in names])) if names else "no array"


def check_extent(path: Path, shape: Sequence[int], count: int) -> None:
    """Raise if a shape is far beyond what `count` entries can tell about; its rows alone would fill the memory."""
    most = 1_000_000 + 100 * count
    if max(shape, default=0) > most:
        raise FileError(
            f"cannot read {path}: a matrix {times(shape)} with {count} entries, so that almost all rows or columns are empty "
            f"(at most {most} are read). Number rows and columns without gaps, or write text, where ids may be anything."
        )


def load_text(path: Path, layout: str = "auto") -> Found:
    """Read lines of row id, column id, value ("entries"), or a table; "auto" decides by the first lines."""
    needed = ("first column", "second column") if layout == "table" else _TRIPLET

    def plausible(record):
        return is_missing(record[len(needed) - 1]) or is_meant_as_number(record[len(needed) - 1])

    with open_delimited(path, needed, plausible) as text:
        if layout == "table" or (layout == "auto" and is_table(text.sample)):
            matrix, row_ids, col_ids, notes, table = read_table(text)
            return Found(matrix, notes, row_ids, col_ids, table)
        return _read_entries(text)


def _read_entries(text: DelimitedText) -> Found:
    rows, cols, values = array("i"), array("i"), array("d")
    row_ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    col_ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    if _is_heading(text.first[2]):
        text.skip_header()
    for record in text:
        try:
            value = as_number(record[2])
        except ValueError:
            raise text.error(_reason(record[2].strip()), record) from None
        row, col = record[0].strip(), record[1].strip()
        if not (row and col and isfinite(value)):
            raise text.error(_reason(record[2].strip()) if row and col else "an id is empty. Give every id.", record)
        rows.append(row_ids[row])
        cols.append(col_ids[col])
        values.append(value)
    if not values:
        raise text.error("a header, but no entry follows. Give at least one line of row id, column id, value.")
    shape = len(row_ids), len(col_ids)
    entries = SampledEntries(np.asarray(rows), np.asarray(cols), np.asarray(values), shape)
    return Found(entries, text.notes(3), tuple(row_ids), tuple(col_ids))


def _is_heading(field: str) -> bool:
    """Whether the third field of the first line heads a column; a decimal comma, 1_000 and 12% are numbers badly written."""
    letters, digits = any(map(str.isalpha, field)), any(map(str.isdigit, field))
    return field != "" and not is_meant_as_number(field) and (letters or not digits)


def _reason(field: str) -> str:
    if not field:
        return f"the value (third field) is empty. {_NO_VALUE}"
    if is_number(field):
        return f"the value is {shown(field)}, but entries are finite. {_NO_VALUE}"
    if is_meant_as_number(field):
        return f"the value is {shown(field)}, but numbers have a decimal point, not a comma. Replace it."
    return f"the value (third field) is {shown(field)}, which is no number. Lines are row id, column id, value."


def load_npy(path: Path) -> Found:
    """Read one array."""
    with path.open("rb") as file:
        return _dense(_read_array(file, path.stat().st_size, str(path)), str(path))


def _dense(matrix: np.ndarray, where: str, notes: Sequence[str] = ()) -> Found:
    if matrix.ndim != 2:
        raise FileError(f"cannot read {where}: an array of shape {matrix.shape}, but a matrix has 2 dimensions.")
    return Found(matrix, (f"dense {matrix.dtype} array {times(matrix.shape)}", *notes))


def _read_array(file: BinaryIO, size: int, where: str, kinds: str = "fiub") -> np.ndarray:
    """Array in npy format from a stream of `size` bytes; allocates only what the stream is said to hold."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"format {version}, but arrays of numbers have (1, 0) or (2, 0)")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except OSError:
        raise
    except Exception as error:  # NumPy evaluates the header, which can go wrong in a dozen ways
        raise FileError(f"cannot read {where}: no array in npy format ({error}).") from error
    if dtype.kind not in kinds:
        raise FileError(
            f"cannot read {where}: its dtype is {dtype}, but a matrix holds real numbers. Convert it first."
        )
    count, present = math.prod(shape), size - file.tell()
    if min(shape, default=0) < 0 or count * dtype.itemsize != present:
        raise FileError(
            f"cannot read {where}: an array of shape {shape} and dtype {dtype} is declared, which has {count * dtype.itemsize} "
            f"bytes, but there are {present}. The file is damaged or was cut off; write it again."
        )
    if count == 0:
        raise FileError(f"cannot read {where}: an array of shape {shape}, which has no entries. At least 1 is needed.")
    if len(shape) > 3:
        raise FileError(f"cannot read {where}: an array of {len(shape)} dimensions, but a matrix has 2.")
    flat = np.empty(count, dtype)
    buffer = flat.view(np.uint8)
    for first in range(0, present, _CHUNK):
        part = file.read(min(_CHUNK, present - first))
        if len(part) < min(_CHUNK, present - first):
            raise FileError(
                f"cannot read {where}: it ends after {first + len(part)} of {present} bytes. Write it again."
            )
        buffer[first : first + len(part)] = np.frombuffer(part, np.uint8)
    if file.read(1):  # which also makes zipfile compare the checksum
        raise FileError(f"cannot read {where}: more bytes than the {present} declared. Write it again.")
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)


def read_npz(path: Path, choose: Callable[[list[str]], list[str]]) -> tuple[dict[str, np.ndarray], list[str]]:
    """Arrays of the members that `choose` names among those there are, and a note on those left out."""
    arrays = {}
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = {m.filename[:-4]: m for m in archive.infolist() if m.filename.endswith(".npy")}
            chosen = choose(sorted(members))
            for name in chosen:
                member = members[name]
                where = f"{path}, member {name!r}"
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise FileError(f"cannot read {where}: a compression that NumPy never writes. Use numpy.savez.")
                if member.file_size > max(_SMALL, _MOST_EXPANSION * size):
                    raise FileError(
                        f"cannot read {where}: it unpacks to {member.file_size} bytes, more than {_MOST_EXPANSION} times the "
                        f"{size} bytes of the file. If you trust it, write it uncompressed with numpy.savez."
                    )
                with archive.open(member) as file:
                    kinds = "S" if name == "format" else "fiub"
                    arrays[name] = _read_array(file, member.file_size, where, kinds)  # type: ignore[arg-type]
    except (FileError, OSError):
        raise
    except Exception as error:  # zipfile and zlib raise a dozen types for damaged archives
        raise FileError(f"cannot read {path}: no intact npz file ({error}). Write it again.") from error
    return arrays, ignored("members", [name for name in sorted(members) if name not in chosen])


def load_npz(path: Path) -> Found:
    """Read one array, the members rows, cols, values, or a SciPy sparse matrix."""

    def choose(names):
        for needed, optional in (
            (["format", "shape", "data"], ["row", "col", "indices", "indptr"]),
            (["rows", "cols", "values"], ["shape"]),
        ):
            if set(needed) <= set(names):
                return needed + [name for name in optional if name in names]
        if len(names) == 1 and names != ["format"]:
            return names
        advice = " For measurements A and y use `dmf sense`." if {"A", "y"} <= set(names) else ""
        raise FileError(
            f"cannot read {path}: it holds {members_text(names)}, but a matrix is one array, or the members 'rows', 'cols' and "
            f"'values', or what scipy.sparse.save_npz writes.{advice}"
        )

    members, notes = read_npz(path, choose)
    if "format" in members:
        return _sparse(path, members)
    if len(members) == 1:
        return _dense(next(iter(members.values())), str(path), notes)
    rows, cols, values = members["rows"], members["cols"], members["values"]
    if "shape" in members:
        shape = tuple(members["shape"].ravel().tolist())
    else:
        shape = tuple(int(index.max(initial=0)) + 1 for index in (rows, cols))
    check_extent(path, shape, values.size)
    return Found(SampledEntries(rows, cols, values, shape), ("members rows, cols, values", *notes))


def _sparse(path: Path, members: dict[str, np.ndarray]) -> Found:
    kind = bytes(members["format"].ravel()[:1].tolist()[0]).decode("latin-1") if members["format"].size else ""
    makers = {"coo": scipy.sparse.coo_array, "csr": scipy.sparse.csr_array, "csc": scipy.sparse.csc_array}
    if kind not in makers:
        raise FileError(
            f"cannot read {path}: a sparse matrix in the format {shown(kind)}, but coo, csr and csc are read. "
            "Convert it with .tocoo() before scipy.sparse.save_npz."
        )
    index = ("row", "col") if kind == "coo" else ("indices", "indptr")
    data, shape = members["data"], tuple(members["shape"].ravel().tolist())
    check_extent(path, shape, data.size)
    try:
        one, other = (members[name] for name in index)
        if one.dtype.kind not in "iu" or other.dtype.kind not in "iu" or not data.ndim == one.ndim == other.ndim == 1:
            raise ValueError("data and indices are no vectors of numbers and integers")
        if kind == "coo":
            matrix = scipy.sparse.coo_array((data, (one, other)), shape)
        else:
            matrix = makers[kind]((data, one, other), shape)
            matrix.check_format(full_check=True)  # SciPy's conversions trust the indices
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise FileError(f"cannot read {path}: no intact {kind} matrix ({error}). Write it again.") from error
    return Found(SampledEntries.from_sparse(matrix), (f"{kind} matrix {times(shape)}; stored entries are observed",))


def load_parquet(path: Path) -> Found:
    """Read the first three columns as row id, column id, value."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise MissingPackageError(
            f"cannot read {path}: Parquet needs the package pyarrow. Run: pip install 'dmf[parquet]'"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            names, count = file.schema_arrow.names, file.metadata.num_rows
        if len(names) < 3:
            raise FileError(
                f"cannot read {path}: {len(names)} columns {names}, but 3 are needed: {', '.join(_TRIPLET)}."
            )
        if 16 * count > max(_SMALL, _MOST_EXPANSION * path.stat().st_size):
            raise FileError(
                f"cannot read {path}: {count} rows, more than fit a file of {path.stat().st_size} bytes unless almost all are "
                "the same. Remove repeated rows."
            )
        # Ids stay dictionaries: repeated long texts would otherwise unpack to any size.
        with parquet.ParquetFile(path, read_dictionary=names[:2]) as file:
            table = file.read(columns=names[:3])
        if table.num_columns != 3:
            raise FileError(f"cannot read {path}: column names repeat ({', '.join(names)}). Rename them.")
        rows, row_ids = _number_ids(table.column(0), pyarrow, f"{path}, column {shown(names[0])}")
        cols, col_ids = _number_ids(table.column(1), pyarrow, f"{path}, column {shown(names[1])}")
        values = _values(table.column(2), pyarrow, f"{path}, column {shown(names[2])}")
    except (pyarrow.ArrowException, ValueError, TypeError, KeyError) as error:
        raise FileError(f"cannot read {path}: {error}") from error
    if not count:
        raise FileError(f"cannot read {path}: a table without rows. Give at least one entry.")
    entries = SampledEntries(rows, cols, values, (len(row_ids), len(col_ids)))
    notes = (f"Parquet, columns {', '.join(listed(names[:3]))}", *ignored("columns", names[3:]))
    return Found(entries, notes, row_ids, col_ids)


def _number_ids(column: Any, pyarrow: Any, where: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Positions (m,) and ids of a column, numbered in the order of first appearance."""
    ids: defaultdict[str, int] = defaultdict(itertools.count().__next__)
    parts = [np.zeros(0, np.int32)]
    for chunk in column.chunks:
        if chunk.null_count:
            raise FileError(f"cannot read {where}: {chunk.null_count} ids are null. Give every id.")
        if not pyarrow.types.is_dictionary(chunk.type):
            chunk = chunk.dictionary_encode()
        names = chunk.dictionary.cast(pyarrow.string()).to_pylist()
        codes = chunk.indices.to_numpy()
        used, first = np.unique(codes, return_index=True)
        number = np.zeros(len(names), np.int32)
        for code in used[np.argsort(first)]:
            if not (name := (names[code] or "").strip()):
                raise FileError(f"cannot read {where}: an id is empty. Give every id.")
            number[code] = ids[name]
        parts.append(number[codes])
    return np.concatenate(parts), tuple(ids)


def _values(column: Any, pyarrow: Any, where: str) -> np.ndarray:
    kind = column.type
    if not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind) or pyarrow.types.is_decimal(kind)):
        raise FileError(f"cannot read {where}: values of type {kind}, but numbers are needed. Convert the column.")
    if not pyarrow.types.is_floating(kind):
        column = column.cast(pyarrow.float64(), safe=False)
    values = column.to_numpy()  # null becomes NaN
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise FileError(
            f"cannot read {where}: {bad.size} values are null, NaN or infinite (the first in row {bad[0] + 1}), but entries are "
            "finite. Leave the rows out if the entries are missing."
        )
    return values
