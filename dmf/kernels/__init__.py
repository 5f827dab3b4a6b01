"""Hot loops, one table: what a kernel computes is defined by its reference twin, which runs on every array library.

``TABLE[name]`` holds the twin under "reference" and the fast form for an array library under that library's name. The
table is looked up when an observation object is built, never per step. To add a kernel: write the twin, the fast form,
one line here, and a case in tests/contracts/test_kernels.py; keep it only if it is at least twice as fast (1.2 times
where the twin, too, is bound by memory bandwidth).
"""

from __future__ import annotations

from typing import Any

from dmf.arrays.backend import Array, library
from dmf.kernels import cpu, dense, gpu, reference, restricted

TABLE: dict[str, dict[str, Any]] = {
    "sampled_product": {
        "reference": reference.sampled_product,
        "numpy": cpu.sampled_product,
        "cupy": gpu.sampled_product,
    },
    "SampledEntries": {
        "reference": reference.SampledEntries,
        "numpy": cpu.SampledEntries,
        "cupy": gpu.SampledEntries,
    },
    "dense_residual": {
        "reference": reference.dense_residual,
        "numpy": dense.dense_residual,
        "cupy": gpu.dense_residual,
    },
    "restricted_map": {"reference": reference.restricted_map, "numpy": restricted.restricted_map},
}


def kernel(name: str, like: Array) -> Any:
    """Fastest form of the kernel `name` for the array library of `like`."""
    return TABLE[name].get(library(like), TABLE[name]["reference"])
