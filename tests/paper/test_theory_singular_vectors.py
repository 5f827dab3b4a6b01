"""The flow of singular vectors against the flow of the layers, which knows nothing of it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

import dmf
from dmf.models.initialize import balanced_network
from dmf.theory import gradient_flow, singular_flow

from helpers import examples

seeds = st.integers(0, 2**32 - 1)


def frames(rng, d1, d2, k):
    return np.linalg.qr(rng.standard_normal((d1, k)))[0], np.linalg.qr(rng.standard_normal((d2, k)))[0].T


def layer_flow(matrix, mask, network, times):
    """End-to-end matrices of the gradient flow of all layers on the entries of `mask`."""
    shapes = [w.shape for w in network.weights]
    ends = np.cumsum([a * b for a, b in shapes])[:-1]

    def layers(y):
        return [part.reshape(shape) for part, shape in zip(np.split(y, ends), shapes, strict=True)]

    def slope(_time, y):
        weights = layers(y)
        below = [np.eye(matrix.shape[1])]
        for weight in weights:
            below.append(weight @ below[-1])
        gradient, slopes = mask * (below[-1] - matrix), []
        for weight, lower in zip(weights[::-1], below[-2::-1], strict=True):
            slopes.insert(0, -(gradient @ lower.T).ravel())
            gradient = weight.T @ gradient
        return np.concatenate(slopes)

    start = np.concatenate([w.ravel() for w in network.weights])
    path = solve_ivp(slope, (0, times[-1]), start, "DOP853", times, rtol=1e-11, atol=1e-12)
    return [dmf.DeepLinearNetwork(layers(y)).product() for y in path.y.T]


@examples(2)
@given(
    d1=st.integers(2, 5), d2=st.integers(2, 5), depth=st.integers(2, 4), share=st.sampled_from([0.6, 1.0]), seed=seeds
)
def test_the_product_follows_the_flow_of_balanced_layers(d1, d2, depth, share, seed):
    """Arora et al. 2018, theorem 1, in the singular bases; frames turn, and stay orthogonal to rounding."""
    rng = np.random.default_rng(seed)
    k = rng.integers(1, min(d1, d2) + 1)
    u, vt = frames(rng, d1, d2, k)
    matrix, mask = rng.standard_normal((d1, d2)), rng.random((d1, d2)) < share
    mask[0, 0] = True
    network = balanced_network(u, np.linspace(0.8, 0.2, k), vt, depth)
    data = matrix if share == 1 else dmf.SampledEntries(*np.nonzero(mask), matrix[mask], (d1, d2))
    times = [0.0, 0.1, 0.4]
    path = singular_flow(data, network, times)
    for index, expected in enumerate(layer_flow(matrix, mask, network, times)):
        np.testing.assert_allclose(path.product(index), expected, atol=1e-7)
        np.testing.assert_allclose(path.network(index).product(), expected, atol=1e-7)
        assert np.abs(path.u[index].T @ path.u[index] - np.eye(k)).max() < 1e-13
        assert np.abs(path.vt[index] @ path.vt[index].T - np.eye(k)).max() < 1e-13
    assert np.all(path.rotation[0] == 0)
    assert max(d1, d2) == 1 or path.rotation[-1].max() > 1e-4


def test_depth_50_learns_at_the_rate_of_its_closed_form(rng):
    """From aligned frames nothing turns, and each value follows its scalar flow: no gradient vanishes or explodes."""
    u, vt = frames(rng, 6, 5, 2)
    targets, starts, times = np.array([2.0, 1.0]), np.array([0.02, 0.01]), [0.0, 0.1, 0.4, 3.0]
    path = singular_flow((u * targets) @ vt, balanced_network(u, starts, vt, 50), times)
    for i in range(2):
        expected = gradient_flow([targets[i]], 50, starts[i] ** (1 / 50), times).values[:, 0]
        np.testing.assert_allclose(path.s[:, i], expected, rtol=1e-6)
    np.testing.assert_allclose(path.s[-1], targets, rtol=1e-4)
    assert path.rotation.max() < 1e-6


def test_depth_50_keeps_orthogonal_frames_while_they_turn(rng):
    u, vt = frames(rng, 5, 4, 2)
    matrix = rng.standard_normal((5, 2)) @ rng.standard_normal((2, 4))
    path = singular_flow(matrix, balanced_network(u, np.array([0.5, 0.3]), vt, 50), [0.0, 0.1, 1.0])
    assert path.rotation[-1].max() > 0.5
    assert np.abs(path.u[-1].T @ path.u[-1] - np.eye(2)).max() < 1e-13
    error = [np.linalg.norm(path.product(index) - matrix) for index in range(3)]
    assert error[2] < error[1] < error[0]


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"start": "network"}, "start"),
        ({"data": np.eye(3)}, "start"),
        ({"data": np.eye(4, dtype=np.float32)}, "data"),
        ({"times": []}, "times"),
        ({"times": [1.0, 0.5]}, "times"),
        ({"times": [np.nan]}, "times"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"start": dmf.DeepLinearNetwork([np.eye(4)])}, "start"),  # depth 1
        ({"start": dmf.DeepLinearNetwork([np.eye(4), 2 * np.diag([4.0, 3, 2, 1])])}, "start"),  # not balanced
        ({"start": dmf.DeepLinearNetwork([np.eye(4), np.eye(4)])}, "start"),  # not distinct
    ],
)
def test_what_has_no_flow_of_singular_vectors_is_refused(change, argument):
    diagonal = np.diag([0.8, 0.6, 0.4, 0.2])
    arguments = {"data": np.eye(4), "start": dmf.DeepLinearNetwork([diagonal, diagonal]), "times": [0.0, 1.0]} | change
    with pytest.raises(dmf.errors.ArgumentError) as caught:
        singular_flow(**arguments)
    assert caught.value.argument == argument


def test_values_of_aligned_frames_pass_each_other(rng):
    """Where nothing turns, two singular values may cross; each component keeps its vectors."""
    u, vt = frames(rng, 4, 4, 2)
    path = singular_flow((u * np.array([0.1, 2.0])) @ vt, balanced_network(u, np.array([0.6, 0.5]), vt, 2), [0.0, 60.0])
    np.testing.assert_allclose(path.s[1], [0.1, 2.0], atol=1e-4)
    assert path.rotation.max() < 1e-6


def test_a_value_that_vanishes_is_told(rng):
    """A negative target drives a component to zero, where it has no vectors left."""
    u, vt = frames(rng, 3, 3, 1)
    with pytest.raises(dmf.errors.ArgumentError, match="vanish") as caught:
        singular_flow(-(u @ vt), balanced_network(u, np.array([0.5]), vt, 2), [1e3])
    assert caught.value.argument == "times"
