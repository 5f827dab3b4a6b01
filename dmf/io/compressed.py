"""Compressed files as the bytes that were compressed, at most as many as the size of the file accounts for; and the way back."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

from dmf.errors import FileError
from dmf.io.arrays import most_bytes
from dmf.io.messages import package

_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


@contextlib.contextmanager
def decompressed(path: os.PathLike, file: io.BufferedReader) -> Iterator[BinaryIO]:
    """The content of a file, decompressed if it begins like one of gzip or zstd."""
    begin = file.peek(len(_ZSTD))
    if begin.startswith(_GZIP):
        source: Any = gzip.GzipFile(fileobj=file)
    elif begin.startswith(_ZSTD):
        pyarrow = package("pyarrow", path, "parquet")
        source = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, "r"), "zstd")
    else:
        yield file
        return
    try:
        yield io.BufferedReader(_Bounded(source, path))
    except (EOFError, zlib.error) as error:
        raise FileError(f"cannot read {path}: it is damaged or was cut off ({error}). Compress it again.") from error


def compressed(content: bytes, path: str | os.PathLike) -> bytes:
    """Content as a file of this name holds it: compressed by gzip or zstd where the name ends in .gz or .zst."""
    name = os.fspath(path).lower()
    if name.endswith(".gz"):
        return gzip.compress(content, mtime=0)
    if name.endswith(".zst"):
        return bytes(package("pyarrow", path, "parquet").compress(content, "zstd", asbytes=True))
    return content


class _Bounded(io.RawIOBase):
    """Reads from a stream up to the most that may come from a file of this size."""

    def __init__(self, source: Any, path: os.PathLike) -> None:
        self._source, self._path, self._left = source, path, most_bytes(path)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        content = self._source.read(len(buffer))
        self._left -= len(content)
        if self._left < 0:
            raise FileError(
                f"cannot read {self._path}: it unpacks to more than {most_bytes(self._path)} bytes, the most that are read from "
                "a file of this size. Decompress it first."
            )
        buffer[: len(content)] = content
        return len(content)
