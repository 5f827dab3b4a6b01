"""Beyond the largest stable step: an orbit of period two (Ghosh et al. 2025)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError
from dmf.theory import stable_step_size, two_period_orbit

from helpers import examples


@examples(25)
@given(value=st.floats(0.3, 20), depth=st.integers(2, 5), excess=st.floats(1.005, 1.05))
def test_the_recursion_ends_on_the_orbit(value, depth, excess):
    """From a start beside the rest, 4,000 steps of the recursion of a component end on the two values, in turn."""
    eta = excess * stable_step_size([value], depth)
    low, high = two_period_orbit(value, depth, eta)
    assert low < value < high
    w = 0.99 * value ** (1 / depth)
    for _ in range(4_000):
        w -= eta * (w**depth - value) * w ** (depth - 1)
    ends = sorted([w**depth, (w - eta * (w**depth - value) * w ** (depth - 1)) ** depth])
    np.testing.assert_allclose(ends, [low, high], rtol=1e-6)


def test_gradient_descent_of_a_network_oscillates_between_both():
    """The top singular value of the end-to-end matrix; the second one, whose stable step is larger, rests."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((8, 2)))[0] for _ in range(2))
    target = (u * [2.0, 1.0]) @ v.T
    eta = 1.02 * stable_step_size([2.0, 1.0], 3)
    orbit = two_period_orbit(2.0, 3, eta)
    known = dmf.FullMatrix(target)
    start = dmf.spectral_network(known, 2, scale=0.3)
    values = []
    dmf.gradient_descent(
        known, start, eta, reduction="sum", iterations=2_001, record_every=1,
        callback=lambda at: values.append(np.linalg.svd(at.network.product())[1][:2]) if at.iteration >= 2_000 else None,
    )  # fmt: skip
    np.testing.assert_allclose(sorted(value[0] for value in values), orbit, rtol=1e-6)
    np.testing.assert_allclose([value[1] for value in values], 1, rtol=1e-9)


def test_up_to_the_stable_step_both_are_the_singular_value_and_far_above_there_is_none():
    assert two_period_orbit(2.0, 3, stable_step_size([2.0], 3)) == (2.0, 2.0)
    with pytest.raises(ArgumentError) as caught:
        two_period_orbit(2.0, 3, 3 * stable_step_size([2.0], 3))
    assert caught.value.argument == "step_size"
    with pytest.raises(ArgumentError) as caught:
        two_period_orbit(2.0, 1, 0.1)
    assert caught.value.argument == "depth"
