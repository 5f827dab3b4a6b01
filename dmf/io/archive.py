"""Files of named arrays with a JSON header, such as models: npz without pickle, written whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError
from dmf.io.arrays import open_npz
from dmf.io.reading import readable
from dmf.io.writing import write_atomically

MATRIX_MODEL, TABLE_MODEL = "dmf-model", "dmf-table"  # formats of model files
_READERS = {MATRIX_MODEL: "dmf.load", TABLE_MODEL: "dmf.tables.load"}
_HEADER = "header"
_MOST_MEMBERS = 10_000


def write_archive(
    path: str | os.PathLike,
    header: Mapping[str, Any],
    arrays: Mapping[str, np.ndarray],
    previous: Path | None = None,
) -> None:
    """Write arrays and a JSON header to one npz file.

    Parameters
    ----------
    path : path
    header : mapping
        Anything that JSON holds.
    arrays : mapping of str to numeric arrays
    previous : path, optional
        What becomes of a file that was there before.

    Raises
    ------
    FileError
        If the file cannot be written; nothing is left behind.
    """
    # NumPy 2.1 takes `allow_pickle` of `savez` for an array.
    assert not any(np.asarray(array).dtype.hasobject for array in arrays.values()), "objects would be pickled"
    text = json.dumps(dict(header), allow_nan=False)
    members: dict[str, Any] = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    write_atomically(path, lambda file: np.savez(file, **members), previous)


def read_archive(
    path: str | os.PathLike, what: str = "model", *, header_only: bool = False
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_archive` wrote, a "model" or whatever messages should call it, without trusting it.

    Every array is numeric and exactly as long as its header says; nothing is unpickled or decompressed, so the memory needed is
    bounded by the size of the file.

    Raises
    ------
    FileError
        If the file is missing, a folder, truncated, or not such an archive.
    """
    arrays: dict[str, np.ndarray] = {}
    advice = f"Pass a {what} file that dmf wrote."
    with readable(path) as file, open_npz(file, advice) as archive:
        if archive.others or len(archive.names) > _MOST_MEMBERS:
            other = repr(archive.others[0]) if archive.others else f"more than {_MOST_MEMBERS}"
            raise FileError(f"cannot read {path}: unexpected members in a {what} file ({other}). {advice}")
        if archive.methods - {zipfile.ZIP_STORED}:
            raise FileError(f"cannot read {path}: its members are compressed, as dmf never writes them. {advice}")
        if _HEADER not in archive.names:
            raise FileError(f"cannot read {path}: it has no member {_HEADER!r}. {advice}")
        arrays = {name: archive.read(name, empty=True) for name in ([_HEADER] if header_only else archive.names)}
    try:
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise FileError(f"cannot read {path}: its header is not JSON ({error}). {advice}") from error
    if not isinstance(header, dict):
        raise FileError(f"cannot read {path}: its header is a JSON {type(header).__name__}, not an object. {advice}")
    return header, arrays


def check_format(path: str | os.PathLike, header: Mapping[str, Any], form: str, form_version: int) -> None:
    """Raise FileError unless the header is that of a model file of one form and version; it names the call for other forms."""
    found = header.get("format")
    if found != form:
        call = next((call for known, call in _READERS.items() if known == found), None)
        way = "Pass a model file that dmf wrote." if call is None else f"Read it with {call}."
        raise FileError(f"cannot read {path}: its format is {found!r}, not {form!r}. {way}")
    if (found := header.get("format_version")) != form_version:
        raise FileError(
            f"cannot read {path}: its format version is {found!r}; this dmf reads {form_version}. Fit the model again."
        )
