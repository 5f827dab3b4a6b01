"""Constants of the CUDA kernels fit every width; samples are cut into segments that cover them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.kernels import cuda, segments
from dmf.kernels.ridge import LEAST
from dmf.kernels.segments import cut


@pytest.mark.parametrize("name", ["sampled.cu", "ridge.cu", "descent.cu", "network.cu"])
def test_a_kernel_can_be_compiled_alone(name):
    """All that kernels share stands before the first of them."""
    whole = cuda.source(name)
    shared, *kernels = whole.split('extern "C" __global__ void ')
    assert not any(word in kernel for kernel in kernels for word in ("__device__", "#define"))
    for kernel in kernels:
        assert cuda.source(name, kernel.partition("(")[0]) == f'{shared}extern "C" __global__ void {kernel}'


@pytest.mark.parametrize("width", range(1, cuda.WIDEST_RIDGE + 1, 17))
@pytest.mark.parametrize("itemsize", [4, 8])
def test_constants_of_every_width(width, itemsize):
    """Rows are padded by whole vectors; lanes are a power of two, no thread holds more than 4 vectors, a block is whole warps."""
    length = cuda.padded_width(width)
    assert width <= length <= max(4, 2 * width)
    constants = cuda.ridge_constants(length, LEAST)
    assert length % constants["TILE"] == 0
    assert constants["THREADS"] % 32 == 0
    assert constants["THREADS"] <= cuda.BLOCK
    if width <= cuda.WIDEST:
        constants = cuda.pass_constants(length, itemsize)
        vectors, rest = divmod(length * itemsize, 16)
        assert rest == 0
        assert 32 % constants["LANES"] == 0
        assert -(-vectors // constants["LANES"]) <= 4


@given(lengths=st.lists(st.integers(0, 60), min_size=1, max_size=12), longest=st.integers(1, 25))
def test_segments_cover_every_sample_once_and_in_order(lengths, longest):
    """None is longer than allowed; slots number the segments of long rows; rows without samples have one, too."""
    starts = np.concatenate([[0], np.cumsum(lengths)])
    found = cut(starts, longest)
    covered = np.concatenate([np.arange(f, f + n) for f, n in zip(found.first, found.count, strict=True)])
    np.testing.assert_array_equal(covered, np.arange(starts[-1]))
    assert found.count.max() <= longest
    np.testing.assert_array_equal(np.unique(found.row), np.arange(len(lengths)))
    assert all(starts[r] <= f <= starts[r + 1] for r, f in zip(found.row, found.first, strict=True))
    long = np.asarray(lengths) > longest
    np.testing.assert_array_equal(found.long_row, np.flatnonzero(long))
    np.testing.assert_array_equal(found.slot >= 0, long[found.row])
    for place, row in enumerate(found.long_row):
        slots = np.arange(found.long_first[place], found.long_first[place + 1])
        np.testing.assert_array_equal(found.slot[found.row == row], slots)
    part = found.of_long_rows()
    np.testing.assert_array_equal(part.slot, np.arange(found.long_first[-1]))
    np.testing.assert_array_equal(np.flatnonzero(part.long_of(len(lengths)) >= 0), found.long_row)


def test_more_segments_than_kernels_can_number(monkeypatch):
    monkeypatch.setattr(segments, "MOST", 3)
    assert cut(np.array([0, 4, 5]), 2).row.size == 3
    with pytest.raises(dmf.errors.ArgumentError, match="cut into 4 pieces of work for the GPU") as caught:
        cut(np.array([0, 4, 7]), 2)
    assert (caught.value.value, caught.value.limit) == (4, 3)
