"""Networks as products of matrices, and their starts."""

from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.models import balanced_network

from helpers import (
    BASE,
    DTYPES,
    LIBRARIES,
    dense_form,
    dense_product,
    examples,
    like,
    observe,
    on_device1,
    random_weights,
    seeds,
)

EPS = np.finfo(float).eps
sizes_of_networks = st.lists(st.integers(1, 7), min_size=2, max_size=6)  # (d2, w_1, ..., d1)


@given(sizes=sizes_of_networks, seed=seeds, library=st.sampled_from(list(LIBRARIES)))
def test_product_factors_and_entries_are_those_of_the_dense_product(sizes, seed, library):
    """Whatever the order of multiplication: at most one rounding for each inner dimension and product, times the terms."""
    rng = np.random.default_rng(seed)
    hosts = random_weights(rng, sizes)
    network = dmf.DeepLinearNetwork(LIBRARIES[library](w) for w in hosts)
    expected = dense_product(hosts)
    bound = (2 * sum(sizes) + 10) * EPS * dense_product([np.abs(w) for w in hosts])
    assert network.shape == expected.shape
    assert np.all(np.abs(to_host(network.product()) - expected) <= bound)
    left, right = map(to_host, network.factors())
    assert left.shape[1] == right.shape[0] == min([*sizes[1:-1]] or [min(sizes)])
    assert np.all(np.abs(left @ right - expected) <= bound)
    rows, cols = rng.integers(0, sizes[-1], 9), rng.integers(0, sizes[0], 9)
    entries = to_host(network.entries(LIBRARIES[library](rows), LIBRARIES[library](cols)))
    assert np.all(np.abs(entries - expected[rows, cols]) <= bound[rows, cols])


@pytest.mark.parametrize("index", [np.int8, np.uint16, np.int64, np.uint64, list])
def test_entries_takes_every_kind_of_integer(index, rng):
    network = dmf.DeepLinearNetwork(random_weights(rng, (4, 2, 5)))
    rows, cols = [0, 4, 2, 4], [3, 3, 0, 3]
    convert = list if index is list else lambda p: np.asarray(p, index)
    np.testing.assert_allclose(
        network.entries(convert(rows), convert(cols)), network.product()[rows, cols], rtol=0, atol=1e2 * EPS
    )


def test_entries_of_no_positions(rng):
    network = dmf.DeepLinearNetwork(random_weights(rng, (4, 2, 5)))
    assert network.entries(np.zeros(0, int), np.zeros(0, int)).shape == (0,)


@given(sizes=sizes_of_networks)
def test_shapes_are_read_off_the_weights(sizes):
    network = dmf.DeepLinearNetwork([np.ones((b, a)) for a, b in zip(sizes, sizes[1:], strict=False)])
    assert network.depth == len(sizes) - 1
    assert network.shape == (sizes[-1], sizes[0])
    assert network.widths == tuple(sizes[1:-1])
    assert network.n_parameters == sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    assert repr(network) == f"DeepLinearNetwork(depth {network.depth}, {' x '.join(map(str, sizes[::-1]))}, float64)"


def test_integers_become_float64_and_floats_are_kept():
    assert dmf.DeepLinearNetwork([[[1, 2]], np.ones((3, 1))]).dtype == np.float64
    assert dmf.DeepLinearNetwork([np.ones((1, 2), np.float32)]).dtype == np.float32


@given(depth=st.integers(2, 6), d1=st.integers(1, 8), d2=st.integers(1, 8), data=st.data())
def test_a_compressed_network_has_the_number_of_parameters_of_the_paper(depth, d1, d2, data):
    """``(d1 + d2) rank + (L - 2) rank^2`` (section 3)."""
    rank = data.draw(st.integers(1, min(d1, d2)))
    network = dmf.spectral_network(dmf.FullMatrix(np.eye(d1, d2)), rank, depth)
    assert network.n_parameters == (d1 + d2) * rank + (depth - 2) * rank**2


@given(
    shape=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    depth=st.integers(1, 4),
    scale=st.floats(1e-6, 1e3),
    width=st.none() | st.integers(1, 10),
    seed=seeds,
)
def test_orthogonal_layers_are_semi_orthogonal_times_the_scale(shape, depth, scale, width, seed):
    network = dmf.orthogonal_network(shape, depth, scale, width, seed=seed)
    assert network.shape == shape
    assert network.widths == (width or max(shape),) * (depth - 1)
    for weight in network.weights:
        gram = weight @ weight.T if weight.shape[0] <= weight.shape[1] else weight.T @ weight
        np.testing.assert_allclose(gram / scale**2, np.eye(len(gram)), rtol=0, atol=50 * EPS)


