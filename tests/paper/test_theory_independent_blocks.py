"""Components trained apart, by workers that never talk (independent subnetwork training, arXiv 2306.16484)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.theory import stable_step_size

seeds = st.integers(0, 2**32 - 1)


def part(network, index):
    """The components `index` of a network from its spectral start, as one worker holds them."""
    first, *inner, last = network.weights
    return dmf.DeepLinearNetwork([first[index], *(w[np.ix_(index, index)] for w in inner), last[:, index]])


@settings(max_examples=10)
@given(
    d1=st.integers(3, 9), d2=st.integers(3, 9), depth=st.integers(2, 4), decay=st.sampled_from([0.0, 0.01]), seed=seeds
)
def test_full_observation_needs_no_communication(d1, d2, depth, decay, seed):
    """From the spectral start (Kwon et al., section 4) components never meet, so the sum of blocks trained apart is the whole."""
    rng = np.random.default_rng(seed)
    matrix, rank = rng.standard_normal((d1, d2)), min(d1, d2)
    observations = dmf.FullMatrix(matrix)
    start = dmf.spectral_network(observations, rank, depth, scale=0.3)
    step = 0.3 * stable_step_size(np.linalg.svd(matrix, compute_uv=False), depth, 2.0)
    options = {
        "step_size": float(step),
        "outer_scale": 2.0,
        "weight_decay": decay,
        "reduction": "sum",
        "iterations": 200,
    }
    together = dmf.gradient_descent(observations, start, **options).network.product()
    cut = int(rng.integers(1, rank))
    order = rng.permutation(rank)
    apart = [
        dmf.gradient_descent(observations, part(start, i), **options).network.product()
        for i in (order[:cut], order[cut:])
    ]
    np.testing.assert_allclose(sum(apart), together, atol=1e-13 * max(1.0, np.abs(together).max()))


@pytest.mark.parametrize("share", [0.9, 0.5])
def test_some_entries_do_need_it(share, rng):
    """Honest limit: where entries are missing, blocks meet at every step, and what is trained apart explains entries twice."""
    matrix = rng.standard_normal((30, 4)) @ rng.standard_normal((4, 30))
    mask = rng.random(matrix.shape) < share
    observations = dmf.SampledEntries(*np.nonzero(mask), matrix[mask], matrix.shape)
    start = dmf.spectral_network(observations, 4, 2, scale=0.3)
    step = 0.1 * stable_step_size(np.linalg.svd(matrix, compute_uv=False), 2)
    options = {"step_size": float(step), "reduction": "sum", "iterations": 5000}

    def error(product):
        return np.linalg.norm(product - matrix) / np.linalg.norm(matrix)

    together = error(dmf.gradient_descent(observations, start, **options).network.product())
    apart = error(
        sum(dmf.gradient_descent(observations, part(start, [k]), **options).network.product() for k in range(4))
    )
    assert together < 1e-3
    assert apart > 0.02
