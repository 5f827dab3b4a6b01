"""Compilation by Numba: on first use, kept on disk where a folder can be written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


def jit(**options: Any) -> Callable[[Callable], Any]:
    """Decorator that compiles a function, which then runs without the interpreter's lock.

    Numba's disk cache ignores options and constants of closures: every variant needs a `__qualname__` of its own. And it never
    finds a function again whose closure holds a compiled function: helpers are no closures.
    """
    options = {"nogil": True, "error_model": "numpy", "no_cfunc_wrapper": True, **options}

    def decorate(function: Callable) -> Any:
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # no folder that a cache could be kept in
            return njit(**options)(function)

    return decorate
