"""Blocks of components trained apart, without a word between them, are the joint run: with full observation and spectral start.

The spectral start is diagonal in the singular bases of the target, and so are all gradients: no component sees another (Kwon et
al. 2024, section 3). Independent subnetwork training (Liao et al., arXiv 2306.16484), which is biased in general, is exact there.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf

from helpers import examples


def apart(observations, network, blocks, step_size, **options):
    """Sum of the products of blocks of components, each trained on the same data as if it were alone."""
    whole = 0
    for block in blocks:
        first, *inner, last = network.weights
        part = [first[block], *(w[np.ix_(block, block)] for w in inner), last[:, block]]
        run = dmf.gradient_descent(observations, dmf.DeepLinearNetwork(part), step_size, **options)
        whole = whole + run.network.product()
    return whole


def blocks_of(rng, rank):
    """A random partition of the components."""
    cuts = np.sort(rng.choice(np.arange(1, rank), rng.integers(1, rank), replace=False))
    return np.split(rng.permutation(rank), cuts)


def a_target(rng, shape):
    target = rng.standard_normal(shape)
    return target / np.linalg.norm(target, 2)


@examples(8)
@given(seed=st.integers(0, 10**6), depth=st.integers(2, 5), rank=st.integers(2, 6), iterations=st.integers(1, 50))
def test_with_full_observation_blocks_need_no_communication(seed, depth, rank, iterations):
    """For any partition of the components, the sum of the blocks is the joint network, to 1e-14 beside the target's norm 1.

    What rounding leaves between components grows as they do: in 300 steps from layers of 0.3 to 2e-13 at most, in 60 trials.
    """
    rng = np.random.default_rng(seed)
    observations = dmf.FullMatrix(a_target(rng, (12, 9)))
    network = dmf.spectral_network(observations, rank=rank, depth=depth, scale=0.7)
    options = {"reduction": "sum", "iterations": iterations}
    joint = dmf.gradient_descent(observations, network, 0.05, **options).network.product()
    found = apart(observations, network, blocks_of(rng, rank), 0.05, **options)
    np.testing.assert_allclose(found, joint, rtol=0, atol=1e-14)


@pytest.mark.parametrize("why", ["sampled entries", "another start"])
def test_without_one_of_the_two_they_do(why):
    """Of sampled entries, and from a start that is not spectral, blocks trained apart miss the joint run by far."""
    rng = np.random.default_rng(0)
    target = a_target(rng, (12, 9))
    observations = dmf.FullMatrix(target)
    network = dmf.spectral_network(observations, rank=4, depth=3, scale=0.3)
    if why == "sampled entries":
        observations = dmf.SampledEntries.from_dense(np.where(rng.random(target.shape) < 0.6, target, np.nan))
        network = dmf.spectral_network(observations, rank=4, depth=3, scale=0.3)
    else:
        network = dmf.DeepLinearNetwork([0.3 * rng.standard_normal(w.shape) for w in network.weights])
    options = {"reduction": "sum", "iterations": 200}
    joint = dmf.gradient_descent(observations, network, 0.05, **options).network.product()
    found = apart(observations, network, [[0, 1], [2, 3]], 0.05, **options)
    assert np.linalg.norm(found - joint) > 1e-2


@examples(5)
@given(seed=st.integers(0, 10**6), depth=st.integers(4, 6), iterations=st.integers(1, 100))
def test_inner_layers_are_tied_of_themselves(seed, depth, iterations):
    """With full observation and spectral start, W_2 = ... = W_{L-1} at every step: one core does for all inner layers."""
    rng = np.random.default_rng(seed)
    observations = dmf.FullMatrix(a_target(rng, (12, 9)))
    network = dmf.spectral_network(observations, rank=4, depth=depth, scale=0.7)
    run = dmf.gradient_descent(observations, network, 0.05, reduction="sum", iterations=iterations)
    assert np.linalg.norm(run.network.weights[1] - network.weights[1]) > 1e-4
    for weight in run.network.weights[2:-1]:
        np.testing.assert_allclose(weight, run.network.weights[1], rtol=0, atol=1e-13)
