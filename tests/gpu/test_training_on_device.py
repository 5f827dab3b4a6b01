"""Training on a device: recorded steps follow the loop of array code on the host."""

import numpy as np
import pytest

from dmf.arrays.backend import cupy_module, to_host
from dmf.nonlinear import SGD, Adam, Samples, perceptron, recorded, train, with_block

from helpers import DTYPES, NO_CUDA
from nonlinear_cases import biased, samples

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(bool(NO_CUDA), reason=NO_CUDA)]
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
OPTIMIZERS = {"descent": SGD(0.1), "momentum": SGD(0.05, 0.9), "adam": Adam(0.01, 0.8, 0.95, 1e-6)}


def problem(dtype, activation="relu", loss="cross-entropy"):
    """A network with a block and samples, on the host; products of several tiles."""
    network = with_block(perceptron((70, 50, 40, 4), activation, like=np.zeros(1, dtype)), width=36, outer_scale=2.0)
    return biased(network, 0), samples(0, count=300, inputs=70, outputs=4, loss=loss, dtype=dtype)


def on_device(network, data):
    move = cupy_module().asarray
    return network.with_parameters([move(w) for w in network.parameters]), Samples(
        move(data.inputs), move(data.targets)
    )


@dtypes
@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_recorded_training_follows_the_host(name, activation, loss, dtype):
    """12 steps, over the end of an epoch; roundings are amplified by no more than a thousand."""
    network, data = problem(dtype, activation, loss)
    options = {"loss": loss, "batch_size": 64, "iterations": 12, "record_every": 5, "ema_decay": 0.9}
    here, there = (train(*pair, OPTIMIZERS[name], **options) for pair in ((network, data), on_device(network, data)))
    tolerance = 12 * 1_000 * np.finfo(dtype).eps
    np.testing.assert_allclose(there.history.loss, here.history.loss, rtol=tolerance)
    for one, other in zip(there.network.parameters, here.network.parameters, strict=True):
        np.testing.assert_allclose(to_host(one), other, rtol=0, atol=tolerance * max(1, np.max(np.abs(other))))


@dtypes
def test_recorded_training_gives_the_same_bits_twice(dtype):
    network, data = on_device(*problem(dtype))
    runs = [train(network, data, Adam(), batch_size=64, iterations=6, record_every=k) for k in (1, 6)]
    for one, other in zip(runs[0].network.parameters, runs[1].network.parameters, strict=True):
        np.testing.assert_array_equal(to_host(one), to_host(other))


def test_large_steps_are_left_to_array_code(monkeypatch):
    network, data = on_device(*problem(np.float64))
    runs = [train(network, data, Adam(), iterations=5)]
    monkeypatch.setattr(recorded, "_MOST_OPERATIONS", 0)
    assert recorded.recorded_steps(network, data, Adam(), "cross-entropy", 300, 0.0) is None
    runs.append(train(network, data, Adam(), iterations=5))
    for one, other in zip(*(run.network.parameters for run in runs), strict=True):
        np.testing.assert_allclose(to_host(one), to_host(other), rtol=0, atol=1e-10)
