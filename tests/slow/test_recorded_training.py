"""Recorded steps of training, run by the emulator, follow the loop of array code."""

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dmf.arrays.backend import cupy_module
from dmf.kernels import cuda
from dmf.nonlinear import SGD, Activation, Adam, Network, perceptron, recorded, train, with_block
from dmf.solvers import Checkpoint, Outcome

import cuda_emulator
from helpers import DTYPES, seeds
from nonlinear_cases import networks, samples
from solver_cases import KilledError, assert_same_run

OPTIMIZERS = {"descent": SGD(0.1), "momentum": SGD(0.05, 0.9), "adam": Adam(0.02, 0.8, 0.95, 1e-6)}


@pytest.fixture(scope="module")
def emulator():
    """CuPy replaced by the emulator."""
    if cuda_emulator.compiler is None:
        pytest.skip("no g++, which compiles the CUDA sources for the emulator")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cupy", cuda_emulator.fake_cupy())
        patch.setattr(cuda, "source", lambda name, kernel="", whole=cuda.source: whole(name))  # compiled in one go
        cupy_module.cache_clear()
        cuda._compiled.cache_clear()
        yield
    cupy_module.cache_clear()
    cuda._compiled.cache_clear()


def both(network, data, optimizer, **options):
    """Runs by array code and by recorded steps; the latter did replay."""
    runs = [train(network, data, optimizer, **options)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded, "library", lambda array: "cupy")
        cuda_emulator.LAUNCHED.clear()
        runs.append(train(network, data, optimizer, **options))
    assert "graph" in cuda_emulator.LAUNCHED
    return runs


def assert_alike(one, other, tolerance):
    assert one.history.iteration.tolist() == other.history.iteration.tolist()
    np.testing.assert_allclose(other.history.loss, one.history.loss, rtol=tolerance, atol=tolerance)
    for a, b in zip(one.network.parameters, other.network.parameters, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(b, a, rtol=0, atol=tolerance * max(1, np.max(np.abs(a))))


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
@pytest.mark.parametrize("name", OPTIMIZERS)
@settings(max_examples=6)
@given(
    network=networks(outer_scale=2.5, activations=["relu", "tanh", "gelu"]),
    seed=seeds,
    size=st.integers(1, 13),
    decay=st.sampled_from([0.0, 0.9]),
)
def test_recorded_steps_follow_the_loop(name, loss, emulator, network, seed, size, decay):
    """Batches of any size, the last one of an epoch short; 8 steps from a network of any kind, to 1e-9 in float64."""
    options = {"loss": loss, "batch_size": size, "iterations": 8, "record_every": 3, "ema_decay": decay, "seed": seed}
    assert_alike(*both(network, samples(seed, loss=loss), OPTIMIZERS[name], **options), 1e-9)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_more_than_a_tile(dtype, emulator):
    """Products of several tiles in each direction, with sums of several parts, in the dtype of the data."""
    like, data = np.zeros(1, dtype), samples(0, count=70, inputs=40, outputs=3, dtype=dtype)
    network = with_block(perceptron((40, 36, 35, 3), like=like), width=34)
    runs = both(network, data, Adam(1e-2), batch_size=66, iterations=4)
    assert_alike(*runs, 2_000 * np.finfo(dtype).eps)
    assert runs[1].network.parameters[0].dtype == dtype


def test_the_bits_do_not_depend_on_records_or_on_the_order_of_threads(emulator, monkeypatch):
    monkeypatch.setattr(recorded, "library", lambda array: "cupy")
    network, data = with_block(perceptron((6, 5, 5, 3), "gelu")), samples(0)
    runs = []
    for record_every, descending in ((1, False), (3, False), (8, True)):
        monkeypatch.setattr(cuda_emulator, "DESCENDING", descending)
        runs.append(train(network, data, Adam(1e-2), batch_size=5, iterations=8, record_every=record_every))
    for run in runs[1:]:
        for one, other in zip(runs[0].network.parameters, run.network.parameters, strict=True):
            np.testing.assert_array_equal(one, other)
        assert run.history.loss[-1] == runs[0].history.loss[-1]


@pytest.mark.parametrize("record_every", [1, 5, 100])
def test_a_diverging_run_ends_at_its_last_finite_state(record_every, emulator):
    network, data = perceptron((6, 5, 3), seed=1), samples(0, loss="squared")
    runs = both(network, data, SGD(30.0), loss="squared", iterations=100, record_every=record_every)
    assert [run.outcome for run in runs] == [Outcome.DIVERGED] * 2
    assert runs[0].history.iteration[-1] == runs[1].history.iteration[-1]
    assert all(np.isfinite(w).all() for w in runs[1].network.parameters)


def test_infinite_weights_behind_an_activation_end_a_run(emulator):
    """The loss does not see them."""
    network, data = perceptron((6, 5, 3), "tanh", seed=1), samples(0)
    runs = both(network, data, SGD(1e308), iterations=4)
    assert runs[1].outcome is runs[0].outcome
    assert all(np.isfinite(w).all() for w in runs[1].network.parameters)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_killed_recorded_steps_go_on_to_the_same_bits(name, emulator, monkeypatch, tmp_path):
    monkeypatch.setattr(recorded, "library", lambda array: "cupy")
    problem = perceptron((6, 5, 3), seed=1), samples(0), OPTIMIZERS[name]
    options = {"batch_size": 5, "ema_decay": 0.9, "iterations": 12}

    def killed(snapshot):
        if snapshot.iteration == 7:
            raise KilledError

    with pytest.raises(KilledError):
        train(*problem, **options, callback=killed, checkpoint=Checkpoint(tmp_path / "run.npz", seconds=0))
    assert_same_run(
        train(*problem, **options), train(*problem, **options, checkpoint=tmp_path / "run.npz", resume=True)
    )


class OtherActivation(Activation):
    """Might be anything."""


@pytest.mark.parametrize(
    "layers",
    [
        lambda dense, other: [Activation("relu"), dense],
        lambda dense, other: [dense, Activation("relu"), Activation("tanh"), other],
        lambda dense, other: [dense, Activation("relu")],
        lambda dense, other: [dense, OtherActivation("relu"), other],
    ],
)
def test_other_chains_and_optimizers_are_left_to_array_code(layers, emulator, monkeypatch):
    monkeypatch.setattr(recorded, "library", lambda array: "cupy")
    plain = perceptron((6, 6, 6))
    data = samples(0, outputs=6)

    class Other(Adam):
        pass

    def steps(network, optimizer):
        return recorded.recorded_steps(network, data, optimizer, "cross-entropy", 12, 0.0)

    assert steps(Network(layers(plain.layers[0], plain.layers[2])), Adam()) is None
    assert steps(plain, Other()) is None
    monkeypatch.setattr(recorded, "_MOST_OPERATIONS", 6 * 12 * plain.n_parameters - 1)
    assert steps(plain, Adam()) is None