@pytest.mark.parametrize("entry", [(0, 0), (2, 0), (1, 2)])
def test_orthogonal_layers_are_uniformly_distributed(entry):
    """Entries of a Haar matrix have mean 0 and mean square 1/d; QR without its sign correction fails the first."""
    entries = np.array([dmf.orthogonal_network((3, 3), 1, 1.0, seed=k).weights[0][entry] for k in range(900)])
    assert abs(entries.mean()) < 5 * np.sqrt(1 / 3 / 900)  # 5 standard errors
    assert abs(np.mean(entries**2) - 1 / 3) < 5 * np.sqrt((3 / 15 - 1 / 9) / 900)  # E x^4 = 3 / (d (d + 2))


@pytest.mark.parametrize(("distribution", "variance"), [("normal", 2.0), ("uniform", 0.8)])
def test_ablation_starts_have_the_frobenius_norm_of_the_orthogonal_one(distribution, variance):
    """Expected squared norm ``scale^2 min(a, b)`` (section 2), within 5 standard deviations of a sum over a b entries."""
    network = dmf.orthogonal_network((40, 30), 4, 0.1, 35, distribution, seed=0)
    for weight in network.weights:
        expected = 0.1**2 * min(weight.shape)
        assert abs(np.sum(weight**2) / expected - 1) < 5 * np.sqrt(variance / weight.size)
        assert abs(weight.mean()) < 5 * np.sqrt(expected) / weight.size
        if distribution == "uniform":
            assert np.abs(weight).max() <= 0.1 * np.sqrt(3 * min(weight.shape) / weight.size)
    assert not np.array_equal(network.weights[1], network.weights[2])


@pytest.mark.parametrize("distribution", ["orthogonal", "normal", "uniform"])
def test_one_seed_gives_one_start_on_every_library_and_dtype(distribution):
    options = {"depth": 3, "scale": 0.3, "width": 4, "distribution": distribution}
    host = dmf.orthogonal_network((5, 6), seed=7, **options)
    other = dmf.orthogonal_network((5, 6), seed=8, **options)
    assert not np.array_equal(host.weights[0], other.weights[0])
    for data in (on_device1(np.zeros(1)), on_device1(np.zeros(1, np.float32)), np.zeros(1, np.float32)):
        moved = dmf.orthogonal_network((5, 6), seed=7, like=data, **options)
        for one, two in zip(moved.weights, host.weights, strict=True):
            assert one.dtype == data.dtype
            assert one.device == data.device
            np.testing.assert_array_equal(to_host(one), two.astype(to_host(data).dtype))


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_spectral_start_lies_in_the_top_singular_subspaces(kind, move, depth):
    """``W_L = scale U``, ``W_l = scale I``, ``W_1 = scale V^T`` for the surrogate's top singular vectors."""
    observations = observe(kind, move=move)
    u, _, vt = map(to_host, observations.surrogate_svd(2, seed=3))
    network = dmf.spectral_network(observations, 2, depth, 0.1, seed=3)
    expected = [0.1 * u @ vt] if depth == 1 else [0.1 * vt, *[0.1 * np.eye(2)] * (depth - 2), 0.1 * u]
    for weight, other in zip(network.weights, expected, strict=True):
        assert weight.device == observations.values.device
        np.testing.assert_allclose(to_host(weight), other, rtol=0, atol=8 * EPS)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("balance", [0.0, 2.5, -0.3, 1e6])
