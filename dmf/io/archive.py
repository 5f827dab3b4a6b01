"""Files of named arrays with a JSON header: npz without pickle, written whole or not at all, read with suspicion."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import tempfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dmf.errors import FileError

_HEADER = "header"
_MOST_MEMBERS = 10_000
_WAY_OUT = "Name a file in a folder that exists and can be written to."


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write(file)`` on a temporary file beside `path`, then rename it to `path`.

    Raises
    ------
    FileError
        If the folder is missing or not writable, or `path` is a folder. The old file, if any, is then untouched.
    """
    path = Path(path)
    if _is_folder(path):
        raise FileError(f"cannot write {path}: it is a folder. Name a file.")
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}. {_WAY_OUT}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError):
            raise FileError(f"cannot write {path}: {_reason(error)}.") from error
        raise


def check_writable(path: str | os.PathLike) -> None:
    """Raise FileError if `path` cannot be written, before hours are spent on what should go there."""
    path = Path(path)
    if _is_folder(path):
        raise FileError(f"cannot write {path}: it is a folder. Name a file.")
    try:
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
            pass
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}. {_WAY_OUT}") from error


def check_suffix(path: str | os.PathLike, what: str, suffixes: Sequence[str]) -> None:
    """Raise FileError unless the suffix of `path` is one of those in which `what` can be written."""
    suffix = Path(path).suffix.lower()
    if suffix not in suffixes:
        raise FileError(
            f"cannot write the {what} {path}: its suffix is {suffix!r}, but a {what} is {' or '.join(suffixes)}."
        )


def make_folder(path: str | os.PathLike) -> None:
    """Make a folder for results, with those above it, unless it is there; FileError if it cannot be."""
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot make the folder {path}: {_reason(error)}. Name one in a place that can be written to."
        ) from error


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name too long, for one; opening the file will say so
        return False


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file (UTF-8), whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_archive(path: str | os.PathLike, header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays and a JSON header to one npz file.

    Parameters
    ----------
    path : path
    header : mapping
        Anything that JSON holds.
    arrays : mapping of str to numeric arrays

    Raises
    ------
    FileError
        If the file cannot be written; nothing is left behind.
    """
    text = json.dumps(dict(header), allow_nan=False)
    members = {_HEADER: np.frombuffer(text.encode(), np.uint8), **arrays}
    write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **members))


def read_archive(path: str | os.PathLike) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Read what `write_archive` wrote, without trusting it.

    Every array is numeric and exactly as long as its header says; nothing is unpickled or decompressed, so the memory needed is
    bounded by the size of the file.

    Raises
    ------
    FileError
        If the file is missing, a folder, truncated, or not such an archive.
    """
    path = Path(path)
    if _is_folder(path):
        raise FileError(f"cannot read {path}: it is a folder, not a model file.")
    arrays: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if len(members) > _MOST_MEMBERS:
                raise FileError(f"cannot read {path}: {len(members)} members, but a model has at most {_MOST_MEMBERS}.")
            for member in members:
                name = member.filename.removesuffix(".npy")
                if name == member.filename or name in arrays:
                    raise FileError(f"cannot read {path}: unexpected member {member.filename!r} in a model file.")
                if member.compress_type != zipfile.ZIP_STORED:
                    raise FileError(
                        f"cannot read {path}: member {member.filename!r} is compressed, as dmf never writes it."
                    )
                arrays[name] = _read_array(archive.read(member), f"{path}, member {name!r}")
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise FileError(f"cannot read {path}: {_reason(error)}. Pass a model file that dmf wrote.") from error
    if _HEADER not in arrays:
        raise FileError(f"cannot read {path}: it has no member {_HEADER!r}. Pass a model file that dmf wrote.")
    try:
        header = json.loads(arrays.pop(_HEADER).tobytes().decode())
    except (ValueError, RecursionError) as error:
        raise FileError(f"cannot read {path}: its header is not JSON ({error}).") from error
    if not isinstance(header, dict):
        raise FileError(f"cannot read {path}: its header is a JSON {type(header).__name__}, not an object.")
    return header, arrays


def _read_array(data: bytes, where: str) -> np.ndarray:
    stream = io.BytesIO(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy warns when it repairs a header
            version = np.lib.format.read_magic(stream)
            if version != (1, 0):
                raise ValueError(f"array format {version}, but dmf writes (1, 0)")
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    except Exception as error:  # the header is a Python literal, and its parser raises a dozen kinds of error
        raise FileError(f"cannot read {where}: {error}. Pass a model file that dmf wrote.") from error
    if dtype.kind not in "fiub":
        raise FileError(f"cannot read {where}: dtype {dtype}, but a model holds numbers only.")
    expected = math.prod(shape) * dtype.itemsize
    if len(data) - stream.tell() != expected:
        raise FileError(
            f"cannot read {where}: {len(data) - stream.tell()} bytes for an array {shape} of {dtype}, which has {expected}."
        )
    flat = np.frombuffer(data, dtype, offset=stream.tell())
    return flat.reshape(shape, order="F" if fortran else "C").copy()
