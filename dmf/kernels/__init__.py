"""Hot loops, one table: what a kernel computes is defined by its reference twin, which runs on every array library.

``TABLE[name]`` holds the twin under "reference" and the fast form for an array library under that library's name. The
table is looked up when an observation object is built, never per step. To add a kernel: write the twin, the fast form,
one line here, and a case in tests/contracts/test_kernels.py; keep it only if it is at least twice as fast (1.2 times
where the twin, too, is bound by memory bandwidth).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

from dmf.arrays.backend import Array, is_complex, library


class _Forms(Mapping[str, Any]):
    """Forms of one kernel by array library; their modules, and Numba with them, are imported when a form is first taken."""

    def __init__(self, name: str, **modules: str) -> None:
        self._name, self._modules = name, modules

    def __getitem__(self, key: str) -> Any:
        return getattr(import_module(f"dmf.kernels.{self._modules[key]}"), self._name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


TABLE: dict[str, Mapping[str, Any]] = {
    "sampled_product": _Forms("sampled_product", reference="reference", numpy="cpu", cupy="gpu"),
    "SampledEntries": _Forms("SampledEntries", reference="reference", numpy="cpu", cupy="gpu"),
    "dense_residual": _Forms("dense_residual", reference="reference", numpy="dense", cupy="gpu"),
    "restricted_map": _Forms("restricted_map", reference="reference", numpy="restricted"),
}


def kernel(name: str, like: Array) -> Any:
    """Fastest form of the kernel `name` for the array library of `like`; the compiled ones are of real numbers."""
    forms, key = TABLE[name], "reference" if is_complex(like) else library(like)
    return forms[key if key in forms else "reference"]
