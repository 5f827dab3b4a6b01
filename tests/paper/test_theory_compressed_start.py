"""The compressed start from the gradient's subspaces (Yaras et al. 2024, section 3)."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError, RankError, ShapeError
from dmf.experiments.problems import gaussian_measurements, paper_target, sample_entries
from dmf.models.gradients import loss_and_gradients
from dmf.theory import principal_angles

from helpers import examples
from theory_cases import case, seeds


@st.composite
def plain_cases(draw):
    depth, rank = draw(st.integers(2, 4)), draw(st.integers(1, 2))
    d1, d2 = (draw(st.integers(2 * rank + 1, 2 * rank + 6)) for _ in range(2))
    values = draw(st.lists(st.floats(0.2, 3), min_size=rank, max_size=rank))
    sizes = [d2, *[max(d1, d2)] * (depth - 1), d1]
    return case(draw(seeds), sizes, values, draw(st.floats(0.1, 1)), reduction=draw(st.sampled_from(["sum", "mean"])))


@examples(25)
@given(problem=plain_cases())
def test_with_everything_observed_the_core_is_the_wide_network_on_its_active_subspaces(problem):
    """Outer factors that stay: the product is the wide one's, but for the passive part, at every iteration."""
    known = dmf.FullMatrix(problem.target)
    start = dmf.compressed_start(known, problem.network, problem.rank)
    assert start.depth == problem.network.depth + 2
    options = {**problem.options, "outer_scale": 0.0}
    found = {}
    dmf.gradient_descent(
        known,
        start,
        iterations=40,
        record_every=10,
        callback=lambda at: found.update({at.iteration: at.network}),
        **options,
    )
    right, left = start.weights[0].T, start.weights[-1]
    for iteration, wide in problem.iterates(40, 10):
        if iteration not in found:  # ended early, at a loss of exactly 0
            continue
        small = found[iteration]
        np.testing.assert_array_equal(small.weights[0], right.T)
        np.testing.assert_array_equal(small.weights[-1], left)
        expected = left @ (left.T @ wide.product() @ right) @ right.T
        assert np.linalg.norm(small.product() - expected) <= 1e-10 * np.linalg.norm(problem.target)


@pytest.mark.parametrize("kind", ["entries", "measurements"])
def test_the_subspaces_are_those_of_the_gradient_at_the_start(kind):
    """Top singular subspaces of dW_1, and of its left ones what W_1 carries back, as the authors form them."""
    target = paper_target(20, 2, 0)
    observed = sample_entries(target, 0.5, 0)[0] if kind == "entries" else gaussian_measurements(target, 200, 0)
    scale = 1e-3
    wide = dmf.orthogonal_network(target.shape, 3, scale, seed=1)
    start = dmf.compressed_start(observed, wide, 2)
    assert [w.shape for w in start.weights] == [(4, 20), (4, 4), (4, 4), (4, 4), (20, 4)]
    for inner in start.weights[1:-1]:
        np.testing.assert_allclose(inner, scale * np.eye(4), atol=1e-12 * scale)
    gradient = loss_and_gradients(wide.weights, observed.evaluate)[1][0]
    u, _, vt = np.linalg.svd(gradient)
    basis = np.linalg.qr(np.concatenate([vt[:2].T, wide.weights[0].T @ u[:, :2] / scale], axis=1))[0]
    assert np.max(principal_angles(basis, start.weights[0].T)) < 1e-6
    carried = wide.product() @ start.weights[0].T / scale**3
    np.testing.assert_allclose(np.abs(start.weights[-1].T @ carried), np.eye(4), atol=1e-10)


def test_completion_from_the_compressed_start_follows_the_original_network():
    """Slow outer factors recover the matrix; frozen ones cannot, nor has a narrow random network learned it by then."""
    target = paper_target(40, 2, 0)
    seen, _ = sample_entries(target, 0.5, 0)
    wide = dmf.orthogonal_network(target.shape, seed=0)
    start = dmf.compressed_start(seen, wide, 2)
    options = {"step_size": 10.0, "tolerance": 1e-12, "record_every": 50}
    original = dmf.gradient_descent(seen, wide, iterations=4_000, **options)
    errors = {}
    for name, network, outer_scale in (
        ("slow", start, 0.1),
        ("frozen", start, 0.0),
        ("narrow", dmf.orthogonal_network(target.shape, width=4, seed=0), 1.0),
    ):
        run = dmf.gradient_descent(seen, network, iterations=original.nit + 500, outer_scale=outer_scale, **options)
        errors[name] = np.linalg.norm(run.network.product() - target) / np.linalg.norm(target)
    assert errors["slow"] < 1e-4
    assert errors["frozen"] > 0.1 < errors["narrow"]


def test_bad_arguments():
    target = paper_target(10, 2, 0)
    known = dmf.FullMatrix(target)
    with pytest.raises(RankError):
        dmf.compressed_start(known, dmf.orthogonal_network((10, 10)), 5)
    with pytest.raises(ArgumentError, match="semi-"):
        dmf.compressed_start(known, dmf.orthogonal_network((10, 10), distribution="normal"), 2)
    with pytest.raises(ShapeError):
        dmf.compressed_start(known, dmf.orthogonal_network((10, 9)), 2)
    with pytest.raises(ArgumentError) as caught:
        dmf.gradient_descent(known, dmf.orthogonal_network((10, 10)), 1.0, outer_scale=-0.1)
    assert caught.value.argument == "outer_scale"