def test_two_layers_of_any_balance(move, balance, rng):
    """The product is ``u diag(s) vt``, and ``W_2^T W_2 - W_1 W_1^T = balance I``."""
    (u, _), (v, _) = (np.linalg.qr(rng.standard_normal((n, 3))) for n in (6, 5))
    s = np.array([2.0, 0.7, 0.0])
    network = balanced_network(move(u), move(s), move(v.T), 2, balance)
    lower, upper = map(to_host, network.weights)
    np.testing.assert_allclose(to_host(network.product()), (u * s) @ v.T, atol=1e-13)
    expected = balance * np.eye(3)
    np.testing.assert_allclose(upper.T @ upper - lower @ lower.T, expected, atol=1e-14 * max(1, abs(balance)) * 4)
    with pytest.raises(dmf.errors.ArgumentError) as caught:
        balanced_network(move(u), move(s), move(v.T), 3, 0.1)
    assert caught.value.argument == "balance"


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_an_exact_spectral_start_holds_the_singular_vectors_of_the_surrogate(kind, move):
    """Of ``A^T(y)``, formed here one entry at a time."""
    observations = observe(kind, move=move)
    d1, d2 = observations.shape
    surrogate = (dense_form(observe(kind)).T @ to_host(observe(kind).values)).reshape(d1, d2)
    u, _, vt = np.linalg.svd(surrogate)
    network = dmf.spectral_network(observations, 2, 2, 1.0, exact=True)
    assert network.weights[0].device == observations.values.device
    for found, expected in ((to_host(network.weights[1]).T, u[:, :2].T), (to_host(network.weights[0]), vt[:2])):
        np.testing.assert_allclose(np.abs(found @ expected.T), np.eye(2), atol=1e-10)


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@pytest.mark.parametrize("depth", [1, 3, 9])
def test_spectral_start_keeps_a_scale_whose_power_underflows(depth, dtype):
    """Layers are as large as asked for, though the product, ``scale^L``, is below the smallest float32."""
    network = dmf.spectral_network(observe("full", dtype=dtype), 2, depth, scale=1e-20)
    for weight in network.weights:
        assert weight.dtype == dtype
        values = np.linalg.svd(weight.astype(float), compute_uv=False)[:2]
        np.testing.assert_allclose(values, 1e-20, rtol=20 * np.finfo(dtype).eps)


@examples(24)
@given(
    shape=st.tuples(st.integers(2, 7), st.integers(2, 7)),
    depth=st.integers(1, 5),
    alpha=st.floats(0.3, 3.0),
    decay=st.sampled_from([0.0, 0.1, 1.0]),
    scale=st.floats(0.01, 1.0),
    seed=seeds,
    data=st.data(),
)
def test_spectral_start_decouples(shape, depth, alpha, decay, scale, seed, data):
    """Section 6: every layer stays diagonal in the singular bases, and the entries follow scalar recursions.

    60 stable steps of descent, so rounding errors add up and 1e-10 leaves a factor of 1e3.
    """
    rank = data.draw(st.integers(1, min(shape)))
    rng = np.random.default_rng(seed)
    matrix = rng.standard_normal(shape)
    matrix /= np.linalg.norm(matrix, 2)
    observations = dmf.FullMatrix(matrix)
    u, s, vt = observations.surrogate_svd(rank)
    eta, steps = 0.05, 60
    recovery = dmf.gradient_descent(
        observations,
        dmf.spectral_network(observations, rank, depth, scale),
        eta,
        alpha,
        decay,
        "sum",
        iterations=steps,
        record_every=steps,
    )
    rates = np.array([alpha * eta if layer in (0, depth - 1) else eta for layer in range(depth)])[:, None]
    w = np.full((depth, rank), scale)
    for _ in range(steps):
        others = np.stack([np.prod(np.delete(w, layer, axis=0), axis=0) for layer in range(depth)])
        w = (1 - eta * decay) * w - rates * (np.prod(w, axis=0) - s) * others
    layers = [np.diag(row) for row in w]
    layers[0] = layers[0] @ vt
    layers[-1] = u @ layers[-1]
    if depth == 1:  # the weight moves outside the top singular subspaces too: there it follows its own linear recursion
        rest = matrix - (u * s) @ vt
        layers[0] = layers[0] + rest * _linear_recursion(eta, alpha, decay, steps)
    for weight, expected in zip(recovery.network.weights, layers, strict=True):
        np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-10)
    np.testing.assert_allclose(recovery.network.product(), dense_product(layers), rtol=0, atol=1e-10)


def _linear_recursion(eta, alpha, decay, steps):
    w = 0.0
    for _ in range(steps):
        w = (1 - eta * decay) * w - alpha * eta * (w - 1)
    return w


