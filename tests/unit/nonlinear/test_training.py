"""Training: optimisers against oracles, batches, averages, endings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmf import errors
from dmf.arrays.backend import to_host
from dmf.nonlinear import (
    SGD,
    Activation,
    Adam,
    Dense,
    Evaluation,
    Network,
    Samples,
    UpdateDiagnostics,
    accuracy,
    perceptron,
    train,
    with_block,
)
from dmf.solvers import Outcome

from helpers import LIBRARIES, examples, seeds
from nonlinear_cases import networks, samples

OPTIMIZERS = {"descent": SGD(0.1), "momentum": SGD(0.05, 0.9), "adam": Adam(0.02, 0.8, 0.95, 1e-6)}


def oracle(optimizer, network, data, iterations):
    """The textbook recursions, one number at a time and out of place."""
    parameters = [w.copy() for w in network.parameters]
    first, second = ([0 * w for w in parameters] for _ in range(2))
    for t in range(1, iterations + 1):
        _, gradients = network.with_parameters([w.copy() for w in parameters]).loss_and_gradients(data)
        for k, (g, rate) in enumerate(zip(gradients, network.rates, strict=True)):
            if isinstance(optimizer, SGD):
                first[k] = optimizer.momentum * first[k] + g
                change = first[k]
            else:
                first[k] = optimizer.beta1 * first[k] + (1 - optimizer.beta1) * g
                second[k] = optimizer.beta2 * second[k] + (1 - optimizer.beta2) * g**2
                mean, square = first[k] / (1 - optimizer.beta1**t), second[k] / (1 - optimizer.beta2**t)
                change = mean / (np.sqrt(square) + optimizer.epsilon)
            parameters[k] = parameters[k] - rate * optimizer.step_size * change
    return parameters


@pytest.mark.parametrize("name", OPTIMIZERS)
@given(network=networks(outer_scale=2.5), seed=seeds)
def test_optimizers_follow_the_textbook(name, network, seed):
    data = samples(seed)
    before = [w.copy() for w in network.parameters]
    run = train(network, data, OPTIMIZERS[name], iterations=8, record_every=3)
    for found, wanted in zip(run.network.parameters, oracle(OPTIMIZERS[name], network, data, 8), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-11)
    for w, kept in zip(network.parameters, before, strict=True):  # the start is nobody's to overwrite
        np.testing.assert_array_equal(w, kept)


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "silu"])
@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
def test_training_follows_pytorch(name, activation, loss):
    """The same network by automatic differentiation and PyTorch's optimisers, a block and its rates included."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.set_num_threads(1)  # its threads only wait for each other on so small a network
    data = samples(4, loss=loss)
    network = with_block(perceptron((6, 5, 4, 3), activation, seed=1), 3, outer_scale=2.0, seed=2)
    optimizer = OPTIMIZERS[name]
    theirs = [torch.tensor(w.copy(), requires_grad=True) for w in network.parameters]
    groups = [{"params": [w], "lr": optimizer.step_size * rate} for w, rate in zip(theirs, network.rates, strict=True)]
    if isinstance(optimizer, SGD):
        other = torch.optim.SGD(groups, momentum=optimizer.momentum)
    else:
        other = torch.optim.Adam(groups, betas=(optimizer.beta1, optimizer.beta2), eps=optimizer.epsilon)
    bend = {
        "relu": torch.relu,
        "tanh": torch.tanh,
        "gelu": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
        "silu": torch.nn.functional.silu,
    }[activation]
    x, y = torch.tensor(data.inputs), torch.tensor(data.targets)
    for _ in range(10):
        w, b, w1, w2, w3, c, v, d = theirs
        outputs = bend(bend(x @ w.T + b) @ (w3 @ w2 @ w1).T + c) @ v.T + d
        cost = (
            torch.nn.functional.cross_entropy(outputs, y)
            if loss == "cross-entropy"
            else ((outputs - y) ** 2).sum() / 24
        )
        other.zero_grad()
        cost.backward()
        other.step()
    run = train(network, data, optimizer, loss=loss, iterations=10)
    for found, wanted in zip(run.network.parameters, theirs, strict=True):
        np.testing.assert_allclose(found, wanted.detach().numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_rate_of_a_weight(name):
    """Half the rate is half the step size, and 0 keeps the weight; the others, and networks without biases, see no rate."""
    data, optimizer = samples(3), OPTIMIZERS[name]
    first, *rest = perceptron((6, 4, 3), "silu", biases=False, seed=1).layers
    start, halved, kept = (Network([Dense(first.weight, rate=rate), *rest]) for rate in (1.0, 0.5, 0.0))
    plain, half, still = (train(network, data, optimizer, iterations=1).network for network in (start, halved, kept))
    np.testing.assert_allclose(
        half.parameters[0] - first.weight, 0.5 * (plain.parameters[0] - first.weight), rtol=0, atol=1e-14
    )
    np.testing.assert_array_equal(still.parameters[0], first.weight)
    np.testing.assert_array_equal(half.parameters[1], plain.parameters[1])
    assert len(plain.parameters) == 2


@examples(6)
@given(seed=seeds, name=st.sampled_from(sorted(OPTIMIZERS)))
def test_every_library_trains_alike(name, seed):
    runs = []
    for move in LIBRARIES.values():
        data = samples(seed, move=move)
        network = with_block(perceptron((6, 5, 4, 3), "tanh", seed=seed, like=data.inputs), 2, seed=seed)
        runs.append(
            train(network, data, OPTIMIZERS[name], batch_size=5, iterations=7, seed=seed, callback=Evaluation(data))
        )
    assert [str(w.dtype) for w in runs[1].network.parameters] == [
        f"array_api_strict.{w.dtype}" for w in runs[0].network.parameters
    ]
    for one, other in zip(runs[0].network.parameters, runs[1].network.parameters, strict=True):
        np.testing.assert_allclose(one, to_host(other), rtol=0, atol=1e-9)
    np.testing.assert_array_equal(runs[0].history["accuracy"], runs[1].history["accuracy"])


class Recorder:
    """A layer of a user's own that changes nothing and notes the first number of each sample that passes."""

    sizes = None
    parameters = rates = ()

    def __init__(self):
        self.seen = []

    def with_parameters(self, parameters):
        return self

    def forward(self, inputs):
        self.seen.append(inputs[:, 0].copy())
        return inputs, None

    def backward(self, cache, gradient, to_inputs=True):
        return gradient, ()

    def merged(self):
        return self


@given(count=st.integers(2, 20), size=st.integers(1, 25), seed=seeds)
def test_each_epoch_takes_every_sample_once_in_a_new_order(count, size, seed):
    rng = np.random.default_rng(seed)
    inputs = rng.standard_normal((count, 3))
    inputs[:, 0] = np.arange(count)
    recorder = Recorder()
    network = Network([recorder, *perceptron((3, 2), seed=1).layers])
    steps = -(-count // size)
    train(
        network,
        Samples(inputs, rng.integers(0, 2, count)),
        SGD(0.01),
        batch_size=size,
        iterations=2 * steps - 1,
        seed=seed,
    )
    assert len(recorder.seen) == 2 * steps
    assert max(map(len, recorder.seen)) == min(size, count)
    for epoch in (recorder.seen[:steps], recorder.seen[steps:]):
        np.testing.assert_array_equal(np.sort(np.concatenate(epoch)), np.arange(count))
    if size >= count:  # full batch: as given
        np.testing.assert_array_equal(recorder.seen[0], np.arange(count))
    elif count > 12:
        assert any(not np.array_equal(a, b) for a, b in zip(recorder.seen[:steps], recorder.seen[steps:], strict=True))


@examples(6)
@given(seed=seeds, record_every=st.integers(1, 7), name=st.sampled_from(sorted(OPTIMIZERS)))
def test_a_snapshot_is_the_network_of_a_shorter_run(seed, record_every, name):
    """Records change nothing, and what a callback keeps stays as it was, though steps overwrite their arrays."""
    data, kept = samples(seed), {}
    network = perceptron((6, 4, 3), "tanh", seed=seed)
    options = {"batch_size": 5, "seed": seed}
    run = train(
        network, data, OPTIMIZERS[name], iterations=9, record_every=record_every,
        callback=lambda at: kept.update({at.iteration: at.network}), **options,
    )  # fmt: skip
    assert list(kept) == list(run.history.iteration)
    for iteration, there in kept.items():
        again = train(network, data, OPTIMIZERS[name], iterations=iteration, record_every=100, **options)
        for one, other in zip(there.parameters, again.network.parameters, strict=True):
            np.testing.assert_array_equal(one, other)
        assert again.history.loss[-1] == run.history.loss[list(kept).index(iteration)]


@examples(6)
@given(
    seed=seeds,
    ema_decay=st.floats(0.01, 0.99),
    record_every=st.integers(1, 7),
    library=st.sampled_from(sorted(LIBRARIES)),
)
def test_averages_are_weighted_means_of_all_weights_so_far(seed, ema_decay, record_every, library):
    """Weights decay**k for those of k steps ago, over their sum; the steps themselves stay as they are."""
    data, passed, averaged = samples(seed, move=LIBRARIES[library]), [], {}
    network = with_block(perceptron((6, 4, 4, 3), "tanh", seed=seed, like=data.inputs), 2, seed=seed)
    options = {"iterations": 9, "batch_size": 5, "seed": seed}
    plain = train(
        network,
        data,
        SGD(0.3, 0.5),
        callback=lambda at: passed.append([to_host(w) for w in at.network.parameters]),
        **options,
    )
    run = train(
        network, data, SGD(0.3, 0.5), ema_decay=ema_decay, record_every=record_every,
        callback=lambda at: averaged.update({at.iteration: at.network}), **options,
    )  # fmt: skip
    for iteration, there in {**averaged, 9: run.network}.items():
        of_each = ema_decay ** np.arange(iteration)[::-1] if iteration else np.ones(1)
        chosen = passed[1 : iteration + 1] if iteration else passed[:1]
        for found, *steps in zip(there.parameters, *chosen, strict=True):
            wanted = np.average(steps, axis=0, weights=of_each)
            np.testing.assert_allclose(to_host(found), wanted, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(run.history.loss, plain.history.loss[run.history.iteration])
    assert run.solver.ema_decay == ema_decay


@pytest.mark.parametrize("record_every", [1, 4, 1000])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_a_diverging_run_ends_at_its_last_finite_state(record_every, ema_decay):
    data = samples(1, loss="squared")
    network = perceptron((6, 5, 5, 3), seed=0)
    options = {"loss": "squared", "batch_size": 5, "ema_decay": ema_decay}
    run = train(network, data, SGD(3.0), iterations=1000, record_every=record_every, **options)
    last = int(run.history.iteration[-1])
    assert run.outcome is Outcome.DIVERGED and f"after iteration {last}" in run.message
    assert "smaller step_size" in run.message
    assert 0 < last < 1000
    assert np.isfinite(run.history.loss).all()
    again = train(network, data, SGD(3.0), iterations=last, record_every=1000, **options)
    assert again.outcome is Outcome.BUDGET
    for one, other in zip(run.network.parameters, again.network.parameters, strict=True):
        np.testing.assert_array_equal(one, other)
        assert np.isfinite(one).all()


def test_infinite_weights_behind_an_activation_end_a_run():
    """A ReLU turns -inf into 0: the loss is finite all along, the weights are not."""
    data = Samples(np.abs(samples(0).inputs), np.full((12, 1), -1e10))
    network = Network([Dense(np.ones((4, 6)), np.zeros(4)), Activation("relu"), Dense(np.ones((1, 4)), np.zeros(1))])
    run = train(network, data, SGD(1e308), loss="squared", iterations=10, record_every=10)
    assert run.outcome is Outcome.DIVERGED
    assert run.history.iteration[-1] == 0
    assert all(np.isfinite(w).all() for w in run.network.parameters)


def test_endings():
    """Converged, stopped by a callback, interrupted: each with the state of its iteration."""
    data, network = samples(0), perceptron((6, 4, 3), seed=0)

    def at_three(error):
        def callback(snapshot):
            if snapshot.iteration == 3:
                raise error
            return {"twice": 2 * snapshot.loss}

        return callback

    options = {"iterations": 50, "record_every": 1}
    stopped = train(network, data, SGD(0.1), callback=at_three(StopIteration("enough")), **options)
    assert stopped.outcome is Outcome.STOPPED and stopped.message.startswith("enough")
    interrupted = train(network, data, SGD(0.1), callback=at_three(KeyboardInterrupt()), **options)
    assert interrupted.outcome is Outcome.INTERRUPTED
    third = train(network, data, SGD(0.1), iterations=3)
    for run in (stopped, interrupted):
        assert run.history.iteration[-1] == 3
        np.testing.assert_array_equal(run.history["twice"][:3], 2 * run.history.loss[:3])
        for one, other in zip(run.network.parameters, third.network.parameters, strict=True):
            np.testing.assert_array_equal(one, other)
    converged = train(network, data, SGD(0.1), tolerance=float(third.history.loss[-1]), **options)
    assert converged.success and converged.history.iteration[-1] == 3


def test_learning_digits():
    """Real images, all three kinds of network, single precision."""
    pytest.importorskip("sklearn")
    from dmf.experiments.images import digits
    from dmf.nonlinear import spectral_start

    data, test = digits()
    plain = perceptron((64, 32, 32, 10), like=data.inputs)
    block = with_block(plain, 3)
    for network in (plain, block, spectral_start(block, 12, data)):
        run = train(
            network, data, SGD(0.03, 0.9), batch_size=64, iterations=200, record_every=200, callback=Evaluation(test)
        )
        assert all(w.dtype == np.float32 for w in run.network.parameters)
        assert run.history["accuracy"][0] < 0.5
        assert run.history["accuracy"][-1] > 0.94
        assert accuracy(run.network.merged(), test) == pytest.approx(run.history["accuracy"][-1], abs=0.003)


def test_evaluation_equals_the_definition():
    data = samples(2, count=50)
    network = perceptron((6, 4, 3), seed=3)
    found = train(network, data, SGD(0.1), iterations=0, callback=Evaluation(data))
    hits = np.argmax(network(data.inputs), axis=1) == data.targets
    assert found.history["accuracy"][0] == np.mean(hits)
    assert found.history["test_loss"][0] == pytest.approx(found.history.loss[0])
    assert "seconds" in found.history and len(found.history.iteration) == 1


DATA, NETWORK = samples(0), perceptron((6, 4, 3))
X, Y = DATA.inputs, DATA.targets
STEP = {"iterations": 1}
SINGLE = perceptron((6, 3), like=np.zeros(1, np.float32))
STEEP = Network([*NETWORK.layers[:-1], Dense(np.full((3, 4), 1e200), np.zeros(3))])  # its gradient overflows
FAR = samples(0, loss="squared")


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: SGD(0), errors.ArgumentError, "step_size=0"),
        (lambda: SGD(np.nan), errors.ArgumentError, "step_size=nan"),
        (lambda: SGD(0.1, 1), errors.ArgumentError, "momentum=1"),
        (lambda: SGD(0.1, -0.1), errors.ArgumentError, "momentum=-0.1"),
        (lambda: Adam(beta1=1.5), errors.ArgumentError, "beta1=1.5"),
        (lambda: Adam(beta2=1.0), errors.ArgumentError, "beta2=1.0"),
        (lambda: Adam(epsilon=0), errors.ArgumentError, "epsilon=0"),
        (lambda: train(NETWORK, DATA, SGD(0.1), batch_size=0, **STEP), errors.ArgumentError, "batch_size=0"),
        (lambda: train(NETWORK, DATA, SGD(0.1), iterations=-1), errors.ArgumentError, "iterations=-1"),
        (lambda: train(NETWORK, DATA, SGD(0.1), ema_decay=1.0, **STEP), errors.ArgumentError, "ema_decay=1.0"),
        (lambda: train(NETWORK, DATA, SGD(0.1), ema_decay=-0.5, **STEP), errors.ArgumentError, "ema_decay=-0.5"),
        (lambda: train(NETWORK, (X, Y), SGD(0.1), **STEP), errors.ArgumentError, "samples is a tuple"),
        (lambda: train(NETWORK.layers, DATA, SGD(0.1), **STEP), errors.ArgumentError, "network is a tuple"),
        (lambda: train(NETWORK, DATA, SGD(0.1), callback="print", **STEP), errors.ArgumentError, "callback='print'"),
        (lambda: train(NETWORK, DATA, SGD(0.1), callback=lambda at: 3, **STEP), errors.ArgumentError, "returned a int"),
        (lambda: UpdateDiagnostics(X, DATA, rank=2), errors.ArgumentError, "network is a ndarray"),
        (
            lambda: train(NETWORK, DATA, SGD(0.1), callback=UpdateDiagnostics(perceptron((6, 5, 3)), DATA, rank=2), **STEP),
            errors.ShapeError,
            "the start that the updates are counted from has [(5, 6), (3, 5)]",
        ),
        (lambda: train(NETWORK, DATA, SGD(0.1), record_every=0, **STEP), errors.ArgumentError, "record_every=0"),
        (lambda: train(NETWORK, DATA, SGD(0.1), seed=-1, **STEP), errors.ArgumentError, "seed=-1"),
        (lambda: train(NETWORK, DATA, SGD(0.1), loss="hinge", **STEP), errors.ArgumentError, "cross-entropy, squared"),
        (lambda: train(NETWORK, DATA, SGD(0.1), loss=["squared"], **STEP), errors.ArgumentError, "loss=['squared']"),
        (lambda: train(NETWORK, DATA, "adam", **STEP), errors.ArgumentError, "optimizer='adam'"),
        (lambda: train(NETWORK, DATA, SGD, **STEP), errors.ArgumentError, "Pass SGD(step_size) or Adam()"),
        (lambda: Adam(epsilon=1e-50).init(SINGLE.parameters), errors.ArgumentError, "epsilon=1e-50, but"),
        (lambda: UpdateDiagnostics(STEEP, FAR, rank=2, loss="squared"), errors.ObservationError, "scale the data down"),
        (lambda: train(NETWORK, DATA, SGD(0.1), loss="squared", **STEP), errors.ShapeError, "one-hot"),
        (lambda: train(NETWORK, samples(0, inputs=5), SGD(0.1), **STEP), errors.ShapeError, "takes 6 numbers"),
        (lambda: train(NETWORK, samples(0, dtype=np.float32), SGD(0.1), **STEP), errors.DTypeError, "float32"),
        (lambda: train(NETWORK, samples(0, move=LIBRARIES["strict"]), SGD(0.1), **STEP), errors.BackendError, "types"),
        (lambda: train(NETWORK, DATA, SGD(0.1), callback=Evaluation(samples(0, inputs=5)), **STEP), errors.ShapeError, "takes 6"),
        (lambda: train(NETWORK, samples(0, outputs=30), SGD(0.1), **STEP), errors.ObservationError, "3 outputs"),
        (
            lambda: train(
                perceptron((6, 3), like=np.zeros(1)).with_parameters([np.full((3, 6), 1e200), np.zeros(3)]),
                samples(0, loss="squared"), SGD(0.1), loss="squared", **STEP,
            ),
            errors.ArgumentError,
            "loss at the start is not finite",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert words in str(caught.value)


def test_activations_are_public_names():
    assert repr(Network([*perceptron((3, 2)).layers, Activation("tanh")])) == "Network(Dense (3, 2), tanh)"
