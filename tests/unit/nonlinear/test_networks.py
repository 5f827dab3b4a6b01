"""Layers, networks and losses: gradients, merging, compression, checks."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dmf import errors
from dmf.arrays.backend import to_host
from dmf.nonlinear import (
    SGD,
    Activation,
    DeepLinearBlock,
    Dense,
    Network,
    Samples,
    accuracy,
    block_gradient,
    compress,
    perceptron,
    softmax_cross_entropy,
    spectral_start,
    squared_loss,
    train,
    with_block,
)

from helpers import DTYPES, LIBRARIES, examples, seeds
from nonlinear_cases import biased, networks, samples

LOSSES = st.sampled_from(["cross-entropy", "squared"])


def shifted(network, directions, length):
    return network.with_parameters([w + length * d for w, d in zip(network.parameters, directions, strict=True)])


def bent_near_zero(network, inputs, margin):
    """Whether an input of a ReLU is so close to its kink that a difference may cross it."""
    for layer in network.layers:
        if isinstance(layer, Activation) and layer.name == "relu" and np.abs(inputs).min() < margin:
            return True
        inputs, _ = layer.forward(inputs)
    return False


@given(network=networks(), seed=seeds, loss=LOSSES)
def test_gradients_are_those_of_finite_differences(network, seed, loss):
    """Along a random direction of each parameter: (f(w + hd) - f(w - hd)) / 2h = <gradient, d> up to h^2."""
    data = samples(seed, loss=loss)
    assume(not bent_near_zero(network, data.inputs, 1e-3))
    rng = np.random.default_rng(seed)
    _, gradients = network.loss_and_gradients(data, loss)
    assert [g.shape for g in gradients] == [w.shape for w in network.parameters]
    for k, gradient in enumerate(gradients):
        directions = [0 * w for w in network.parameters]
        directions[k] = rng.standard_normal(gradient.shape) / np.sqrt(gradient.size)
        h = 1e-5
        ahead, behind = (shifted(network, directions, step).loss_and_gradients(data, loss)[0] for step in (h, -h))
        assert abs((ahead - behind) / (2 * h) - np.sum(gradient * directions[k])) < 1e-7 * (
            1 + np.linalg.norm(gradient)
        )


@given(network=networks(), seed=seeds)
def test_gradient_with_respect_to_the_inputs(network, seed):
    data = samples(seed)
    assume(not bent_near_zero(network, data.inputs, 1e-3))
    direction = np.random.default_rng(seed).standard_normal(data.inputs.shape)
    h = 1e-5
    outputs = [network.forward(data.inputs + step * direction)[0] for step in (h, -h)]
    ahead, behind = (softmax_cross_entropy(output, data.targets)[0] for output in outputs)
    output, caches = network.forward(data.inputs)
    _, gradient = softmax_cross_entropy(output, data.targets)
    for layer, cache in zip(network.layers[::-1], caches[::-1], strict=True):
        gradient, _ = layer.backward(cache, gradient)
    assert abs((ahead - behind) / (2 * h) - np.sum(gradient * direction)) < 1e-7 * (1 + np.linalg.norm(gradient))


@given(network=networks(), seed=seeds)
def test_merged_network_is_the_same_function_with_plain_weights(network, seed):
    inputs = samples(seed).inputs
    merged = network.merged()
    assert all(isinstance(layer, (Dense, Activation)) for layer in merged.layers)
    np.testing.assert_allclose(merged(inputs), network(inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@given(network=networks(), seed=seeds, loss=LOSSES)
def test_every_library_computes_the_same(dtype, network, seed, loss):
    values = {}
    for name, move in LIBRARIES.items():
        there = network.with_parameters([move(w.astype(dtype)) for w in network.parameters])
        data = samples(seed, loss=loss, dtype=dtype, move=move)
        value, gradients = there.loss_and_gradients(data, loss)
        assert all(g.dtype == w.dtype for g, w in zip(gradients, there.parameters, strict=True))
        values[name] = [to_host(array) for array in (value, there(data.inputs), *gradients)]
    for one, other in zip(*values.values(), strict=True):
        assert one.dtype == dtype
        np.testing.assert_allclose(one, other, rtol=0, atol=200 * np.finfo(dtype).eps * (1 + np.abs(one).max()))


def test_losses_at_large_outputs():
    """No overflow: logits of 1e4 are certain, or infinitely wrong by 1e4."""
    outputs = np.array([[1e4, 0.0], [0.0, 1e4]], np.float32)
    loss, gradient = softmax_cross_entropy(outputs, np.array([0, 0]))
    assert loss == np.float32(5e3)
    np.testing.assert_array_equal(gradient, [[0, 0], [-0.5, 0.5]])


@given(seed=seeds, count=st.integers(1, 5))
def test_losses_equal_their_definition(seed, count):
    rng = np.random.default_rng(seed)
    outputs, labels = rng.standard_normal((count, 4)), rng.integers(0, 4, count)
    shares = np.exp(outputs) / np.exp(outputs).sum(axis=1, keepdims=True)
    expected = -np.mean(np.log(shares[np.arange(count), labels]))
    assert softmax_cross_entropy(outputs, labels)[0] == pytest.approx(expected, rel=1e-12)
    targets = rng.standard_normal((count, 4))
    expected = np.mean([np.sum((a - b) ** 2) / 2 for a, b in zip(outputs, targets, strict=True)])
    assert squared_loss(outputs, targets)[0] == pytest.approx(expected, rel=1e-12)


@given(
    seed=seeds,
    depth=st.integers(1, 4),
    scale=st.floats(0.5, 1.1),
    outer_scale=st.floats(0.5, 2),
    momentum=st.sampled_from([0, 0.8]),
)
def test_block_compressed_to_full_width_follows_the_original(seed, depth, scale, outer_scale, momentum):
    """With r-hat = d and exact bases compression is a rotation between layers, which descent does not see."""
    data = samples(seed, count=20)
    original = with_block(
        biased(perceptron((6, 5, 5, 3), "tanh", seed=seed), seed),
        depth,
        scale=scale,
        outer_scale=outer_scale,
        seed=seed,
    )
    compressed = compress(original, 5)
    block = compressed.layers[2]
    assert isinstance(block, DeepLinearBlock) and block.outer_scale == outer_scale
    for inner in block.weights[1:-1]:
        np.testing.assert_allclose(inner, scale * np.eye(5), atol=1e-13)
    options = {"batch_size": 7, "iterations": 30, "record_every": 5, "seed": seed}
    runs = [train(network, data, SGD(0.05, momentum), **options) for network in (original, compressed)]
    np.testing.assert_allclose(runs[1].history.loss, runs[0].history.loss, rtol=0, atol=1e-9)
    np.testing.assert_allclose(runs[1].network(data.inputs), runs[0].network(data.inputs), rtol=0, atol=1e-8)
    assert np.ptp(runs[0].history.loss) > 1e-3


@given(seed=seeds, rank=st.integers(1, 4))
def test_compression_of_a_trained_block_is_its_best_approximation(seed, rank):
    rng = np.random.default_rng(seed)
    weights = [rng.standard_normal(shape) for shape in ((6, 5), (6, 6), (4, 6))]
    network = Network([DeepLinearBlock(weights, rng.standard_normal(4))])
    block = compress(network, rank, outer_scale=3).layers[0]
    assert [w.shape for w in block.weights] == [(rank, 5), (rank, rank), (4, rank)]
    assert block.rates == (3, 1, 3, 1)
    full, kept = network.merged().layers[0].weight, block.merged().weight
    tail = np.linalg.svd(full, compute_uv=False)[rank:]
    assert np.linalg.norm(full - kept) == pytest.approx(np.linalg.norm(tail), abs=1e-12)
    scales = [np.linalg.svd(w, compute_uv=False)[:rank] for w in block.weights]
    np.testing.assert_allclose(scales[0], scales[2], rtol=1e-9)


@pytest.mark.parametrize("library", LIBRARIES)
@examples(5)
@given(seed=seeds, rank=st.integers(1, 4), scale=st.floats(0.1, 1))
def test_spectral_start_lies_in_the_subspaces_of_the_gradient(library, seed, rank, scale):
    """<R, W(0)> = -scale^L times the sum of the top singular values of R: the start points straight downhill."""
    data = samples(seed, move=LIBRARIES[library])
    network = with_block(perceptron((6, 5, 4, 3), "gelu", seed=seed, like=data.inputs), 3, seed=seed)
    start = spectral_start(network, rank, data, scale=scale)
    gradient, end_to_end = (to_host(a) for a in (block_gradient(network, data), start.layers[2].merged().weight))
    values = np.linalg.svd(gradient, compute_uv=False)
    assert np.sum(gradient * end_to_end) == pytest.approx(-(scale**3) * values[:rank].sum(), rel=1e-9)
    np.testing.assert_allclose(np.linalg.svd(end_to_end, compute_uv=False)[:rank], scale**3, rtol=1e-9)
    np.testing.assert_array_equal(*(to_host(n.layers[4].weight) for n in (network, start)))


def test_block_gradient_is_that_of_the_end_to_end_matrix():
    """By the chain rule, dW_l = (W_L...W_{l+1})^T R (W_{l-1}...W_1)^T."""
    data = samples(3)
    network = with_block(perceptron((6, 5, 4, 3), "tanh", seed=1), 3, seed=2)
    w1, w2, w3 = network.layers[2].weights
    residual = block_gradient(network, data)
    _, gradients = network.loss_and_gradients(data)
    expected = [(w3 @ w2).T @ residual, w3.T @ residual @ w1.T, residual @ (w2 @ w1).T]
    for gradient, wanted in zip(gradients[2:5], expected, strict=True):
        np.testing.assert_allclose(gradient, wanted, atol=1e-14)


def test_starts_are_one_on_every_library_and_documented():
    """One seed, one start; the variance of weights is the documented one."""
    host = perceptron((400, 300, 300, 10), "relu", seed=5, like=np.zeros(1, np.float32))
    for move in LIBRARIES.values():
        there = perceptron((400, 300, 300, 10), "relu", seed=5, like=move(np.zeros(1, np.float32)))
        for one, other in zip(host.parameters, there.parameters, strict=True):
            np.testing.assert_array_equal(one, to_host(other))
    variances = [float(np.var(w)) for w in host.parameters[::2]]
    np.testing.assert_allclose(variances, [2 / 400, 2 / 300, 1 / 300], rtol=0.06)
    assert not any(np.any(b) for b in host.parameters[1::2])
    assert host.n_parameters == 400 * 300 + 300 + 300 * 300 + 300 + 3000 + 10
    block = with_block(host, 3, scale=0.5).layers[2]
    for weight in block.weights:
        np.testing.assert_allclose(weight @ weight.T, 0.25 * np.eye(300), atol=1e-5)
    assert [w.shape for w in with_block(host, 3, width=7).layers[2].weights] == [(7, 300), (7, 7), (300, 7)]


W, B = np.ones((3, 6)), np.zeros(3)
SINGLE = Dense(np.ones((2, 3), np.float32), np.zeros(2, np.float32))
STRICT = Dense(*map(LIBRARIES["strict"], (np.ones((2, 3)), np.zeros(2))))
X, Y = np.ones((4, 6)), np.array([0, 1, 2, 0])
PLAIN = perceptron((6, 5, 3))
BLOCK = with_block(PLAIN)
STEEP = Network([*BLOCK.layers[:-1], Dense(np.full((3, 5), 1e200), B)])  # its gradient overflows


class Frozen:
    """A layer of another kind, with sizes and nothing to train."""

    sizes, parameters, rates = (6, 3), (), ()

    def with_parameters(self, parameters):
        return self


@pytest.mark.parametrize(
    "call, error, words",
    [
        (lambda: Dense(W, np.zeros(4)), errors.ShapeError, "bias has shape (4,)"),
        (lambda: Dense(W, np.zeros(3, np.float32)), errors.DTypeError, "float32"),
        (lambda: Dense(W, B * np.nan), errors.ObservationError, "must be finite. Pass None"),
        (lambda: Dense(W, B, rate=-1), errors.ArgumentError, "rate=-1"),
        (lambda: Dense(W * np.inf, B), errors.ObservationError, "NaN or infinite"),
        (lambda: Dense(np.ones(3), B), errors.ShapeError, "matrix"),
        (lambda: DeepLinearBlock([W, W], B), errors.ShapeError, "W_2"),
        (lambda: DeepLinearBlock([], B), errors.ShapeError, "at least one layer"),
        (lambda: DeepLinearBlock([W], B, outer_scale=-1), errors.ArgumentError, "outer_scale=-1"),
        (lambda: Activation("swish"), errors.ArgumentError, "relu, tanh, gelu, silu"),
        (lambda: Activation(["relu"]), errors.ArgumentError, "relu, tanh, gelu, silu"),
        (lambda: Network([Frozen()]), errors.ArgumentError, "no layer has parameters"),
        (lambda: perceptron((6, 3), like=np.ones(2, np.complex128)), errors.DTypeError, "complex128"),
        (lambda: block_gradient(STEEP, Samples(X, np.ones((4, 3))), "squared"), errors.ObservationError, "Start from smaller"),
        (lambda: spectral_start(STEEP, 2, Samples(X, W.T[:4]), loss="squared"), errors.ObservationError, "scale the data down"),
        (lambda: Network([]), errors.ShapeError, "without weights"),
        (lambda: Network([W]), errors.ArgumentError, "holds ndarray"),
        (lambda: perceptron(6), errors.ShapeError, "sizes=6"),
        (lambda: Network([Activation("relu")]), errors.ShapeError, "without weights"),
        (lambda: Network([Dense(W, B), Dense(W, B)]), errors.ShapeError, "takes 6 numbers, but the one before it gives 3"),
        (lambda: Network([Dense(W, B), SINGLE]), errors.DTypeError, "one dtype"),
        (lambda: Network([Dense(W, B), STRICT]), errors.BackendError, "types"),
        (lambda: perceptron((6,)), errors.ShapeError, "two numbers"),
        (lambda: perceptron((6, 0, 3)), errors.ArgumentError, "sizes=0"),
        (lambda: perceptron((6, 3), "softplus"), errors.ArgumentError, "softplus"),
        (lambda: PLAIN(np.ones((4, 5))), errors.ShapeError, "takes 6 numbers"),
        (lambda: PLAIN(np.ones((4, 6), np.float32)), errors.DTypeError, "float32"),
        (lambda: PLAIN(X * np.nan), errors.ObservationError, "24 NaN or infinite numbers"),
        (lambda: PLAIN(X * np.nan), errors.ObservationError, "must be finite. Drop these samples"),
        (lambda: PLAIN(np.ones(6)), errors.ShapeError, "one sample in each row"),
        (lambda: PLAIN(np.ones((0, 6))), errors.ShapeError, "at least one row"),
        (lambda: PLAIN([["a"] * 6]), errors.DTypeError, "numbers are needed"),
        (lambda: PLAIN(LIBRARIES["strict"](X)), errors.BackendError, "types"),
        (lambda: Samples(X, Y[:3]), errors.ShapeError, "4 inputs"),
        (lambda: Samples(X, Y - 1), errors.ObservationError, "label -1, but labels run from 0 to 2**63 - 1. Number"),
        (lambda: Samples(X, np.array([0, 1, 2**64 - 1, 2], np.uint64)), errors.ObservationError, "label 18446744073709551615"),
        (lambda: Samples(X, Y * 1.0), errors.ShapeError, "integer labels (4,)"),
        (lambda: Samples(X, np.full((4, 3), np.inf)), errors.ObservationError, "12 NaN or infinite numbers"),
        (lambda: Samples(X, np.ones((4, 3), np.float32)), errors.DTypeError, "float32"),
        (lambda: accuracy(PLAIN, Samples(X, Y + 1)), errors.ObservationError, "label 3, but the network has 3 outputs"),
        (lambda: accuracy(PLAIN, Samples(X, np.ones((4, 3)))), errors.DTypeError, "integers"),
        (lambda: with_block(Network([Dense(W, B)])), errors.ArgumentError, "1 Dense layers"),
        (lambda: with_block(PLAIN, 0), errors.ArgumentError, "depth=0"),
        (lambda: compress(PLAIN, 2), errors.ArgumentError, "0 deep linear blocks"),
        (lambda: compress(BLOCK, 6), errors.RankError, "rank=6"),
        (lambda: compress(BLOCK, 0), errors.ArgumentError, "rank=0"),
        (lambda: spectral_start(BLOCK, 6, Samples(X, Y)), errors.RankError, "at most 5"),
        (lambda: spectral_start(BLOCK, 2, Samples(X, Y), loss="hinge"), errors.ArgumentError, "hinge"),
        (lambda: spectral_start(BLOCK, 2, Samples(X, Y), scale=0), errors.ArgumentError, "scale=0"),
        (lambda: block_gradient(BLOCK, Samples(X[:, :5], Y)), errors.ShapeError, "takes 6"),
        (lambda: spectral_start(BLOCK, 2, X), errors.ArgumentError, "samples is a ndarray, but a Samples is needed"),
        (lambda: with_block([W]), errors.ArgumentError, "network is a list, but a Network is needed"),
        (lambda: compress(None, 2), errors.ArgumentError, "network is a NoneType"),
        (lambda: block_gradient(W, Samples(X, Y)), errors.ArgumentError, "network is a ndarray"),
        (lambda: accuracy(W, Samples(X, Y)), errors.ArgumentError, "network is a ndarray"),
        (lambda: accuracy(PLAIN, (X, Y)), errors.ArgumentError, "samples is a tuple"),
        (lambda: Network(None), errors.ArgumentError, "holds NoneType"),
        (lambda: Network([PLAIN]), errors.ArgumentError, "of a Network pass the layers"),
        (lambda: Network([Dense]), errors.ArgumentError, "holds type"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert type(caught.value) is error
    assert words in str(caught.value)


def test_labels_of_few_bits():
    """Labels in bytes, more than 256 classes: no wrap-around."""
    outputs = np.zeros((1, 300))
    data = Samples(np.ones((1, 2)), np.array([3], np.uint8))
    assert data.targets.dtype == np.int64
    _, gradient = softmax_cross_entropy(outputs, data.targets)
    assert np.count_nonzero(gradient < 0) == 1


@pytest.mark.parametrize("library", LIBRARIES)
def test_weights_like_integers_are_float64(library):
    """As everywhere in dmf; in the dtype of the integers, nearly all of them would be 0."""
    move = LIBRARIES[library]
    for integers in (np.arange(3), np.array([[True]])):
        network = perceptron((6, 5, 3), seed=1, like=move(integers))
        for found, wanted in zip(network.parameters, perceptron((6, 5, 3), seed=1).parameters, strict=True):
            np.testing.assert_array_equal(to_host(found), wanted)
            assert type(found) is type(move(wanted))
