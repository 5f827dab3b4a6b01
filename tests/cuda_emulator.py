"""A stand-in for CuPy whose arrays are NumPy's and whose kernels are the CUDA sources, run on the CPU by cuda_emulator.h.

Threads run in ascending order or, with `DESCENDING` set, in descending order: kernels that lack a barrier then disagree.
Memory of `empty` is all ones (NaN, -1) and is guarded at both ends.
"""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
import types
import weakref
from functools import cache
from pathlib import Path

import numpy as np

HEADER = Path(__file__).with_name("cuda_emulator.h")
DESCENDING = False
LAUNCHED: list[str] = []  # names of the kernels that ran
_GUARD = 64  # bytes
_guarded: list[tuple[weakref.ref, np.ndarray]] = []
_recording: list | None = None

compiler = shutil.which("g++")


@cache
def _folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="dmf_emulator_"))
    weakref.finalize(_folder, shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def _library(code: str, options: tuple[str, ...]) -> ctypes.CDLL:
    names = re.findall(r'extern "C" __global__ void (\w+)\(', code)
    glue = [
        f'extern "C" const char *run_{name}(int blocks, int threads, int descending, int count, void **values, int *kinds)'
        f"{{ return emulator::run({name}, blocks, threads, descending, count, values, kinds); }}"
        for name in names
    ]
    stem = _folder() / hashlib.sha256("\n".join([code, *options]).encode()).hexdigest()[:16]
    file, library = stem.with_suffix(".cpp"), stem.with_suffix(".so")
    file.write_text("\n".join([f'#include "{HEADER}"', code, *glue]))
    flags = [
        "-shared",
        "-fPIC",
        "-O1",
        "-w",
        "-U_FORTIFY_SOURCE",
        "-Wl,-Bsymbolic",
        *options,
    ]  # a kernel may bear a name of libc
    subprocess.run([compiler, *flags, str(file), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


class _Kernel:
    def __init__(self, library, name):
        self._name, self._run = name, getattr(library, f"run_{name}")
        self._run.restype = ctypes.c_char_p

    def __call__(self, grid, block, arguments):
        if _recording is not None:
            _recording.append((self, grid, block, arguments))
            return
        kinds, values = [], []
        for argument in arguments:
            number = np.asarray(argument)
            kind = number.itemsize + 16 * (number.dtype.kind == "f")
            if isinstance(argument, np.ndarray):
                kinds.append(kind + 32)
                values.append(np.uintp(argument.ctypes.data))
            else:
                kinds.append(32 if number.dtype == np.uintp else kind)  # dmf.kernels.cuda has null pointers alone so
                values.append(argument)
        boxes = [np.atleast_1d(value) for value in values]
        pointers = (ctypes.c_void_p * len(boxes))(*(box.ctypes.data for box in boxes))
        LAUNCHED.append(self._name)
        problem = self._run(
            grid[0], block[0], int(DESCENDING), len(boxes), pointers, (ctypes.c_int * len(kinds))(*kinds)
        )
        if problem:
            raise RuntimeError(f"{self._name}: {problem.decode()}")
        _check_guards(self._name)


def _check_guards(name):
    alive = [(ref, ends) for ref, ends in _guarded if ref() is not None]
    _guarded[:] = alive
    for _, ends in alive:
        if not (np.all(ends[:_GUARD] == 255) and np.all(ends[-_GUARD:] == 255)):
            raise RuntimeError(f"{name}: wrote beyond an array")


def _empty(shape, dtype=np.float64):
    shape, dtype = ((shape,) if np.ndim(shape) == 0 else tuple(shape)), np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    buffer = np.full(size + 2 * _GUARD + 16, 255, np.uint8)
    begin = _GUARD + (-(buffer.ctypes.data + _GUARD)) % 16
    ends = buffer[begin - _GUARD : begin + size + _GUARD]
    array = np.frombuffer(memoryview(buffer)[begin : begin + size], dtype).reshape(shape).view(DeviceArray)
    _guarded.append((weakref.ref(array.base if array.base is not None else array), ends))
    return array


class DeviceArray(np.ndarray):
    """An array of `empty` or `zeros`, of a type of its own, so that what the host reads of it can be counted."""


class _Graph:
    def __init__(self, launches):
        self._launches = launches

    def launch(self, stream=None):
        LAUNCHED.append("graph")
        for kernel, *arguments in self._launches:
            kernel(*arguments)


class _Stream:
    def __init__(self, non_blocking=False):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def begin_capture(self):
        global _recording
        _recording = []

    def end_capture(self):
        global _recording
        launches, _recording = _recording, None
        return _Graph(launches)


class RawModule:
    """Compiled at once, as NVRTC does."""

    def __init__(self, code, options):
        self._library = _library(code, options)

    def get_function(self, name):
        return _Kernel(self._library, name)


def fake_cupy():
    """A module with what dmf.kernels takes from CuPy."""
    module = types.ModuleType("cupy")
    for name in (
        "all", "arange", "argsort", "ascontiguousarray", "asarray", "concatenate", "diff", "float64", "int32", "int64",
        "searchsorted", "stack", "sum",
    ):  # fmt: skip
        setattr(module, name, getattr(np, name))
    module.ndarray = type("ndarray", (), {})
    module.empty, module.RawModule = _empty, RawModule
    module.zeros = lambda shape, dtype=np.float64: np.zeros(shape, dtype).view(DeviceArray)
    runtime = types.SimpleNamespace(getDeviceCount=lambda: 1, getDevice=lambda: 0)
    module.cuda = types.SimpleNamespace(runtime=runtime, Stream=_Stream, get_current_stream=lambda: None)
    return module
