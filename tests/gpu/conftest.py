"""Memory of the tests on a device."""

import os

import pytest

from dmf.arrays.backend import cupy_module

from helpers import NO_CUDA


@pytest.fixture(autouse=True, scope="session")
def allocations():
    """With DMF_NO_POOL set, each array is an allocation of its own, so that compute-sanitizer sees accesses beyond its ends."""
    if NO_CUDA or not os.environ.get("DMF_NO_POOL"):
        yield
        return
    allocator = cupy_module().cuda.get_allocator()
    cupy_module().cuda.set_allocator(None)
    yield
    cupy_module().cuda.set_allocator(allocator)
