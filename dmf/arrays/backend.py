"""Array namespaces, devices and dtypes: the one place that knows which array library is in use."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from mmap import mmap
from typing import Any, TypeAlias

import array_api_compat
import numpy as np

from dmf.errors import ArgumentError, BackendError, DTypeError, MissingPackageError

Array: TypeAlias = Any


def namespace(*arrays: Array) -> Any:
    """Array API namespace shared by all arrays.

    Raises
    ------
    BackendError
        If the arrays come from different libraries or lie on different devices.
    """
    if all(isinstance(a, np.ndarray) for a in arrays):  # at once: this is asked thousands of times in a short solution
        return np  # it follows the standard since version 2.1
    try:
        xp = array_api_compat.array_namespace(*arrays)
    except TypeError as error:
        kinds = sorted({f"{type(a).__module__}.{type(a).__name__}" for a in arrays})
        raise BackendError(
            f"arrays of types {', '.join(kinds)} were given together, but one call computes in one array library. "
            "Convert them to one kind first.",
            value=kinds,
        ) from error
    devices = {str(array_api_compat.device(a)) for a in arrays}
    if len(devices) > 1:
        raise BackendError(
            f"arrays on the devices {', '.join(sorted(devices))} were given together, but one call computes on one "
            "device. Move them to one device first.",
            value=sorted(devices),
        )
    return xp


def is_numpy(array: Array) -> bool:
    """Whether `array` is a NumPy array."""
    return isinstance(array, np.ndarray)


def is_sparse(data: Any) -> bool:
    """Whether `data` is a sparse matrix or array of SciPy, which is not imported to find out: that takes a tenth of a second."""
    module = sys.modules.get("scipy.sparse")
    return module is not None and module.issparse(data)


def is_cupy_sparse(data: Any) -> bool:
    """Whether `data` is a sparse matrix of CuPy."""
    return type(data).__module__.startswith("cupyx.scipy.sparse")


def library(array: Array) -> str:
    """Library of an array that dmf has kernels for: "numpy", "cupy", or "" for any other one."""
    if is_numpy(array):
        return "numpy"
    return "cupy" if array_api_compat.is_cupy_array(array) else ""


def device(array: Array) -> Any:
    """Device of an array, to pass as ``device=``."""
    return array_api_compat.device(array)


def to_host(array: Array) -> np.ndarray:
    """Copy of an array as a NumPy array (no copy if it is one)."""
    if isinstance(array, np.ndarray):
        return array
    if library(array) == "cupy":
        return array.get(order="A")  # a transpose stays one: products of the copy have the same bits
    xp = array_api_compat.array_namespace(array)
    if array_api_compat.is_array_api_strict_namespace(xp):
        return np.asarray(array_api_compat.to_device(array, xp.Device("CPU_DEVICE")))
    if array_api_compat.is_torch_array(array):
        return array.detach().cpu().numpy()
    return np.asarray(array)


def in_host_memory(array: Array) -> bool:
    """Whether an array of JAX or PyTorch lies in the memory of the host, where it can be computed with as a NumPy array."""
    if array_api_compat.is_torch_array(array):
        return array.device.type == "cpu"
    return array_api_compat.is_jax_array(array) and all(place.platform == "cpu" for place in array.devices())


def host_dtype(array: Array) -> np.dtype:
    """NumPy's dtype for that of an array; reads one number of it at most."""
    return to_host(array[tuple(slice(min(size, 1)) for size in array.shape)]).dtype


def from_host(host: np.ndarray, like: Array) -> Array:
    """Host array moved to the namespace and device of `like`, dtype kept."""
    if isinstance(like, np.ndarray):
        return host
    if array_api_compat.is_torch_array(like) and not host.flags.writeable:  # which PyTorch does not know
        host = host.copy()
    return namespace(like).asarray(host, device=device(like))


