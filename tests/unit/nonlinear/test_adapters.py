"""Low-rank adapters: gradients, merging, frozen parts, ranks, starts."""

import importlib.util
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.nonlinear import (
    SGD,
    Adam,
    DeepLinearBlock,
    Dense,
    LowRankAdapter,
    Network,
    Samples,
    accuracy,
    deep_lora,
    deep_lora_factors,
    lora,
    lora_factors,
    perceptron,
    train,
    with_block,
)

from helpers import examples, on_device1, seeds

EPS = np.finfo(float).eps


def adapter(seed, d_out, d_in, rank, inner, outer_rate=1.0, move=np.asarray):
    """An adapter with Gaussian weight, bias and factors; `inner` square factors between the outer two."""
    rng = np.random.default_rng(seed)
    shapes = [(rank, d_in), *[(rank, rank)] * inner, (d_out, rank)]
    factors = tuple(move(rng.standard_normal(shape) / shape[1] ** 0.5) for shape in shapes)
    return LowRankAdapter(
        move(rng.standard_normal((d_out, d_in))), move(rng.standard_normal(d_out)), factors, outer_rate
    )


def case(seed, sizes=(6, 5, 4), count=12):
    """A perceptron with biases, and samples."""
    rng = np.random.default_rng(seed)
    start = perceptron(sizes, "tanh", seed=seed)
    network = Network(
        start.with_parameters(
            [w if w.ndim > 1 else 0.3 * rng.standard_normal(w.shape) for w in start.parameters]
        ).layers
    )
    return network, Samples(rng.standard_normal((count, sizes[0])), rng.integers(0, sizes[-1], count))


def moved(network, change):
    """The network with `change` added to its parameters, all in one vector."""
    parts, start = [], 0
    for array in network.parameters:
        parts.append(array + change[start : start + array.size].reshape(array.shape))
        start += array.size
    return network.with_parameters(parts)


adapters = st.builds(
    adapter,
    seed=seeds,
    d_out=st.integers(1, 7),
    d_in=st.integers(1, 7),
    rank=st.integers(1, 4),
    inner=st.integers(1, 3),
    outer_rate=st.sampled_from([0.0, 0.01, 1.0]),
)


@given(seed=seeds, layer=adapters, below=st.booleans())
def test_gradients_are_those_of_finite_differences(seed, layer, below):
    """In a random direction of all trained factors, with a trained layer below that gets its gradient through the adapter."""
    rng = np.random.default_rng(seed)
    d_in, d_out = layer.sizes
    first = [Dense(rng.standard_normal((d_in, 3)), rng.standard_normal(d_in))] if below else []
    network = Network([*first, layer])
    samples = Samples(rng.standard_normal((8, network.sizes[0])), rng.standard_normal((8, d_out)))
    _, gradients = network.loss_and_gradients(samples, "squared")
    assert [g.shape for g in gradients] == [w.shape for w in network.parameters]
    direction = rng.standard_normal(network.n_parameters)
    direction /= np.linalg.norm(direction)
    step = 1e-5
    ahead, behind = (
        float(moved(network, sign * step * direction).loss_and_gradients(samples, "squared")[0]) for sign in (1, -1)
    )
    slope = float(np.concatenate([g.ravel() for g in gradients]) @ direction)
    size = np.sqrt(sum(np.sum(g**2) for g in gradients))
    assert abs((ahead - behind) / (2 * step) - slope) <= 1e-6 * (1 + size + abs(ahead))


@given(layer=adapters, seed=seeds)
def test_merged_equals_unmerged(layer, seed):
    inputs = np.random.default_rng(seed).standard_normal((9, layer.sizes[0]))
    merged = layer.merged()
    assert isinstance(merged, Dense)
    expected, _ = layer.forward(inputs)
    update = merged.weight - layer.weight
    np.testing.assert_allclose(
        Network([merged])(inputs), expected, rtol=0, atol=1e3 * EPS * (1 + np.abs(expected).max())
    )
    assert np.linalg.matrix_rank(update, tol=1e-10 * (1 + np.linalg.norm(update))) <= layer.rank


