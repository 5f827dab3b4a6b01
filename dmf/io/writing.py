"""Files are written whole or not at all: a temporary file beside the target, renamed at the end. JSON, too, is made here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dmf.errors import FileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_PREFIX, _SUFFIX = ".dmf-", ".tmp"  # of temporary files
_SPECIAL = (
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_WAY_OUT = "Name a file in a folder that exists and can be written to."


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], Any], previous: Path | None = None) -> None:
    """Call ``write(file)`` on a temporary file, then rename it to `path`, or to what `path` links to.

    A file that is replaced hands its permissions on, and becomes `previous`, where that is named. Temporary files of runs that
    were killed are removed from the folder.

    Raises
    ------
    FileError
        If the folder is missing or not writable, or `path` is a folder, a device or a pipe. The old file, if any, is then
        untouched.
    """
    target = _target(path)
    with _writing(path), _temporary_file(target) as (file, temporary):
        write(file)
        file.flush()
        os.fsync(file.fileno())
        temporary.chmod(stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o666 & ~_umask())
        if previous is not None and target.exists():
            target.replace(previous)
        temporary.replace(target)


def check_writable(path: str | os.PathLike) -> None:
    """Raise FileError if `path` cannot be written, before hours are spent on what should go there."""
    target = _target(path)
    with _writing(path), _temporary_file(target):
        pass


@contextlib.contextmanager
def _writing(path: str | os.PathLike) -> Iterator[None]:
    """Errors of the operating system as FileError."""
    try:
        yield
    except OSError as error:
        raise FileError(f"cannot write {path}: {_reason(error)}. {_WAY_OUT}") from error


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[BinaryIO, Path]]:
    """A temporary file beside the target, as only within a file system one file replaces another at once."""
    _remove_left_behind(target.parent)
    while True:
        handle, name = tempfile.mkstemp(prefix=_PREFIX, suffix=_SUFFIX, dir=target.parent)
        with os.fdopen(handle, "wb") as file:
            _lock(file)
            if not os.path.exists(name):  # noqa: PTH110 - another run took it for one left behind
                continue
            try:
                yield file, Path(name)
            finally:
                with contextlib.suppress(OSError):
                    Path(name).unlink()
        return


def _lock(file: BinaryIO, wait: bool = True) -> bool:
    """Lock a file until it is closed, or the process ends; whether it could be. Other systems refuse to remove open files."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:  # locked by another process, or no locks on this file system
        return False
    return True


def _remove_left_behind(folder: Path) -> None:
    """Remove temporary files of runs that were killed: nobody holds their lock."""
    with contextlib.suppress(OSError), os.scandir(folder) as found:
        for name in [entry.path for entry in found if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX)]:
            with contextlib.suppress(OSError), open(name, "ab") as file:  # noqa: PTH123
                if _lock(file, wait=False):
                    Path(name).unlink()


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


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file (UTF-8), whole or not at all."""
    write_atomically(path, lambda file: file.write(text.encode()))


def json_text(value: Any) -> str:
    """Indented JSON of anything; see `jsonable`. What a terminal would not show as a character is escaped."""
    text = json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False)
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def jsonable(value: Any) -> Any:
    """`value` with what JSON cannot hold as the nearest that it can: lists for arrays, null for NaN and infinities, or text."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return jsonable(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