FULL = dmf.FullMatrix(np.eye(4, 5))
NETWORK = dmf.DeepLinearNetwork([np.ones((2, 5)), np.ones((4, 2))])
BAD = {
    "no layer": (lambda: dmf.DeepLinearNetwork([]), dmf.errors.ShapeError, "weights", [], None, "at least one layer"),
    "a vector": (
        lambda: dmf.DeepLinearNetwork([np.ones(3)]), dmf.errors.ShapeError, "weights", [(3,)], None, "each layer is a matrix",
    ),
    "no width": (
        lambda: dmf.DeepLinearNetwork([np.ones((0, 3))]), dmf.errors.ShapeError, "weights", [(0, 3)], None, "is a matrix",
    ),
    "wrong order": (
        lambda: dmf.DeepLinearNetwork([np.ones((4, 2)), np.ones((2, 5))]),
        dmf.errors.ShapeError, "weights", (2, 5), ("any", 4), "Pass W_1 first",
    ),
    "mixed dtypes": (
        lambda: dmf.DeepLinearNetwork([np.ones((2, 5)), np.ones((4, 2), np.float32)]),
        dmf.errors.DTypeError, "weights", ["float64", "float32"], None, "Convert them",
    ),
    "text": (
        lambda: dmf.DeepLinearNetwork([np.full((2, 5), "a")]),
        dmf.errors.DTypeError, "weights", "<U1", ("float32", "float64"), "Convert it to float64",
    ),
    "ragged": (
        lambda: dmf.DeepLinearNetwork([[[1, 2], [3]]]), dmf.errors.DTypeError, "weights", "list", None, "rectangular array",
    ),
    "NaN": (
        lambda: dmf.DeepLinearNetwork([np.full((2, 5), np.nan)]),
        dmf.errors.ObservationError, "weights", "W_1", None, "weights must be finite",
    ),
    "two libraries": (
        lambda: dmf.DeepLinearNetwork([np.ones((2, 5)), on_device1(np.ones((4, 2)))]),
        dmf.errors.BackendError, "", ["array_api_strict._array_object.Array", "numpy.ndarray"], None, "Convert them to one kind",
    ),
    "positions of two lengths": (
        lambda: NETWORK.entries([0, 1], [0]), dmf.errors.ShapeError, "rows, cols", ((2,), (1,)), None, "vectors of one length",
    ),
    "positions in a matrix": (
        lambda: NETWORK.entries([[0]], [[0]]),
        dmf.errors.ShapeError, "rows, cols", ((1, 1), (1, 1)), None, "vectors of one length",
    ),
    "fractional positions": (
        lambda: NETWORK.entries([0], [0.5]), dmf.errors.DTypeError, "cols", "float64", "integer", "integers from 0",
    ),
    "a negative position": (
        lambda: NETWORK.entries([-1], [0]), dmf.errors.ObservationError, "rows", -1, (0, 3), "indices run from 0 to 3",
    ),
    "a position too large": (
        lambda: NETWORK.entries([0], [5]), dmf.errors.ObservationError, "cols", 5, (0, 4), "indices run from 0 to 4",
    ),
    "an unknown distribution": (
        lambda: dmf.orthogonal_network((4, 5), distribution="cauchy"),
        dmf.errors.ArgumentError, "distribution", "cauchy", ("orthogonal", "normal", "uniform"), "orthogonal, normal, uniform",
    ),
    "no depth": (lambda: dmf.orthogonal_network((4, 5), 0), dmf.errors.ArgumentError, "depth", 0, 1, "at least 1"),
    "depth True": (lambda: dmf.orthogonal_network((4, 5), True), dmf.errors.ArgumentError, "depth", True, 1, "at least 1"),
    "depth 2.0": (lambda: dmf.spectral_network(FULL, 2, 2.0), dmf.errors.ArgumentError, "depth", 2.0, 1, "at least 1"),
    "no width at all": (
        lambda: dmf.orthogonal_network((4, 5), width=0), dmf.errors.ArgumentError, "width", 0, 1, "at least 1",
    ),
    "no rows": (lambda: dmf.orthogonal_network((0, 5)), dmf.errors.ArgumentError, "shape", 0, 1, "at least 1"),
    "scale 0": (
        lambda: dmf.orthogonal_network((4, 5), scale=0.0),
        dmf.errors.ArgumentError, "scale", 0.0, 0, "A network of zeros never moves",
    ),
    "scale infinite": (
        lambda: dmf.spectral_network(FULL, 2, scale=float("inf")),
        dmf.errors.ArgumentError, "scale", float("inf"), 0, "A network of zeros never moves",
    ),
    "rank 0": (lambda: dmf.spectral_network(FULL, 0), dmf.errors.RankError, "rank", 0, (1, 4), "Pass 1 <= rank <= 4"),
    "rank too large": (lambda: dmf.spectral_network(FULL, 5), dmf.errors.RankError, "rank", 5, (1, 4), "Pass 1 <= rank <= 4"),
}  # fmt: skip


