"""Arrays in npy and npz files: the one reader of them, which trusts nothing and unpickles nothing.

What an array takes in memory is compared with the size of the file before it is read.
"""

from __future__ import annotations

import contextlib
import math
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from dmf.errors import FileError
from dmf.io.messages import shown

_CHUNK = 2**20
_MOST_EXPANSION = 100  # of a file in memory: real matrices stay below, and a deflate bomb reaches 1032
_ALWAYS_READ = 2**25  # bytes
_MOST_DIMENSIONS = 3
_MOST_MEMBERS = 100_000
_BYTES = 8  # of a number once it is read: integers become float64


def most_bytes(path: str | os.PathLike) -> int:
    """Memory that the content of a file may take."""
    return max(_ALWAYS_READ, _MOST_EXPANSION * Path(path).stat().st_size)


def read_npy(path: Path) -> np.ndarray:
    """Read the array of an npy file."""
    with path.open("rb") as file:
        return _read_array(file, path.stat().st_size, str(path), "Write it again.")


class Npz:
    """An open npz file; made by `open_npz`.

    Attributes
    ----------
    names : list of str
        Of the arrays, sorted.
    others : list of str
        Files in it that are no arrays.
    methods : set of int
        How the arrays are compressed, as `zipfile` counts it.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, advice: str) -> None:
        members = archive.infolist()
        self._path, self._archive, self._advice, self._left = path, archive, advice, most_bytes(path)
        if len(members) > _MOST_MEMBERS:
            raise FileError(
                f"cannot read {path}: {len(members)} members, but at most {_MOST_MEMBERS} are read. {advice}"
            )
        self._members = {m.filename.removesuffix(".npy"): m for m in members if m.filename.endswith(".npy")}
        self.others = [m.filename for m in members if not m.filename.endswith(".npy")]
        self.names, self.methods = sorted(self._members), {m.compress_type for m in self._members.values()}
        if len(self._members) + len(self.others) < len(members):
            raise FileError(f"cannot read {path}: two members have one name. {advice}")
        if sum(m.compress_size for m in members) > path.stat().st_size:
            raise FileError(
                f"cannot read {path}: its members are larger than the file, so they overlap, as NumPy never writes them. {advice}"
            )

    def read(self, name: str, kinds: str = "fiub", empty: bool = False) -> np.ndarray:
        """The array of this name, whose dtype is of one of `kinds`; only if `empty`, it may have no entries."""
        member = self._members[name]
        where = f"{self._path}, member {shown(name)}"
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise FileError(f"cannot read {where}: a compression that NumPy never writes. {self._advice}")
        if member.file_size > self._left:
            raise FileError(
                f"cannot read {where}: it unpacks to {member.file_size} bytes, but at most {self._left} are read from the "
                f"{self._path.stat().st_size} bytes of the file (real data stays below {_MOST_EXPANSION} times that). If you "
                "trust it, write it uncompressed with numpy.savez."
            )
        with self._archive.open(member) as file:
            array = _read_array(file, member.file_size, where, self._advice, kinds, empty, self._left)  # type: ignore[arg-type]
        self._left -= array.size * max(array.itemsize, _BYTES)
        return array


@contextlib.contextmanager
def open_npz(path: Path, advice: str = "Write it again.") -> Iterator[Npz]:
    """Open an npz file; FileError within the block, too, if it is damaged.

    `advice` is the last sentence of its messages.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield Npz(path, archive, advice)
    except (FileError, OSError, MemoryError):
        raise
    except Exception as error:  # of damaged archives zipfile raises a dozen types, some of zlib and struct
        raise FileError(f"cannot read {path}: no intact npz file ({error}). {advice}") from error


def _read_array(
    file: BinaryIO, size: int, where: str, advice: str, kinds: str = "fiub", empty: bool = False, most: int = 2**62
) -> np.ndarray:
    """Array in npy format from a stream of `size` bytes."""
    shape, fortran, dtype = _header(file, where, advice)
    if dtype.kind not in kinds:
        raise FileError(f"cannot read {where}: its dtype is {dtype}, but a matrix holds real numbers. {advice}")
    count, present = math.prod(shape), size - file.tell()
    if len(shape) > _MOST_DIMENSIONS:
        raise FileError(f"cannot read {where}: an array of {len(shape)} dimensions, but a matrix has 2. {advice}")
    if min(shape, default=0) < 0 or count * dtype.itemsize != present:
        raise FileError(
            f"cannot read {where}: an array of shape {shape} and dtype {dtype} is declared, which has {count * dtype.itemsize} "
            f"bytes, but there are {present}. The file is damaged or was cut off. {advice}"
        )
    if count == 0 and not empty:
        raise FileError(f"cannot read {where}: an array of shape {shape}, which has no entries. At least 1 is needed.")
    if count * max(dtype.itemsize, _BYTES) > most:
        raise FileError(
            f"cannot read {where}: {count} numbers take {count * _BYTES} bytes, but at most {most} are read from a file of this "
            "size. If you trust it, write it uncompressed with numpy.savez."
        )
    flat = np.empty(count, dtype)
    buffer = flat.view(np.uint8)
    for first in range(0, present, _CHUNK):
        part = file.read(min(_CHUNK, present - first))
        if len(part) < min(_CHUNK, present - first):
            raise FileError(f"cannot read {where}: it ends after {first + len(part)} of {present} bytes. {advice}")
        buffer[first : first + len(part)] = np.frombuffer(part, np.uint8)
    if file.read(1):  # which also makes zipfile compare the checksum
        raise FileError(f"cannot read {where}: more bytes than the {present} declared. {advice}")
    return flat.reshape(shape, order="F" if fortran else "C").astype(dtype.newbyteorder("="), copy=False)


def _header(file: BinaryIO, where: str, advice: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # NumPy repairs some headers, with a warning
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"format {version}, but arrays of numbers have (1, 0) or (2, 0)")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            return read(file)
    except OSError:
        raise
    except Exception as error:  # NumPy evaluates the header, which can go wrong in a dozen ways
        raise FileError(f"cannot read {where}: no array in npy format ({error}). {advice}") from error
