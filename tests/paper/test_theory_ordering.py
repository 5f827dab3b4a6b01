"""Theorem B (Kwon et al. 2024): the compressed network is ahead of the original at every iteration."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.theory import (
    Diagnostics,
    compare,
    exact_compression,
    learning_times,
    reduced_dynamics,
    separating_scale,
    stable_step_size,
)

from helpers import examples
from theory_cases import alphas, low_rank, seeds


def both(seed, size, values, depth, scale, alpha=1.0, speed=0.3, iterations=2000, decay=0.0):
    """Histories of the original network (exact compression) and of the compressed one (scalars) on one problem."""
    values = np.asarray(values)
    target = low_rank(np.random.default_rng(seed), size, size, values)
    start = dmf.orthogonal_network((size, size), depth, scale, seed=seed % 2**31)
    step = speed * stable_step_size(values, depth, alpha)
    original = exact_compression(target, start, len(values)).trajectory(step, alpha, decay, "sum", iterations)
    scalars = reduced_dynamics(values, depth, scale, step, alpha, decay, iterations)
    compressed = {
        "iteration": scalars.iteration,
        "error": scalars.error,
        "singular_values": -np.sort(-scalars.values, axis=1),
    }
    return original.history(), compressed


@examples(12)
@given(
    seed=seeds,
    depth=st.integers(2, 4),
    alpha=alphas,
    ratios=st.lists(st.floats(1.7, 3), min_size=0, max_size=2),
    extra=st.integers(1, 8),
    speed=st.floats(0.1, 0.5),
    share=st.floats(0.3, 1),
)
def test_the_compressed_network_is_ahead_within_the_assumptions(seed, depth, alpha, ratios, extra, speed, share):
    """Components learned one at a time (a small scale), a step up to half the largest stable one: at every iteration until
    all are learned ``||Wc - M||_F <= ||W - M||_F``.
    """
    values = 1 / np.cumprod([1.0, *ratios])
    scale = share * separating_scale(values, depth, outer_scale=alpha) if ratios else 0.5 * share * 0.1 ** (1 / depth)
    step = speed * stable_step_size(values, depth, alpha)
    iterations = int(2 * learning_times(values, depth, scale, step, alpha, fraction=0.99).max())
    iterations = min(max(iterations, 50), 20_000)
    original, compressed = both(seed, 2 * len(values) + extra, values, depth, scale, alpha, speed, iterations)
    result = compare(original, compressed, values)
    assert result.held
    assert result.excess <= 1e-10
    assert result.first_violation is None
    assert result.overlap["compressed"] <= 0.15  # at the time it is checked the step adds a little to the flow's 0.1


@examples(8)
@given(
    seed=seeds,
    depth=st.integers(2, 5),
    values=st.lists(st.floats(0.05, 1), min_size=1, max_size=3),
    share=st.floats(0.1, 1),
    speed=st.floats(0.05, 0.5),
)
def test_it_is_ahead_for_overlapping_components_too(seed, depth, values, share, speed):
    """Beyond the theorem, an observation: the order holds for every start below all singular values (eps^L <= s_r)."""
    values = np.sort(values)[::-1]
    scale = share * values[-1] ** (1 / depth)
    assert compare(*both(seed, 2 * len(values) + 3, values, depth, scale, speed=speed, iterations=1000)).held


@pytest.mark.parametrize(
    ("region", "problem", "options"),
    [
        ("a start above the singular values", (753198970, 16, [1, 0.955], 4, 1.4125), {}),
        ("steps that overshoot", (2, 15, [1.0], 2, 0.06), {"speed": 0.99}),
        ("steps beyond the stable ones", (2, 15, [1.0], 2, 0.1), {"speed": 1.5}),
        ("weight decay (by 4e-8)", (655, 9, [1.0], 4, 0.779), {"speed": 0.46, "decay": 0.16}),
    ],
)
def test_known_counter_examples_outside_the_assumptions(region, problem, options):
    """Factorization problems with which the order is violated."""
    result = compare(*both(*problem, **options, iterations=400))
    assert not result.held, region
    assert result.excess > 1e-8


def test_exchanged_networks_are_caught():
    """With the roles exchanged the order is violated from the start, and the excess is positive."""
    original, compressed = both(3, 9, [1.0, 0.5], 3, 0.2)
    assert compare(original, compressed).held
    result = compare(compressed, original)
    assert not result.held
    assert result.excess > 1e-3
    assert "violated" in str(result)


def test_a_compressed_network_that_is_behind_in_one_iteration_is_caught():
    original, compressed = both(3, 9, [1.0, 0.5], 3, 0.2)
    compressed = {**compressed, "error": compressed["error"].copy()}
    compressed["error"][700] = original["error"][700] + 1e-9
    result = compare(original, compressed)
    assert (result.held, result.first_violation) == (False, 700)
    assert compare(original, compressed, tolerance=1e-8).held


def test_the_assumption_is_checked():
    """At a small scale components are learned one at a time; at a large one they overlap."""
    values = [1.0, 0.5]
    small = compare(*both(1, 9, values, 3, 0.03, iterations=20_000), values)
    large = compare(*both(1, 9, values, 3, 0.5), values)
    assert small.incremental
    assert max(small.overlap.values()) < 0.1
    assert large.incremental is False
    assert "one at a time" in str(small)
    assert "overlapping" in str(large)
    assert compare(*both(1, 9, values, 3, 0.5)).incremental is None


@pytest.mark.parametrize("kind", ["completion", "sensing"])
def test_completion_and_sensing_are_compared_from_their_runs(kind):
    """`compare` takes recoveries with the columns of `Diagnostics`; well sampled and with width = rank the order held."""
    rng = np.random.default_rng(0)
    u, v = (np.linalg.qr(rng.standard_normal((16, 2)))[0] for _ in range(2))
    values, mask = np.array([1.0, 0.5]), rng.random((16, 16)) < 0.8
    target = (u * values) @ v.T
    if kind == "completion":
        observations = dmf.SampledEntries(*np.nonzero(mask), target[mask], target.shape)
    else:
        operator = rng.standard_normal((400, 16, 16)) / 20
        observations = dmf.LinearMeasurements(operator, np.tensordot(operator, target, 2))
    runs = [
        dmf.gradient_descent(
            observations,
            network,
            0.05,
            reduction="sum",
            iterations=600,
            record_every=20,
            callback=Diagnostics(target=(u, values, v.T)),
        )
        for network in (
            dmf.orthogonal_network((16, 16), 3, 0.2, seed=1),
            dmf.spectral_network(observations, 2, 3, 0.2),
        )
    ]
    result = compare(*runs, values)
    assert result.held
    assert len(result.iteration) == 31
    assert result.overlap.keys() == {"original", "compressed"}


def test_bad_input_is_named():
    good = {"iteration": [0, 1], "error": [1.0, 0.5], "singular_values": [[0.1], [0.5]]}
    with pytest.raises(dmf.errors.ArgumentError, match="compressed has no column 'error'"):
        compare(good, {"iteration": [0, 1]})
    with pytest.raises(dmf.errors.ArgumentError, match="no recorded iteration in common"):
        compare(good, {"iteration": [2], "error": [1.0]})
    with pytest.raises(dmf.errors.ShapeError, match="Record at least"):
        compare(good, good, [1.0, 0.5])
    with pytest.raises(dmf.errors.ArgumentError, match="0 < low < high < 1"):
        compare(good, good, low=0.9, high=0.1)
    assert not compare(good, {"iteration": [0, 1], "error": [1.0, np.nan]}).held