@given(seed=seeds, outer_rate=st.sampled_from([0.0, 0.01, 1.0]), optimizer=st.sampled_from([SGD(0.1, 0.9), Adam(0.01)]))
@examples(10)
def test_training_moves_the_factors_alone_and_the_outer_ones_by_gamma(seed, outer_rate, optimizer):
    """Weight and bias stay, the update keeps its rank; with gamma = 0 so do U and V."""
    network, samples = case(seed)
    start = deep_lora(network, 2, samples, scale=0.5, outer_rate=outer_rate)
    end = train(start, samples, optimizer, iterations=20).network
    for before, after, plain in zip(start.layers[::2], end.layers[::2], network.layers[::2], strict=True):
        assert after.weight is before.weight is plain.weight
        assert after.bias is before.bias is plain.bias
        update = after.merged().weight - plain.weight
        assert np.linalg.matrix_rank(update, tol=1e-12) <= 2
        changes = [np.linalg.norm(b - a) for a, b in zip(before.factors, after.factors, strict=True)]
        outer, inner = (changes[0], changes[-1]), changes[1:-1]
        assert min(inner) > 0
        assert (max(outer) == 0) == (outer_rate == 0)
        if outer_rate == 0.01:
            assert max(outer) < 0.5 * max(inner)


def test_gamma_zero_is_not_counted_as_trained():
    network, samples = case(0)
    ranks = [2, 2]
    frozen = deep_lora(network, 2, samples, outer_rate=0)
    assert frozen.n_parameters == sum(3 * r * r for r in ranks)
    assert frozen.rates == (1.0,) * 6
    whole = deep_lora(network, 2, samples, outer_rate=0.01)
    assert whole.n_parameters == frozen.n_parameters + sum(
        r * (a + b) for r, (a, b) in zip(ranks, ((6, 5), (5, 4)), strict=True)
    )
    assert whole.rates == (0.01, 1.0, 1.0, 1.0, 0.01) * 2


