"""Objects whose arrays lie in files on a worker's disk, and are mapped into its memory while somebody computes with them."""

from __future__ import annotations

import contextlib
import mmap
import pickle
import tempfile
import weakref
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dmf.errors import FileError

_SUFFIX = ".dmf"
_ALIGNMENT = 64  # bytes: of the machine vectors, and of the lines of a cache


class Stored:
    """An object without its arrays, and where these are. Whoever it is sent to gets the object itself, in memory.

    Parameters
    ----------
    head : bytes
        The object's pickle, without the contents of its arrays.
    places : list of (_File, int, int)
        File, first byte and number of bytes of each of them.
    """

    __slots__ = ("_head", "_places")

    def __init__(self, head: bytes, places: list[tuple[_File, int, int]]) -> None:
        self._head, self._places = head, places

    def read(self) -> Any:
        """The object; its arrays are read-only, and their pages come from the disk when they are looked at."""
        return pickle.loads(self._head, buffers=[file.part(begin, size) for file, begin, size in self._places])

    def files(self) -> set[_File]:
        """All files that hold its arrays."""
        return {place[0] for place in self._places}

    def __reduce__(self) -> Any:
        return _itself, (self.read(),)

    def __sizeof__(self) -> int:
        return len(self._head)


class _File:
    """A file that is removed when nobody refers to it any more; where the process is killed, Dask removes its folder."""

    def __init__(self, folder: str) -> None:
        self._opened: Any = tempfile.NamedTemporaryFile(suffix=_SUFFIX, dir=folder, delete=False)  # noqa: SIM115, one writes, all read
        self._path = Path(self._opened.name)
        self._mapped: Any = None
        weakref.finalize(self, _removed, self._path)

    def append(self, content: Any) -> tuple[int, int]:
        """Write a buffer; returns where it begins and its size."""
        self._opened.write(bytes(-self._opened.tell() % _ALIGNMENT))
        begin = self._opened.tell()
        self._opened.write(content)
        return begin, content.nbytes

    def end(self) -> None:
        """Nothing more will be written."""
        self._opened.close()

    def part(self, begin: int, size: int) -> memoryview:
        """Some bytes; the file is mapped as long as any part of it is in use."""
        return memoryview(self._map())[begin : begin + size] if size else memoryview(b"")

    def _map(self) -> mmap.mmap:
        found = None if self._mapped is None else self._mapped()
        if found is None:
            with self._path.open("rb") as file:
                found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._mapped = weakref.ref(found)
        return found

    def where(self, content: memoryview) -> int | None:
        """First byte in this file of a buffer that is a part of it as it is mapped now; None of any other."""
        found = None if self._mapped is None else self._mapped()
        if found is None:
            return None
        begin = _address(content) - _address(memoryview(found))
        return begin if 0 <= begin <= len(found) - content.nbytes else None


def stored(objects: Iterable[Any], folder: str, known: Sequence[_File] = ()) -> list[Stored]:
    """Objects with their arrays in one new file; those that lie in `known` files, mapped now, are not written again.

    Raises
    ------
    FileError
        If the disk is full, or the folder cannot be written to.
    """
    try:
        file, found = _File(folder), []
        for each in objects:
            buffers: list[pickle.PickleBuffer] = []
            head = pickle.dumps(each, protocol=5, buffer_callback=buffers.append)
            found.append(Stored(head, [_placed(buffer.raw(), file, known) for buffer in buffers]))
        file.end()
    except OSError as error:
        raise FileError(
            f"{folder}: a worker cannot keep its samples there: {error}. Give the workers a folder with more room: "
            "local_directory of Dask's clusters, --local-directory of `dask worker`."
        ) from error
    return found


def _placed(content: memoryview, file: _File, known: Sequence[_File]) -> tuple[_File, int, int]:
    for old in known if content.nbytes else ():
        begin = old.where(content)
        if begin is not None:
            return old, begin, content.nbytes
    return file, *file.append(content)


def read(given: Any) -> Any:
    """What is stored, or what is given where that is not."""
    return given.read() if isinstance(given, Stored) else given


def remove_files(dask_worker: Any) -> None:
    """Remove what a worker keeps, before it is closed: for `Client.run`. Dask waits 9 s for the end of a worker, then fails."""
    for path in Path(dask_worker.local_directory).glob(f"*{_SUFFIX}"):
        _removed(path)


def _itself(given: Any) -> Any:
    return given


def _address(content: memoryview) -> int:
    return np.frombuffer(content, np.uint8).ctypes.data


def _removed(path: Path) -> None:
    with contextlib.suppress(OSError):  # the folder is gone, or the file goes when the folder does
        path.unlink()