@pytest.mark.parametrize(("call", "error", "argument", "value", "limit", "way_out"), BAD.values(), ids=BAD)
def test_bad_input_says_what_where_and_what_to_do(call, error, argument, value, limit, way_out):
    with pytest.raises(error, match=way_out) as caught:
        call()
    assert type(caught.value) is error
    assert (caught.value.argument, caught.value.value, caught.value.limit) == (argument, value, limit)


@pytest.mark.parametrize("shape", [(3,), (3, 4, 5), 3, None, "ab"])
def test_a_shape_that_is_no_pair(shape):
    with pytest.raises(dmf.errors.ArgumentError, match=r"Pass \(rows, columns\)") as caught:
        dmf.orthogonal_network(shape)
    assert caught.value.argument == "shape"
    assert caught.value.value == shape


def test_like_carries_library_and_dtype(rng):
    """The helper of this suite itself: strict arrays stay on their device."""
    observations = observe("full", dtype=np.float32, move=on_device1)
    array = like(observations, rng.standard_normal(3))
    assert array.device == observations.values.device
    assert array.dtype == observations.dtype


@given(depth=st.integers(1, 5), rank=st.integers(1, 4), seed=seeds)
def test_balanced_network_shares_each_singular_value_equally(depth, rank, seed):
    """Its product is ``u diag(s) vt`` and ``W_{l+1}^T W_{l+1} = W_l W_l^T`` (balance), to a few roundings."""
    rng = np.random.default_rng(seed)
    u, vt = np.linalg.qr(rng.standard_normal((6, rank)))[0], np.linalg.qr(rng.standard_normal((5, rank)))[0].T
    s = rng.uniform(0, 3, rank)
    network = balanced_network(u, s, vt, depth)
    assert network.depth == depth
    np.testing.assert_allclose(network.product(), (u * s) @ vt, rtol=0, atol=100 * EPS)
    for below, above in zip(network.weights, network.weights[1:], strict=False):
        np.testing.assert_allclose(above.T @ above, below @ below.T, rtol=0, atol=100 * EPS)


@given(seed=seeds, sizes=st.tuples(st.integers(1, 6), st.integers(1, 6)), depth=st.integers(1, 4))
@examples(8)
def test_residual_layers_learn_as_their_branches_do(seed, sizes, depth):
    """Descent on A_l of ``prod (I + A_l)``, by finite differences of the loss by the branches, moves them as the layers move."""
    target = np.random.default_rng(seed).standard_normal(sizes)
    start = dmf.orthogonal_network(sizes, depth, 0.1, seed=seed, residual=True)
    plain = dmf.orthogonal_network(sizes, depth, 0.1, seed=seed)
    branches = [w - np.eye(*w.shape) for w in start.weights]
    for branch, weight in zip(branches, plain.weights, strict=True):
        np.testing.assert_allclose(branch, weight, rtol=0, atol=1e-15)

    def loss(layers):
        product = reduce(np.matmul, [np.eye(*a.shape) + a for a in layers[::-1]])
        return 0.5 * np.sum((product - target) ** 2)

    run = dmf.gradient_descent(dmf.FullMatrix(target), start, 0.01, reduction="sum", iterations=1)
    h = 1e-6
    for k, (before, after) in enumerate(zip(branches, run.network.weights, strict=True)):
        slope = np.empty_like(before)
        for at in np.ndindex(*before.shape):
            ahead, behind = ([a.copy() for a in branches] for _ in range(2))
            ahead[k][at] += h
            behind[k][at] -= h
            slope[at] = (loss(ahead) - loss(behind)) / (2 * h)
        np.testing.assert_allclose(
            after - np.eye(*after.shape), before - 0.01 * slope, atol=1e-8 * (1 + np.abs(slope).max())
        )
