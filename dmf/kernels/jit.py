"""Compilation by Numba: on first use, kept on disk where a folder can be written to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from numba import njit

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class _Held(threading.local):
    any = False  # lock is held by this thread


_held = _Held()


def jit(**options: Any) -> Callable[[Callable], Any]:
    """Decorator that compiles a function, which then runs without the interpreter's lock.

    Numba's disk cache ignores options and constants of closures: every variant needs a `__qualname__` of its own. And it never
    finds a function again whose closure holds a compiled function: helpers are no closures.
    """
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **options}

    def decorate(function: Callable) -> Any:
        try:
            kernel = njit(cache=True, **options)(function)
        except RuntimeError:  # no folder that a cache could be kept in
            return njit(**options)(function)
        compiled, lock = kernel.compile, Path(kernel.stats.cache_path) / f"{function.__qualname__}.lock"

        def compile_once(signature: Any) -> Any:
            with _alone(lock):
                return compiled(signature)

        kernel.compile = compile_once
        return kernel

    return decorate


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """Of the processes that need a kernel at the same time one compiles it; the others wait, and load it from the disk.

    Helpers are compiled with the kernel that calls them: a thread holds one lock at most, and waits for none with it.
    """
    if fcntl is None or _held.any:
        yield
        return
    try:
        file = lock.open("w")
    except OSError:  # no folder yet, or none to write to
        yield
        return
    with file:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        _held.any = True
        try:
            yield
        finally:
            _held.any = False
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_UN)  # closing leaves it to a child that was forked in between