@pytest.mark.parametrize("below", [False, True])
def test_gamma_zero_computes_no_gradient_of_the_outer_factors(below):
    """Nothing asks for their inputs."""
    layer = adapter(0, 4, 5, 2, 2, outer_rate=0.0)
    rng = np.random.default_rng(1)
    _, cache = layer.forward(rng.standard_normal((7, 5)))
    slope = rng.standard_normal((7, 4))
    inputs, gradients = layer.backward([None, *cache[1:-1], None], slope, below)
    whole = adapter(0, 4, 5, 2, 2).backward(cache, slope, below)
    assert (inputs is None) == (not below)
    if below:
        np.testing.assert_array_equal(inputs, whole[0])
    assert len(gradients) == 2
    for found, wanted in zip(gradients, whole[1][1:-1], strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(seed=seeds, step_size=st.floats(1e-3, 0.1))
@examples(10)
def test_lora_is_a_block_of_depth_two_beside_the_frozen_weight(seed, step_size):
    """LoRA on a zero weight follows the trajectory of the deep linear block of depth 2 with the same factors."""
    rng = np.random.default_rng(seed)
    samples = Samples(rng.standard_normal((10, 5)), rng.standard_normal((10, 4)))
    zero, bias = np.zeros((4, 5)), np.zeros(4)
    factors = lora_factors(zero, 3, seed=seed)
    block = DeepLinearBlock(factors, bias)
    plain = Network([LowRankAdapter(zero, bias, factors)])
    for _ in range(10):
        _, gradients = plain.loss_and_gradients(samples, "squared")
        _, expected = Network([block]).loss_and_gradients(samples, "squared")
        for mine, theirs in zip(gradients, expected[:-1], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)
        weights = [w - step_size * g for w, g in zip(plain.parameters, gradients, strict=True)]
        plain, block = plain.with_parameters(weights), block.with_parameters((*weights, bias))


@given(seed=seeds, rank=st.integers(1, 5), scale=st.floats(0.1, 3))
def test_lora_starts_as_the_network(seed, rank, scale):
    network, samples = case(seed)
    adapted = lora(network, rank, scale=scale, seed=seed % 1000)
    np.testing.assert_array_equal(adapted(samples.inputs), network(samples.inputs))
    assert [layer.rank for layer in adapted.layers[::2]] == [min(rank, 5), min(rank, 4)]


def test_the_rows_of_a_have_the_norm_asked_for():
    a, b = lora_factors(np.zeros((30, 400)), 20, scale=0.5)
    assert np.abs(np.linalg.norm(a, axis=1) - 0.5).max() < 0.1
    assert not b.any()


@given(seed=seeds, rank=st.integers(1, 4), depth=st.integers(1, 4), scale=st.floats(0.05, 0.5))
def test_deep_lora_starts_along_descent(seed, rank, depth, scale):
    """U, V are orthonormal and diagonalise minus the gradient: the start is ``scale^depth U V^T``, which lowers the loss."""
    gradient = np.random.default_rng(seed).standard_normal((6, 4))
    vt, *inner, u = deep_lora_factors(gradient, rank, depth=depth, scale=scale)
    assert len(inner) == depth
    np.testing.assert_allclose(u.T @ u, np.eye(rank), rtol=0, atol=1e2 * EPS)
    np.testing.assert_allclose(vt @ vt.T, np.eye(rank), rtol=0, atol=1e2 * EPS)
    values = np.linalg.svd(gradient, compute_uv=False)[:rank]
    np.testing.assert_allclose(u.T @ gradient @ vt.T, -np.diag(values), rtol=0, atol=1e3 * EPS * values[0])
    update = LowRankAdapter(np.zeros((6, 4)), np.zeros(6), (vt, *inner, u)).merged().weight
    np.testing.assert_allclose(update, scale**depth * u @ vt, rtol=0, atol=1e2 * EPS)
    assert np.sum(update * gradient) < 0


@given(seed=seeds)
@examples(10)
def test_deep_lora_takes_the_gradient_of_each_weight(seed):
    """Of each layer, by finite differences: the loss falls at the rate of the sum of the gradient's top singular values."""
    network, samples = case(seed)
    adapted = deep_lora(network, 2, samples, scale=1e-2)
    for place in (0, 2):
        update = adapted.layers[place].merged().weight - network.layers[place].weight
        layers = list(network.layers)
        layers[place] = Dense(layers[place].weight + update, layers[place].bias)
        base, gradients = network.loss_and_gradients(samples)
        change = float(Network(layers).loss_and_gradients(samples)[0] - base)
        predicted = -1e-6 * np.linalg.svd(gradients[place], compute_uv=False)[:2].sum()
        assert abs(change - predicted) <= 1e-3 * abs(predicted) + 1e-13


def test_other_factors_are_merged_first():
    network, samples = case(3)
    block = with_block(network, 3)
    twice = lora(lora(block, 2), 1)
    assert [type(layer).__name__ for layer in twice.layers] == ["LowRankAdapter", "Activation", "LowRankAdapter"]
    np.testing.assert_allclose(twice(samples.inputs), block(samples.inputs), rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", ["lora", "deep"])
def test_adapters_run_on_other_arrays(kind):
    """Strict arrays on another device follow the same trajectory as NumPy's, whatever the library."""
    ends = []
    for move in (np.asarray, on_device1):
        network, samples = case(5)
        network = network.with_parameters([move(w) for w in network.parameters])
        samples = Samples(move(samples.inputs), move(samples.targets))
        start = lora(network, 3, seed=1) if kind == "lora" else deep_lora(network, 3, samples, scale=0.4)
        end = train(start, samples, Adam(0.02), iterations=15).network
        ends.append(to_host(end.merged()(samples.inputs)))
        assert 0 <= accuracy(end, samples) <= 1
    np.testing.assert_allclose(ends[0], ends[1], rtol=0, atol=1e-9)


GOOD = {"weight": np.ones((4, 5)), "bias": np.zeros(4), "factors": (np.ones((2, 5)), np.ones((2, 2)), np.ones((4, 2)))}


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"factors": (np.ones((4, 2)), np.ones((2, 5)))}, dmf.errors.DmfError, "W_2"),
        ({"factors": (np.ones((2, 6)), np.ones((4, 2)))}, dmf.errors.ShapeError, "(4, 6)"),
        ({"factors": (np.ones((4, 5)),)}, dmf.errors.ArgumentError, "1 factors"),
        ({"factors": GOOD["factors"][::2], "outer_rate": 0}, dmf.errors.ArgumentError, "outer_rate=0"),
        ({"factors": (np.full((2, 5), np.nan), np.ones((4, 2)))}, dmf.errors.ObservationError, "NaN"),
        ({"factors": (np.ones((2, 5), np.float32), np.ones((4, 2), np.float32))}, dmf.errors.DTypeError, "float32"),
        ({"factors": (on_device1(np.ones((2, 5))), on_device1(np.ones((4, 2))))}, dmf.errors.BackendError, "array"),
        ({"bias": np.zeros(5)}, dmf.errors.ShapeError, "bias"),
        ({"weight": np.ones(5)}, dmf.errors.ShapeError, "matrix"),
        ({"outer_rate": -1}, dmf.errors.ArgumentError, "outer_rate=-1"),
        ({"outer_rate": np.nan}, dmf.errors.ArgumentError, "outer_rate=nan"),
    ],
)
def test_bad_layers(change, error, words):
    with pytest.raises(error) as caught:
        LowRankAdapter(**(GOOD | change))
    assert words in str(caught.value)