def frozen(array: Array) -> Array:
    """`array`, which is nobody else's, made read-only; as it is in libraries whose arrays can always be written to."""
    if is_numpy(array):
        array.flags.writeable = False
    return array


def kept(array: Array, given: Array) -> Array:
    """What an object keeps of an array that it was given: `array`, or a copy where the caller could still change it; read-only.

    Parameters
    ----------
    array : array
        Made from `given`, of which it may be a view.
    given : array
        What the caller passed. A NumPy array that is read-only down to its memory is not copied.
    """
    if not is_numpy(array):
        return namespace(array).asarray(array, copy=True) if array is given else array
    if is_numpy(given) and np.may_share_memory(array, given):
        array = array.copy() if _can_change(given) else array.view()
    return frozen(array)


def _can_change(array: Any) -> bool:
    """Whether somebody can write to the memory of a NumPy array."""
    while isinstance(array, np.ndarray):
        if array.flags.writeable:
            return True
        array = array.base
    return not (array is None or isinstance(array, (bytes, mmap)))


@cache
def cupy_module() -> Any:
    """CuPy, imported when it is first needed.

    Raises
    ------
    MissingPackageError
        If it is not installed, cannot be imported, or finds no device.
    """
    try:
        import cupy

        count = cupy.cuda.runtime.getDeviceCount()
    except Exception as error:  # a half-installed CuPy fails in many ways
        missing = isinstance(error, ModuleNotFoundError) and error.name == "cupy"
        what = "CuPy is not installed" if missing else f"CuPy does not work here ({type(error).__name__}: {error})"
    else:
        if count > 0:
            return cupy
        what = "CuPy finds no CUDA device"
    raise MissingPackageError(
        f"{what}, but computing on a GPU needs it. Install it for the CUDA version of the driver, "
        "with pip install 'dmf[cuda13]' or 'dmf[cuda12]', or compute on the cpu."
    )


def check_device(name: Any) -> tuple[str, int]:
    """("cpu", 0) or ("cuda", N) of a device named "cpu", "cuda" or "cuda:N".

    Raises
    ------
    ArgumentError
        For any other name, and a number that no device has.
    MissingPackageError
        See `cupy_module`.
    """
    parts = re.fullmatch(r"(cpu)|cuda(?::(\d{1,9}))?", name) if isinstance(name, str) else None
    if parts is None:
        raise ArgumentError(
            f'device={name!r}, but it is "cpu", "cuda" or "cuda:N" with the number N of a device.',
            argument="device",
            value=name,
            limit=("cpu", "cuda", "cuda:N"),
        )
    if parts[1]:
        return "cpu", 0
    index, count = int(parts[2] or 0), cupy_module().cuda.runtime.getDeviceCount()
    if index >= count:
        raise ArgumentError(
            f"device={name!r}, but this machine has {count} CUDA device{'s' * (count > 1)}, numbered from 0. Pass a number "
            f"below {count}.",
            argument="device",
            value=name,
            limit=count - 1,
        )
    return "cuda", index


def move(array: Array, name: str) -> Array:
    """Array on the device of this name (see `check_device`), dtype kept: a NumPy array for "cpu", a CuPy array for "cuda"."""
    kind, index = check_device(name)
    if kind == "cpu":
        return to_host(array)
    cupy = cupy_module()
    with cupy.cuda.Device(index):
        return cupy.asarray(array if library(array) == "cupy" else to_host(array))


def on_device_of(array: Array) -> AbstractContextManager[Any]:
    """Context in which CuPy computes on the device of `array`; nothing for other libraries."""
    return device(array) if library(array) == "cupy" else nullcontext()


def free_memory(like: Array) -> int | None:
    """Bytes that arrays such as `like` may still take: free on its device; all of the host's. None where that is unknown."""
    if library(like) == "cupy":
        cupy = cupy_module()
        with on_device_of(like):
            return int(cupy.cuda.runtime.memGetInfo()[0] + cupy.get_default_memory_pool().free_bytes())
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return None


