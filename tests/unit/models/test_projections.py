"""Oblique projections: a left inverse of the decoder, and outputs that POD of the same rank misses."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.errors import DmfError

seeds = st.integers(0, 2**32 - 1)


def impulse_responses(n=30, steps=200, step=0.05):
    """Operator of one step, snapshots and adjoint snapshots of a chain that is stable, not normal, and driven at its far end."""
    a = np.diag(-np.linspace(0.5, 5, n)) + np.diag(np.full(n - 1, 4.0), 1)
    inputs, outputs = np.zeros((n, 1)), np.zeros((1, n))
    inputs[-5:, 0], outputs[0, :3] = [1, -2, 0.5, 1, -1], 1
    once = scipy.linalg.expm(step * a)
    states, adjoint = [inputs], [outputs.T]
    for _ in range(steps):
        states.append(once @ states[-1])
        adjoint.append(once.T @ adjoint[-1])
    return once, outputs, np.hstack(states), np.hstack(adjoint)


@given(n=st.integers(2, 12), m=st.integers(1, 12), k=st.integers(1, 12), seed=seeds, data=st.data())
def test_the_encoder_inverts_the_decoder_and_the_product_is_the_best(n, m, k, seed, data):
    """E D = I, and G^T D E X is the best approximation of G^T X of its rank."""
    rng = np.random.default_rng(seed)
    rank = data.draw(st.integers(1, min(n, m, k)))
    x, g = rng.standard_normal((n, m)), rng.standard_normal((n, k))
    projection = dmf.oblique_projection(x, g, rank)
    identity = projection.encode(projection.decoder)
    np.testing.assert_allclose(identity, np.eye(rank), atol=1e-12 * np.linalg.cond(projection.decoder))
    left, values, right = np.linalg.svd(g.T @ x, full_matrices=False)
    best = (left[:, :rank] * values[:rank]) @ right[:rank]
    reached = g.T @ projection.decode(projection.encode(x))
    np.testing.assert_allclose(reached, best, atol=1e-9 * values[0] * values[0] / values[rank - 1])
    np.testing.assert_allclose(projection.values, values[:rank], rtol=1e-9, atol=1e-12 * values[0])


def test_outputs_of_a_system_that_is_not_normal_are_kept_where_pod_loses_them():
    once, outputs, states, adjoint = impulse_responses()
    truth = (outputs @ states)[0]

    def error(decoder, encoder):
        reduced, z, response = encoder @ once @ decoder, encoder @ states[:, :1], []
        for _ in truth:
            response.append((outputs @ decoder @ z)[0, 0])
            z = reduced @ z
        return np.linalg.norm(response - truth) / np.linalg.norm(truth)

    projection = dmf.oblique_projection(states, adjoint, 8)
    principal = np.linalg.svd(states)[0][:, :8]
    np.testing.assert_allclose(projection.reduced(once), projection.encoder @ once @ projection.decoder)
    assert error(projection.decoder, projection.encoder) < 0.05 < 0.5 * error(principal, principal.T)


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        ({"snapshots": np.ones(4)}, "snapshots"),
        ({"snapshots": np.full((4, 3), np.nan)}, "snapshots"),
        ({"gradients": np.ones((5, 3))}, "gradients"),
        ({"gradients": np.ones((4, 3), np.float32)}, "gradients"),
        ({"rank": 0}, "rank"),
        ({"rank": 4}, "rank"),
        ({"rank": 2, "gradients": np.ones((4, 3))}, "rank"),
        ({"gradients": np.zeros((4, 3))}, "rank"),
    ],
)
def test_what_gives_no_projection_is_refused(change, argument, rng):
    arguments = {"snapshots": rng.standard_normal((4, 3)), "gradients": rng.standard_normal((4, 3)), "rank": 1} | change
    with pytest.raises(DmfError) as caught:
        dmf.oblique_projection(**arguments)
    assert caught.value.argument == argument


def test_states_of_another_size_are_refused(rng):
    projection = dmf.oblique_projection(rng.standard_normal((4, 3)), rng.standard_normal((4, 3)), 2)
    for call in (projection.encode, projection.reduced):
        with pytest.raises(DmfError, match="shape"):
            call(np.ones((5, 5)))
    with pytest.raises(DmfError, match="shape"):
        projection.reduced(np.ones((4, 3)))