class Scaled:
    """A layer of another kind."""

    sizes, parameters, rates = (6, 6), (np.ones(6),), (1.0,)

    def with_parameters(self, parameters):
        return self

    def merged(self):
        return self


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda n, s: lora(n, 6), dmf.errors.RankError, "rank=6"),
        (lambda n, s: lora(n, 0), dmf.errors.ArgumentError, "rank=0"),
        (lambda n, s: lora(n, 2.5), dmf.errors.ArgumentError, "rank=2.5"),
        (lambda n, s: lora(n, 2, scale=0), dmf.errors.ArgumentError, "scale=0"),
        (lambda n, s: lora(n, 2, seed=-1), dmf.errors.ArgumentError, "seed=-1"),
        (lambda n, s: deep_lora(n, 6, s), dmf.errors.RankError, "rank=6"),
        (lambda n, s: deep_lora(n, 2, s, depth=0), dmf.errors.ArgumentError, "depth=0"),
        (lambda n, s: deep_lora(n, 2, s, scale=np.inf), dmf.errors.ArgumentError, "scale=inf"),
        (lambda n, s: deep_lora(n, 2, s, outer_rate=-0.1), dmf.errors.ArgumentError, "outer_rate=-0.1"),
        (lambda n, s: deep_lora(n, 2, s, loss="hinge"), dmf.errors.ArgumentError, "hinge"),
        (lambda n, s: lora(Network([Scaled()]), 2), dmf.errors.ArgumentError, "no Dense layer"),
        (lambda n, s: deep_lora(Network([Scaled()]), 2, s), dmf.errors.ArgumentError, "no Dense layer"),
        (
            lambda n, s: deep_lora(
                Network([*n.layers[:-1], Dense(np.full((4, 5), 1e200), np.zeros(4))]), 2,
                Samples(s.inputs, np.ones((12, 4))), loss="squared",
            ),
            dmf.errors.ObservationError, "Start from smaller weights, or scale the data down",
        ),
        (lambda n, s: deep_lora(n, 2, Samples(np.ones((3, 2)), [0, 1, 1])), dmf.errors.ShapeError, "(3, 2)"),
        (lambda n, s: deep_lora_factors(np.ones((3, 2)), 3), dmf.errors.RankError, "rank=3"),
        (lambda n, s: deep_lora_factors(np.full((3, 2), np.nan), 1), dmf.errors.ObservationError, "NaN"),
        (lambda n, s: lora_factors(np.ones(3), 1), dmf.errors.ShapeError, "matrix"),
        (lambda n, s: lora(n.layers, 2), dmf.errors.ArgumentError, "network is a tuple"),
        (lambda n, s: deep_lora(n, 2, s.inputs), dmf.errors.ArgumentError, "samples is a ndarray"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, words):
    with pytest.raises(error) as caught:
        call(*case(0))
    assert words in str(caught.value)


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_without_torch_the_error_says_how_to_get_it():
    with pytest.raises(dmf.errors.MissingPackageError, match=r"dmf\[torch\]"):
        importlib.import_module("dmf.nonlinear.torch_layers")
    assert "torch" not in sys.modules
