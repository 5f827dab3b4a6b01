"""Kernels of convolutions factored: planted ranks found, and the best approximation of these ranks."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from dmf.errors import DmfError
from dmf.nonlinear import compress_convolution

seeds = st.integers(0, 2**32 - 1)


def unfolded(tensor, mode):
    return np.moveaxis(tensor, mode, 0).reshape(tensor.shape[mode], -1)


def planted(rng, shape, ranks, noise):
    """A kernel of these ranks, and noise whose largest singular value is `noise` times the kernel's smallest; both unfoldings."""
    frames = [np.linalg.qr(rng.standard_normal((n, r)))[0] for n, r in zip(shape, ranks, strict=False)]
    core = rng.standard_normal((*ranks, *shape[2:]))
    kernel = np.einsum("oa,ib,ab...->oi...", *frames, core)
    rest = rng.standard_normal(kernel.shape)
    least = min(np.linalg.svd(unfolded(kernel, m), compute_uv=False)[ranks[m] - 1] for m in (0, 1))
    most = max(np.linalg.norm(unfolded(rest, m), 2) for m in (0, 1))
    return kernel, noise * least / most * rest


@settings(max_examples=25)
@given(out=st.integers(16, 48), into=st.integers(16, 48), data=st.data(), seed=seeds)
def test_planted_ranks_are_found(out, into, data, seed):
    """Components twice as large as the largest of the noise; 57 of 57 in larger kernels."""
    rng = np.random.default_rng(seed)
    ranks = tuple(data.draw(st.integers(1, n // 4)) for n in (out, into))
    if max(ranks) > 5 * min(ranks):
        return  # close to what a core of a 3 x 3 window can hold at all
    kernel, noise = planted(rng, (out, into, 3, 3), ranks, 0.5)
    small = compress_convolution(kernel + noise)
    assert small.ranks == ranks
    # No estimate of these ranks is closer to what it was given; the truth, which knows no noise, is not.
    assert np.linalg.norm(small.merged() - kernel - noise) <= np.linalg.norm(noise)
    assert small.noise == pytest.approx(np.linalg.norm(small.merged() - kernel - noise) / kernel.size**0.5, rel=1e-6)
    for frame in (small.outer, small.inner):
        np.testing.assert_allclose(frame.T @ frame, np.eye(frame.shape[1]), atol=1e-12)


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 3), st.integers(1, 3)),
    data=st.data(),
    seed=seeds,
)
def test_a_kernel_of_the_rank_asked_for_is_kept(shape, data, seed):
    rng = np.random.default_rng(seed)
    window = shape[2] * shape[3]
    ranks = [data.draw(st.integers(1, min(n, m * window))) for n, m in ((shape[0], shape[1]), (shape[1], shape[0]))]
    ranks = min(ranks[0], ranks[1] * window), min(ranks[1], ranks[0] * window)
    kernel, _ = planted(rng, shape, ranks, 0.0)
    np.testing.assert_allclose(compress_convolution(kernel, ranks).merged(), kernel, atol=1e-10)
    assert compress_convolution(kernel, ranks).n_parameters == sum(
        a.size for a in compress_convolution(kernel, ranks).factors
    )


def convolved(kernel, image):
    """What a convolutional layer computes, channels first: valid correlation, summed over the channels of the image."""
    return np.stack(
        [sum(scipy.signal.correlate(x, k, "valid") for x, k in zip(image, row, strict=True)) for row in kernel]
    )


def test_three_convolutions_do_what_the_merged_kernel_does(rng):
    small = compress_convolution(rng.standard_normal((5, 4, 3, 2)), (2, 3))
    image = rng.standard_normal((4, 7, 6))
    expected, found = convolved(small.merged(), image), image
    for kernel in small.factors:
        found = convolved(kernel, found)
    np.testing.assert_allclose(found, expected, atol=1e-10)


def test_single_precision_and_one_axis_are_kept(rng):
    small = compress_convolution(rng.standard_normal((6, 5, 3)).astype(np.float32), [2, 2])
    assert {a.dtype for a in small.factors} == {np.dtype(np.float32)}
    assert small.merged().shape == (6, 5, 3)
    assert compress_convolution(np.zeros((4, 4, 3, 3))).ranks == (1, 1)


@pytest.mark.parametrize(
    "arguments",
    [
        (np.ones((3, 3)),),
        (np.full((3, 3, 2, 2), np.nan),),
        (np.ones((3, 3, 2)), "pca"),
        (np.ones((3, 3, 2)), (1, 4)),
        (np.ones((3, 3, 2)), 2),
    ],
)
def test_what_is_no_kernel_or_rank_is_refused(arguments):
    with pytest.raises(DmfError):
        compress_convolution(*arguments)