def all_true(mask: Array) -> bool:
    """Whether all of a boolean array are true; one read by the host.

    Of CuPy's reductions, the least of integers comes compiled, and `all` takes 3 seconds of compilation.
    """
    if library(mask) == "cupy" and mask.size:
        return bool(mask.view(np.uint8).min())
    return bool(namespace(mask).all(mask))


def number(array: Array) -> float:
    """Value of an array without dimensions as a Python float; synchronises a device."""
    return float(array if isinstance(array, np.generic) else to_host(array))


def real_dtype(array: Array, argument: str) -> Any:
    """Dtype of `array` if dmf computes in it.

    Raises
    ------
    DTypeError
        If the dtype is neither float32 nor float64.
    """
    xp = namespace(array)
    if array.dtype not in (xp.float32, xp.float64):
        reason = (
            "matrices here are real. The real and the imaginary part of a complex measurement of a real matrix are two real "
            "measurements: pass both parts, one after the other. A complex matrix is for dmf.gradient_descent."
            if xp.isdtype(array.dtype, "complex floating")
            else "dmf computes in float32 or float64 and never changes a floating dtype silently. Convert it first."
        )
        raise DTypeError(
            f"{argument} has dtype {array.dtype}, but {reason}",
            argument=argument,
            value=str(array.dtype),
            limit=("float32", "float64"),
        )
    return array.dtype


def is_complex(array: Array) -> bool:
    """Whether the numbers of an array are complex."""
    kind = getattr(array.dtype, "kind", None)  # of NumPy's dtypes, without the time of a call
    return namespace(array).isdtype(array.dtype, "complex floating") if kind is None else kind == "c"


def floating(array: Array, argument: str, *, or_complex: bool = False) -> Array:
    """`array` with integers and booleans converted to float64, and float16 to float32; float32 and float64 pass unchanged.

    With `or_complex`, so do complex64 and complex128.

    Raises
    ------
    DTypeError
        For any other dtype.
    """
    xp = namespace(array)
    if or_complex and array.dtype in (xp.complex64, xp.complex128):
        return array
    if array_api_compat.is_jax_array(array) and not sys.modules["jax"].config.jax_enable_x64:
        raise BackendError(
            f"{argument} is an array of JAX, which has no float64 here, but dmf sums in float64. Call "
            "jax.config.update('jax_enable_x64', True) before any array is made.",
            argument=argument,
            value="jax_enable_x64=False",
            limit="jax_enable_x64=True",
        )
    if is_numpy(array) and array.dtype.kind in "OUSMmV":
        raise DTypeError(
            f"{argument} has dtype {array.dtype}, but numbers are needed. Convert it to float64 first.",
            argument=argument,
            value=str(array.dtype),
            limit=("float32", "float64"),
        )
    if xp.isdtype(array.dtype, ("bool", "integral")):
        return xp.astype(array, xp.float64)
    if is_numpy(array) and array.dtype == np.float16:  # exact
        return array.astype(np.float32)
    real_dtype(array, argument)
    return array


def as_array(data: Any, argument: str) -> Array:
    """`data` itself if it is an array of a known library, otherwise ``numpy.asarray(data)``.

    Of NumPy's arrays, masked entries become NaN, and bytes in the other order are put into this machine's.
    """
    if isinstance(data, np.ndarray):
        if isinstance(data, np.ma.MaskedArray):
            gone = np.ma.getmaskarray(data)
            data = np.where(gone, np.nan, data.data) if gone.any() else data.data
        return data if data.dtype.isnative else data.astype(data.dtype.newbyteorder("="))
    if array_api_compat.is_array_api_obj(data):
        return data
    try:
        return np.asarray(data)
    except ValueError as error:  # ragged sequences
        raise DTypeError(
            f"{argument} cannot be read as an array of numbers ({error}). Pass a rectangular array.",
            argument=argument,
            value=type(data).__name__,
        ) from error
