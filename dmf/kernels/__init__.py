"""Hot loops, one table: what a kernel computes is defined by its reference twin, which runs on every array library.

``TABLE[name]`` holds the twin under "reference" and the fast form for an array library under that library's name. The
table is looked up when an observation object is built, never per step. To add a kernel: write the twin, the fast form,
one line here, and a case in tests/contracts/test_kernels.py; keep it only if it is at least twice as fast (1.2 times
where the twin, too, is bound by memory bandwidth).
"""

from __future__ import annotations

from typing import Any

from dmf.backend import Array, is_numpy
from dmf.kernels import cpu, dense, reference, restricted

TABLE: dict[str, dict[str, Any]] = {
    "sampled_product": {"reference": reference.sampled_product, "numpy": cpu.sampled_product},
    "SampledEntries": {"reference": reference.SampledEntries, "numpy": cpu.SampledEntries},
    "dense_residual": {"reference": reference.dense_residual, "numpy": dense.dense_residual},
    "restricted_map": {"reference": reference.restricted_map, "numpy": restricted.restricted_map},
}


def kernel(name: str, like: Array) -> Any:
    """Fastest form of the kernel `name` for the array library of `like`."""
    return TABLE[name].get("numpy" if is_numpy(like) else "", TABLE[name]["reference"])
