"""Evidence that training moves weights within few dimensions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.nonlinear import (
    SGD,
    Adam,
    DeepLinearBlock,
    Network,
    Samples,
    UpdateDiagnostics,
    lora,
    perceptron,
    train,
    with_block,
)

from helpers import seeds
from nonlinear_cases import samples


@given(seed=seeds, rank=st.integers(1, 3), scale=st.floats(0.02, 0.1), step_size=st.floats(0.1, 0.5))
def test_updates_of_a_linear_network_stay_in_the_predicted_subspaces(seed, rank, scale, step_size):
    """Theorem 1 of Yaras et al.: descent of an orthogonal network on a matrix of rank r moves within 2r dimensions.

    The gradient tells the matrix up to W(0), of norm scale^3, and the other dimensions shrink by scale^5 in each step: hence
    the bounds. Samples come in pairs x, -x, so that the bias stays at 0, as the theorem has none.
    """
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.standard_normal((8, rank))).Q for _ in range(2))
    inputs = np.sqrt(8) * np.concatenate([np.eye(8), -np.eye(8)])  # the loss is 1/2 ||W - M||_F^2
    network = Network([DeepLinearBlock(dmf.orthogonal_network((8, 8), 3, scale, seed=seed).weights, np.zeros(8))])
    data = Samples(inputs, inputs @ (v @ u.T))
    diagnostics = UpdateDiagnostics(network, data, rank=rank, loss="squared", count=10)
    run = train(network, data, SGD(step_size), loss="squared", iterations=60, record_every=20, callback=diagnostics)
    values, outside = run.history["update_singular_values"], run.history["energy_outside"]
    assert diagnostics.names == ("W1, factor 1", "W1, factor 2", "W1, factor 3")
    assert values.shape == (4, 3, 10)
    assert not values[0].any()
    assert not values[:, :, 8:].any()  # a weight has 8
    assert (outside < 1e-4).all()
    assert (values[1:, :, 2 * rank :] < 0.01 * values[1:, :, :1]).all()
    assert (run.history["update_effective_rank"][1:] < 2 * rank + 0.5).all()


def test_names_of_weights_and_bases_of_thin_layers():
    """Where 2r dimensions are all there are, nothing is outside."""
    data = samples(0)
    network = with_block(perceptron((6, 5, 4, 3), seed=0), 2)
    diagnostics = UpdateDiagnostics(network, data, rank=3)
    run = train(network, data, Adam(0.1), iterations=5, record_every=5, callback=diagnostics)
    assert diagnostics.names == ("W1", "W2, factor 1", "W2, factor 2", "W3")
    adapted = UpdateDiagnostics(lora(perceptron((6, 5, 3)), 2), data, rank=1)
    assert adapted.names == ("W1, factor 1", "W1, factor 2", "W2, factor 1", "W2, factor 2")
    assert run.history["energy_outside"][-1, 3] < 1e-20
    narrower = train(
        network, data, Adam(0.1), iterations=5, record_every=5, callback=UpdateDiagnostics(network, data, rank=1)
    )
    assert narrower.history["energy_outside"][-1, 3] > 1e-6
