"""Autoencoders: the encoder inverts the decoder whatever the parameters, and gradients are those of the loss."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmf.errors import DmfError
from dmf.nonlinear import Adam, BiorthogonalAutoencoder, Network, Samples, biorthogonal_autoencoder, train

seeds = st.integers(0, 2**32 - 1)


def autoencoder(rng, sizes):
    """With random parameters, F near a left inverse of D so that F D is well conditioned."""
    stages = []
    for n, r in zip(sizes, sizes[1:], strict=False):
        decoder = np.linalg.qr(rng.standard_normal((n, r)))[0]
        stages.append((decoder.T + 0.2 * rng.standard_normal((r, n)) / n**0.5, decoder, rng.standard_normal(n)))
    return BiorthogonalAutoencoder(stages)


@st.composite
def sizes(draw):
    return sorted(draw(st.lists(st.integers(1, 7), min_size=2, max_size=4)), reverse=True)


@settings(max_examples=20)
@given(sizes=sizes(), seed=seeds)
def test_encoding_undoes_decoding(sizes, seed):
    rng = np.random.default_rng(seed)
    layer = autoencoder(rng, sizes)
    z = 3 * rng.standard_normal((5, sizes[-1]))
    np.testing.assert_allclose(layer.encode(layer.decode(z)), z, atol=1e-10)
    once = layer.forward(rng.standard_normal((5, sizes[0])))[0]
    np.testing.assert_allclose(layer.forward(once)[0], once, atol=1e-9)  # a projection
    if sizes[0] == sizes[-1]:
        np.testing.assert_allclose(layer.decode(layer.encode(once)), once, atol=1e-9)


@settings(max_examples=10)
@given(sizes=sizes(), seed=seeds)
def test_gradients_equal_differences_of_the_loss(sizes, seed):
    rng = np.random.default_rng(seed)
    layer = autoencoder(rng, sizes)
    inputs, weights = rng.standard_normal((4, sizes[0])), rng.standard_normal((4, sizes[0]))
    _, cache = layer.forward(inputs)
    of_inputs, gradients = layer.backward(cache, weights.copy())
    directions = [rng.standard_normal(p.shape) for p in (inputs, *layer.parameters)]

    def loss(t):
        moved = layer.with_parameters([p + t * d for p, d in zip(layer.parameters, directions[1:], strict=True)])
        return np.sum(weights * moved.forward(inputs + t * directions[0])[0])

    step = 1e-5
    difference = (loss(step) - loss(-step)) / (2 * step)
    exact = sum(np.sum(g * d) for g, d in zip((of_inputs, *gradients), directions, strict=True))
    assert difference == pytest.approx(exact, rel=1e-5, abs=1e-6)


def test_training_keeps_the_encoder_a_left_inverse_and_beats_principal_components(rng):
    """Points near a parabola: one principal component misses what one bent coordinate can follow."""
    t = rng.uniform(-2, 2, (100, 1))
    inputs = np.concatenate([t, 0.5 * t**2, 0.1 * t], axis=1) + 0.01 * rng.standard_normal((100, 3))
    start = biorthogonal_autoencoder(inputs, (2, 1))
    z, worst = np.linspace(-1, 1, 9)[:, None], []

    def inverse(snapshot):
        layer = snapshot.network.layers[0]
        worst.append(np.abs(layer.encode(layer.decode(z)) - z).max())

    samples = Samples(inputs, inputs)
    run = train(Network([start]), samples, Adam(0.02), loss="squared", iterations=300, callback=inverse)
    assert len(worst) == 301
    assert max(worst) < 1e-10
    centred = inputs - inputs.mean(axis=0)
    left_out = np.sum(np.linalg.svd(centred, compute_uv=False)[1:] ** 2) / np.sum(centred**2)
    assert np.sum((run.network(inputs) - inputs) ** 2) / np.sum(centred**2) < 0.5 * left_out


@pytest.mark.parametrize(
    "call",
    [
        lambda: BiorthogonalAutoencoder([]),
        lambda: BiorthogonalAutoencoder([(np.eye(2), np.eye(2))]),
        lambda: BiorthogonalAutoencoder([(np.ones((3, 2)), np.ones((2, 3)), np.zeros(2))]),
        lambda: BiorthogonalAutoencoder([(np.eye(2), np.eye(2), np.zeros(3))]),
        lambda: BiorthogonalAutoencoder([(np.eye(2), np.eye(2), np.zeros(2)), (np.eye(3), np.eye(3), np.zeros(3))]),
        lambda: BiorthogonalAutoencoder([(np.eye(2), np.nan * np.eye(2), np.zeros(2))]),
        lambda: biorthogonal_autoencoder(np.ones((5, 3)), (2, 3)),
        lambda: biorthogonal_autoencoder(np.ones((5, 3)), 4),
        lambda: biorthogonal_autoencoder(np.ones((5, 3)), ()),
        lambda: biorthogonal_autoencoder(np.ones((5, 3)), (2,)).encode(np.ones((4, 2))),
        lambda: biorthogonal_autoencoder(np.ones((5, 3)), (2,)).decode(np.ones((4, 3))),
    ],
)
def test_what_is_no_autoencoder_is_refused(call):
    with pytest.raises(DmfError):
        call()
