"""Files of named arrays with a JSON header: npz without pickle, written whole or not at all, read with suspicion."""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import stat
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
_SPECIAL = (
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_WAY_OUT = "Name a file in a folder that exists and can be written to."


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Call ``write(file)`` on a temporary file, then rename it to `path`, or to what `path` links to.

    Raises
    ------
    FileError
        If the folder is missing or not writable, or `path` is a folder, a device or a pipe. The old file, if any, is then
        untouched.
    """
    target = _target(path)
    try:
        handle, temporary = tempfile.mkstemp(**_temporary(target))
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}. {_WAY_OUT}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o666 & ~_umask())
        Path(temporary).replace(target)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        if isinstance(error, OSError):
            raise FileError(f"cannot write {path}: {_reason(error)}.") from error
        raise


def check_writable(path: str | os.PathLike) -> None:
    """Raise FileError if `path` cannot be written, before hours are spent on what should go there."""
    try:
        with tempfile.NamedTemporaryFile(**_temporary(_target(path))):
            pass
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}. {_WAY_OUT}") from error


def _target(path: str | os.PathLike) -> Path:
    """The file that writing to `path` makes or replaces, links followed; FileError if what is there is no regular file."""
    path = Path(path)
    try:
        path.parent.resolve(strict=True)  # "missing/../file" is nowhere, although what is below would make it "file"
        try:
            mode = path.stat().st_mode
        except FileNotFoundError:  # a link to nothing included: its target is then made
            mode = stat.S_IFREG
        target = Path(os.path.realpath(path))
    except ValueError as error:  # a NUL byte
        raise FileError(f"cannot write {str(path)!r}: {error}. {_WAY_OUT}") from error
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}. {_WAY_OUT}") from error
    if stat.S_ISDIR(mode):
        raise FileError(f"cannot write {path}: it is a folder. Name a file.")
    if not stat.S_ISREG(mode):
        kind = next((kind for is_kind, kind in _SPECIAL if is_kind(mode)), "no regular file")
        raise FileError(
            f"cannot write {path}: it is {kind}, which a file would replace, as results are written to a temporary file that "
            "is then renamed. Name a regular file, or one that does not exist yet."
        )
    return target


def _temporary(target: Path) -> dict[str, Any]:
    """Where the temporary file of a target is made: beside it, as only within a file system one file replaces another at once."""
    return {"prefix": f".{target.name}.", "suffix": ".tmp", "dir": target.parent}


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
