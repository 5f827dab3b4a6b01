"""CUDA sources of this folder: compiled by CuPy for a dtype and a width class, and launched."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, cupy_module, free_memory
from dmf.errors import ArgumentError

BLOCK = 256  # threads of a block, the same number as in the sources
# Padded lengths of factor rows. Each is compiled at its first use, so there are few, and near enough to pad little.
CLASSES = (4, 8, 12, 16, 20, 24, 32, 40, 48, 64, 80, 96, 128, 160, 192, 224, 256)
_WIDER = (320, 384, 448, 512)  # for ridge regressions alone
WIDEST, WIDEST_RIDGE = CLASSES[-1], _WIDER[-1]
_VECTOR_BYTES = 16
_SHARED_WIDTH = 64  # of a normal matrix of doubles that shared memory (48 KiB) holds beside the samples
_MOST_BLOCKS = 2**20  # of a launch whose threads go on to further work: far more than run at once


def padded_width(width: int) -> int:
    """Smallest class of at least `width`."""
    return next(size for size in CLASSES + _WIDER if size >= width)


def pass_constants(length: int, itemsize: int) -> dict[str, Any]:
    """Constants of sampled.cu for rows padded to `length` numbers.

    Eight threads that load vectors read a whole line of memory at once. Few of them for a row mean few steps to sum a product,
    but no thread should hold more than four vectors of a row.
    """
    vectors = length * itemsize // _VECTOR_BYTES
    lanes = next(n for n in (1, 2, 4, 8, 16, 32) if n >= min(vectors, 8) and -(-vectors // n) <= 4)
    return {"WIDTH": length, "LANES": lanes, "UNROLL": 4 if vectors <= 2 * lanes else 2}


def ridge_constants(length: int, least: int) -> dict[str, Any]:
    """Constants of ridge.cu for rows padded to `length` numbers: a thread for each tile of the normal matrix, up to 256."""
    tile = 2 if length < 32 else 4
    tiles = (length // tile) * (length // tile + 1) // 2
    return {
        "WIDTH": length,
        "TILE": tile,
        "THREADS": min(-(-tiles // 32) * 32, BLOCK),
        "STAGE": 16 if length <= _SHARED_WIDTH else 8 if length <= WIDEST else 4,
        "IN_SHARED": int(length <= _SHARED_WIDTH),
        "LEAST": least,
    }


def source(name: str, kernel: str = "") -> str:
    """Text of a CUDA source of this folder, or of one of its kernels with all that stands before the first of them."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    shared, *kernels = re.split(r'(?=extern "C" __global__ void )', text)
    return shared + "".join(code for code in kernels if not kernel or f" {kernel}(" in code.partition("{")[0])


def options(dtype: Any, constants: Iterable[tuple[str, Any]]) -> tuple[str, ...]:
    """Compiler options that set the constants of a source."""
    real = {4: "float", 8: "double"}[np.dtype(dtype).itemsize]
    return ("-std=c++17", f"-DREAL={real}", *(f"-D{name}={value}" for name, value in constants))


class Kernels:
    """Kernels of a CUDA source with its constants, each compiled when it is first launched; CuPy keeps them on disk, too."""

    def __init__(self, name: str, dtype: np.dtype, constants: tuple[tuple[str, Any], ...]) -> None:
        self._name, self._options = name, options(dtype, constants)
        self._functions: dict[str, Any] = {}

    def __getitem__(self, kernel: str) -> Any:
        if kernel not in self._functions:
            module = cupy_module().RawModule(code=source(self._name, kernel), options=self._options)
            self._functions[kernel] = module.get_function(kernel)
        return self._functions[kernel]


def compiled(name: str, dtype: Any, **constants: Any) -> Kernels:
    """Kernels of a CUDA source, the same object for the same dtype and constants on the current device."""
    return _compiled(name, np.dtype(dtype), tuple(constants.items()), cupy_module().cuda.runtime.getDevice())


@cache
def _compiled(name, dtype, constants, device_number):
    return Kernels(name, dtype, constants)


def launch(kernels: Kernels, name: str, blocks: int, *arguments: Any, threads: int = BLOCK) -> None:
    """Run a kernel on the current stream; arguments are arrays, None for a null pointer, and NumPy numbers of its types."""
    pointers = tuple(np.uintp(0) if argument is None else argument for argument in arguments)
    kernels[name]((int(blocks),), (threads,), pointers)


def blocks_for(count: int, each: int = BLOCK) -> int:
    """Blocks that it takes to work on `count` things, `each` in a block."""
    return min(max(-(-count // each), 1), _MOST_BLOCKS)


def check_memory(needed: int, what: str, like: Array) -> None:
    """Raise unless `needed` bytes for `what` are free on the device of `like`.

    Raises
    ------
    ArgumentError
        With both numbers.
    """
    free = free_memory(like)
    if free is not None and needed > free:
        raise ArgumentError(
            f"{what} takes {needed / 1e6:,.1f} MB of device memory, but {free / 1e6:,.1f} MB are free. Take float32 values, a "
            "smaller width, or NumPy arrays on the host.",
            argument="values",
            value=needed,
            limit=free,
        )
