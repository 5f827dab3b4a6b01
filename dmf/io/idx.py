"""IDX files: arrays of bytes with their sizes before them, plain or gzipped, as MNIST and its relatives are published."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from dmf.errors import FileError

_BYTES = 0x08  # the only element type that images and labels come in
_MOST_BYTES = 2**31
_CHUNK = 2**20


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an array of unsigned bytes.

    Nothing in the file is trusted: no more memory is taken than the file has content, whatever sizes it claims.

    Parameters
    ----------
    path : path
        Plain, or compressed by gzip.
    dimensions : int
        That the array must have: 3 for images, 1 for labels.

    Returns
    -------
    uint8 array

    Raises
    ------
    FileError
        If the file cannot be read, is no IDX file of bytes with that many dimensions, or is longer or shorter than it says.
    """
    try:
        with path.open("rb") as raw:
            packed = raw.read(2) == b"\x1f\x8b"
        with gzip.open(path) if packed else path.open("rb") as file:
            head = file.read(4 + 4 * dimensions)
            shape = _shape(head, dimensions, path)
            expected = math.prod(shape)
            content = bytearray()
            while len(content) <= expected and (chunk := file.read(min(_CHUNK, expected + 1 - len(content)))):
                content += chunk
    except (OSError, EOFError, zlib.error) as error:
        raise FileError(f"cannot read {path}: {error}. Pass a whole IDX file, plain or gzipped.") from error
    if len(content) != expected:
        have = "more" if len(content) > expected else f"{len(content):,}"
        raise FileError(
            f"cannot read {path}: it declares {' x '.join(map(str, shape))} = {expected:,} bytes, but holds {have}. "
            "Fetch it anew."
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _shape(head: bytes, dimensions: int, path: Path) -> tuple[int, ...]:
    if len(head) < 4 or head[:2] != b"\0\0" or head[2] != _BYTES or head[3] != dimensions:
        raise FileError(
            f"cannot read {path}: it starts with the bytes {head[:4].hex(' ') or '(none)'}, but an IDX file of unsigned bytes "
            f"with {dimensions} dimensions starts with 00 00 {_BYTES:02x} {dimensions:02x}. Pass the file of "
            f"{'labels' if dimensions == 1 else 'images'}."
        )
    if len(head) < 4 + 4 * dimensions:
        raise FileError(f"cannot read {path}: it ends within its header of {4 + 4 * dimensions} bytes. Fetch it anew.")
    shape = struct.unpack(f">{dimensions}I", head[4:])
    if not 0 < math.prod(shape) <= _MOST_BYTES:
        raise FileError(
            f"cannot read {path}: it declares {' x '.join(map(str, shape))} bytes, but 1 to {_MOST_BYTES:,} can be read. "
            "Fetch it anew, or split it into smaller files."
        )
    return shape
