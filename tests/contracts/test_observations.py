"""One suite over every implementation of the contract `Observations`, on NumPy and on strict array-API arrays."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info

import dmf
from dmf.arrays.backend import namespace, to_host

from helpers import BASE, CASES, DTYPES, KINDS, LIBRARIES, dense_form, examples, like, observe, over, seeds

EPS = np.finfo(float).eps


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=LIBRARIES)
def move(request):
    return LIBRARIES[request.param]


kinds_and_libraries = over(CASES)
shapes = st.tuples(st.integers(3, 8), st.integers(3, 8))


def factors(rng, observations, width=3):
    d1, d2 = observations.shape
    return like(observations, rng.standard_normal((d1, width))), like(observations, rng.standard_normal((width, d2)))


def in_place(array, observations):
    """Whether `array` has the library, dtype and device of the observations."""
    return (
        namespace(array, observations.values) is namespace(observations.values)
        and array.dtype == observations.dtype
        and array.device == observations.values.device
    )


def assert_close(actual, expected, terms, roundings):
    """Within `roundings` of the sum of the absolute terms."""
    actual, expected = to_host(actual), to_host(expected)
    assert actual.shape == np.shape(expected)
    eps = max(np.finfo(actual.dtype).eps, EPS)
    assert np.all(np.abs(actual - expected) <= roundings * eps * terms)


@kinds_and_libraries
@examples(2)
@given(shape=shapes, seed=seeds, width=st.integers(1, 4))
def test_predict_is_linear_in_the_matrix(kind, move, shape, seed, width):
    """``A(left right)`` is the dense form applied to the matrix: linear, and a function of the product only."""
    rng = np.random.default_rng(seed)
    observations = observe(kind, seed, shape, move=move)
    left, right = factors(rng, observations, width)
    prediction = observations.predict(left, right)
    assert in_place(prediction, observations)
    assert prediction.shape == (observations.n_measurements,) == observations.values.shape
    matrix = dense_form(observations)
    size = np.abs(to_host(left)) @ np.abs(to_host(right))
    roundings = width + shape[0] * shape[1] + 20
    expected = matrix @ (to_host(left) @ to_host(right)).ravel()
    assert_close(prediction, expected, np.abs(matrix) @ size.ravel(), roundings)


@kinds_and_libraries
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@examples(2)
@given(shape=shapes, seed=seeds, width=st.integers(1, 4))
def test_adjoint_identities(kind, move, dtype, shape, seed, width):
    """``<Z right^T, P> = <z, A(P right)>`` and ``<left^T Z, Q> = <z, A(left Q)>`` for Z = A^T(z), any P and Q."""
    rng = np.random.default_rng(seed)
    observations = observe(kind, seed, shape, dtype, move)
    (left, right), (other_left, other_right) = factors(rng, observations, width), factors(rng, observations, width)
    weights = like(observations, rng.standard_normal(observations.n_measurements))
    by_row, by_col = observations.adjoint(weights, left, right)
    assert in_place(by_row, observations)
    assert in_place(by_col, observations)
    assert by_row.shape == left.shape
    assert by_col.shape == right.shape
    matrix = np.abs(dense_form(observations).astype(float))
    roundings = 2 * (width + shape[0] * shape[1] + observations.n_measurements + 20)
    for product, direction, pair in (
        (by_row, other_left, (other_left, right)),
        (by_col, other_right, (left, other_right)),
    ):
        one = np.sum(to_host(product).astype(float) * to_host(direction))
        other = np.sum(to_host(weights).astype(float) * to_host(observations.predict(*pair)))
        size = np.abs(to_host(pair[0]).astype(float)) @ np.abs(to_host(pair[1]))
        terms = np.abs(to_host(weights)) @ (matrix @ size.ravel())
        assert abs(one - other) <= roundings * np.finfo(dtype).eps * terms


@kinds_and_libraries
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@examples(2)
@given(shape=shapes, seed=seeds, width=st.integers(1, 4))
def test_evaluate_and_loss_are_those_of_the_residual(kind, move, dtype, shape, seed, width):
    """Loss ``1/2 ||A(W) - y||^2`` in float64, and the products of A^T of the residual, against dense algebra."""
    rng = np.random.default_rng(seed)
    observations = observe(kind, seed, shape, dtype, move)
    left, right = factors(rng, observations, width)
    loss, by_row, by_col = observations.evaluate(left, right)
    assert in_place(by_row, observations)
    assert in_place(by_col, observations)
    host_left, host_right, values = (to_host(a).astype(float) for a in (left, right, observations.values))
    matrix = dense_form(observations).astype(float)
    residual = matrix @ (host_left @ host_right).ravel() - values
    dense = (matrix.T @ residual).reshape(shape)
    sizes = np.abs(matrix) @ (np.abs(host_left) @ np.abs(host_right)).ravel() + np.abs(values)
    size = (np.abs(matrix).T @ sizes).reshape(shape)
    # the dense form of an operator object is itself rounded, hence the 20
    roundings = 2 * (width + shape[0] * shape[1] + observations.n_measurements + 20) * np.finfo(dtype).eps / EPS
    for actual in (loss, observations.loss(left, right)):
        assert actual.shape == ()
        assert actual.dtype == namespace(left).float64
        assert_close(actual, 0.5 * residual @ residual, 0.5 * sizes @ sizes, 2 * roundings)
    assert np.all(np.abs(to_host(by_row) - dense @ host_right.T) <= roundings * EPS * (size @ np.abs(host_right).T))
    assert np.all(np.abs(to_host(by_col) - host_left.T @ dense) <= roundings * EPS * (np.abs(host_left).T @ size))


@kinds_and_libraries
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
@examples(2)
@given(shape=shapes, seed=seeds, width=st.integers(1, 3))
def test_tangent_normal_is_that_of_the_dense_form(kind, move, dtype, shape, seed, width):
    """``T^T A^T A T`` for ``T(P, Q) = P V^T + U Q^T``, against dense algebra, and for any factors, orthonormal or not."""
    rng = np.random.default_rng(seed)
    observations = observe(kind, seed, shape, dtype, move)
    u, vt = factors(rng, observations, width)
    step = like(observations, rng.standard_normal((sum(shape), width)))
    image = observations.tangent_normal(u, vt)(step)
    assert in_place(image, observations)
    u, vt, step, matrix = (np.asarray(to_host(a), float) for a in (u, vt, step, dense_form(observations)))

    def normal(u, vt, step, matrix):
        dense = (matrix.T @ (matrix @ (step[: shape[0]] @ vt + u @ step[shape[0] :].T).ravel())).reshape(shape)
        return np.concatenate([dense @ vt.T, dense.T @ u])

    roundings = 4 * (width + shape[0] * shape[1] + observations.n_measurements + 20) * np.finfo(dtype).eps / EPS
    terms = np.max(
        normal(*map(np.abs, (u, vt, step, matrix)))
    )  # of all: a fast transform's errors are not those of its zeros
    assert_close(to_host(image), normal(u, vt, step, matrix), terms, roundings)


@pytest.mark.parametrize("side", [None, 0, 1])
def test_designs_that_would_be_large_are_not_formed(side, move, monkeypatch, rng):
    """Operator arrays go on by passes where a design would hold more numbers than its share: the same to the tolerance."""
    observations = observe("linear array", move=move)
    left, right = factors(rng, observations, 2)
    step = like(observations, rng.standard_normal((sum(observations.shape), 2)))

    def results():
        if side is None:
            return observations.tangent_normal(left, right)(step)
        return observations.ridge(side, right.T if side == 0 else left, like(observations, np.ones(2))).rows

    formed = to_host(results())
    monkeypatch.setattr("dmf.observations.linear._DESIGN_NUMBERS", 0)
    monkeypatch.setattr("dmf.observations.linear._DESIGN_SHARE", 0.3)  # of 30 numbers; the least design has 10
    monkeypatch.setattr(observations.operator, "_restricted", None)  # calling it would raise
    tolerance = (1e-12 if side is None else 1e-2) * np.max(np.abs(formed))
    np.testing.assert_allclose(to_host(results()), formed, rtol=0, atol=tolerance)


@kinds_and_libraries
@examples(2)
@given(shape=shapes, seed=seeds, width=st.integers(1, 3), damping=st.sampled_from([0.0, 0.1]))
def test_tangent_steps_solve_their_systems(kind, move, shape, seed, width, damping):
    """``(N + damping) step = target`` to the tolerance, for any target that N reaches, though N is singular."""
    rng = np.random.default_rng(seed)
    observations = observe(kind, seed, shape, move=move)
    u, vt = factors(rng, observations, width)
    normal = observations.tangent_normal(u, vt)
    target = normal(like(observations, rng.standard_normal((sum(shape), width))))
    step = observations.tangent_step(u, vt, target, damping, 1e-8, 500)
    assert in_place(step, observations)
    assert np.linalg.norm(to_host(normal(step) + damping * step - target)) <= 1e-7 * np.linalg.norm(to_host(target))


@kinds_and_libraries
def test_the_loss_is_summed_in_float64(kind, move, rng):
    """Squares of float32 residuals of 1e25 are beyond float32; their sum is exact to a few roundings of float64."""
    observations = observe(kind, dtype=np.float32, move=move)
    values = 1e25 * rng.standard_normal(observations.n_measurements)
    observations = observations.with_values(like(observations, values))
    d1, d2 = observations.shape
    zeros = like(observations, np.zeros((d1, 2))), like(observations, np.zeros((2, d2)))
    expected = 0.5 * np.sum(to_host(observations.values).astype(float) ** 2)
    for loss in (observations.loss(*zeros), observations.evaluate(*zeros)[0]):
        np.testing.assert_allclose(float(to_host(loss)), expected, rtol=50 * EPS)


def rows_of(observations):
    """Measurements as rows: what each measures, and its value."""
    return np.column_stack([dense_form(observations), to_host(observations.values)])


@kinds_and_libraries
def test_scaled_measurements_are_those_of_the_scaled_matrix(kind, move):
    observations = observe(kind, move=move)
    scaled = observations.scaled(0.25)
    np.testing.assert_array_equal(to_host(scaled.values), to_host(observations.values) / 4)
    assert scaled.mean_square == observations.mean_square / 16


@kinds_and_libraries
def test_split_is_a_partition(kind, move):
    """Every measurement falls on one side, none on both; the parts keep shape, dtype and device."""
    observations = observe(kind, move=move)
    kept, held = observations.split(0.3, seed=3)
    assert kept.shape == held.shape == observations.shape
    assert in_place(kept.values, observations)
    assert in_place(held.values, observations)
    together = np.concatenate([rows_of(kept), rows_of(held)])
    original = rows_of(observations)
    assert together.shape == original.shape
    np.testing.assert_array_equal(together[np.lexsort(together.T)], original[np.lexsort(original.T)])
    share = held.n_measurements / observations.n_measurements
    assert abs(share - 0.3) <= 2 / observations.n_measurements  # one for rounding, one for a repeated position


@kinds_and_libraries
def test_split_is_reproducible(kind, move):
    observations = observe(kind, move=move)
    first, again, other = (observations.split(0.5, seed=seed) for seed in (5, 5, 6))
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(rows_of(one), rows_of(two))
    assert any(
        a.n_measurements != b.n_measurements or not np.array_equal(rows_of(a), rows_of(b))
        for a, b in zip(first, other, strict=True)
    )


@pytest.mark.parametrize("fraction", [1e-9, 1 - 1e-9])
def test_split_leaves_a_measurement_on_either_side(kind, fraction):
    kept, held = observe(kind).split(fraction)
    assert kept.n_measurements >= 1
    assert held.n_measurements >= 1


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_split_refuses_fractions_that_are_none(kind, fraction):
    with pytest.raises(dmf.errors.ArgumentError, match="strictly between 0 and 1") as caught:
        observe(kind).split(fraction)
    assert caught.value.argument == "fraction"
    assert caught.value.limit == (0, 1)


@given(seed=seeds)
def test_split_keeps_repeated_positions_together(seed):
    observations = observe("entries", seed)
    kept, held = observations.split(0.4, seed)
    places = [set(zip(part.rows.tolist(), part.cols.tolist(), strict=True)) for part in (kept, held)]
    assert len(set(zip(observations.rows.tolist(), observations.cols.tolist(), strict=True))) == sum(map(len, places))
    assert not places[0] & places[1]


def surrogate(observations):
    """``A^T(y)``, scaled as section 3 of the theory says, formed densely."""
    dense = (dense_form(observations).T @ to_host(observations.values)).reshape(observations.shape)
    if isinstance(observations, dmf.SampledEntries):
        seen = observations.n_measurements if observations.weights is None else np.sum(to_host(observations.weights))
        return dense * (dense.size / seen)
    return dense if isinstance(observations, dmf.FullMatrix) else dense / observations.n_measurements


@kinds_and_libraries
@pytest.mark.parametrize("rank", [1, 3])
def test_surrogate_svd_has_the_top_singular_triplets(kind, move, rank):
    """LAPACK is the oracle; at this size the random block spans the whole space, so the method is exact up to rounding."""
    observations = observe(kind, seed=1, move=move)
    u, s, vt = observations.surrogate_svd(rank)
    assert all(in_place(a, observations) for a in (u, s, vt))
    u, s, vt = map(to_host, (u, s, vt))
    dense = surrogate(observations)
    singular_values = np.linalg.svd(dense, compute_uv=False)
    tolerance = 200 * EPS * singular_values[0]
    np.testing.assert_allclose(s, singular_values[:rank], rtol=0, atol=tolerance)
    np.testing.assert_allclose(u.T @ u, np.eye(rank), rtol=0, atol=200 * EPS)
    np.testing.assert_allclose(vt @ vt.T, np.eye(rank), rtol=0, atol=200 * EPS)
    np.testing.assert_allclose(dense @ vt.T, u * s, rtol=0, atol=tolerance)
    np.testing.assert_allclose(dense.T @ u, vt.T * s, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", BASE)
@pytest.mark.parametrize("rank", [0, 6, 1.0, True, "2"])
def test_surrogate_svd_refuses_ranks_that_are_none(kind, rank):
    with pytest.raises(dmf.errors.RankError, match="Pass 1 <= rank <= 5") as caught:
        observe(kind).surrogate_svd(rank)
    assert (caught.value.argument, caught.value.value, caught.value.limit) == ("rank", rank, (1, 5))


@kinds_and_libraries
def test_with_values_measures_the_same_with_other_outcomes(kind, move, rng):
    observations = observe(kind, move=move)
    values = like(observations, rng.standard_normal(observations.n_measurements))
    before = to_host(observations.values).copy()
    other = observations.with_values(values)
    assert other.shape == observations.shape
    np.testing.assert_array_equal(to_host(other.values), to_host(values))
    np.testing.assert_array_equal(dense_form(other), dense_form(observations))
    np.testing.assert_array_equal(to_host(observations.values), before)
    left, right = factors(rng, observations)
    residual = to_host(observations.predict(left, right)) - to_host(values)
    size = np.sum(residual**2) / 2
    assert abs(float(to_host(other.evaluate(left, right)[0])) - size) <= 200 * EPS * size


@pytest.mark.parametrize("kind", BASE)
def test_with_values_refuses_what_does_not_fit(kind, move):
    observations = observe(kind, move=move)
    with pytest.raises(dmf.errors.ShapeError, match="Pass one value for each") as caught:
        observations.with_values(observations.values[1:])
    assert caught.value.argument == "values"
    assert caught.value.limit == (observations.n_measurements,)
    xp = namespace(observations.values)
    with pytest.raises(dmf.errors.DTypeError, match="Convert them first") as caught:
        observations.with_values(xp.astype(observations.values, xp.float32))
    assert caught.value.argument == "values"
    assert "float64" in caught.value.limit


@kinds_and_libraries
def test_fill_puts_observed_entries_in_place(kind, move, rng):
    """Observed entries are replaced by the (weighted) mean of what was observed there; sensing observes none directly."""
    observations = observe(kind, move=move)
    host = rng.standard_normal(observations.shape)
    matrix = like(observations, host)
    filled = observations.fill(matrix)
    assert in_place(filled, observations)
    expected = host.copy()
    if not isinstance(observations, (dmf.LinearMeasurements, dmf.RankOneMeasurements)):
        matrix_of_a, values = dense_form(observations), to_host(observations.values)
        counts = (matrix_of_a**2).sum(axis=0).reshape(host.shape)  # or sums of weights
        sums = (matrix_of_a.T @ values).reshape(host.shape)
        expected[counts > 0] = sums[counts > 0] / counts[counts > 0]
    np.testing.assert_allclose(to_host(filled), expected, rtol=4 * EPS)
    np.testing.assert_array_equal(to_host(matrix), host)


@kinds_and_libraries
def test_pickle_round_trip(kind, move, rng):
    observations = observe(kind, move=move)
    other = pickle.loads(pickle.dumps(observations))
    assert type(other) is type(observations)
    assert other.shape == observations.shape
    left, right = factors(rng, observations)
    for one, two in zip(observations.evaluate(left, right), other.evaluate(left, right), strict=True):
        np.testing.assert_array_equal(to_host(one), to_host(two))
    for one, two in zip(observations.split(0.5), other.split(0.5), strict=True):
        np.testing.assert_array_equal(rows_of(one), rows_of(two))


@over([case for case in CASES if case[1] != "numpy"])
def test_the_libraries_agree(kind, move):
    """The same data on NumPy arrays and on others: equal values, and evaluations equal up to 200 roundings."""
    one, two = observe(kind, seed=2), observe(kind, seed=2, move=move)
    np.testing.assert_array_equal(rows_of(one), rows_of(two))
    rng = np.random.default_rng(0)
    left, right = factors(rng, one)
    results = one.evaluate(left, right), two.evaluate(like(two, left), like(two, right))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(to_host(b), a, rtol=0, atol=200 * EPS * np.max(np.abs(a)))


@pytest.mark.parametrize("kind", ["entries", "linear array", "part of linear array"])
def test_linear_algebra_beside_kernels_has_one_thread(kind):
    """BLAS threads that wait for work keep those of the kernels from theirs."""
    with observe(kind).threads():
        assert all(pool["num_threads"] == 1 for pool in threadpool_info() if pool["user_api"] == "blas")


def test_repr_names_kind_shape_and_number(kind):
    observations = observe(kind)
    text = repr(observations)
    assert type(observations).__name__ in text
    assert "6 x 5" in text
    assert f"{observations.n_measurements} measurements" in text


@pytest.mark.parametrize("which", ["whole", "part"])
def test_blocks_of_an_operator_array_add_up(which, move, monkeypatch, rng):
    """A streamed in blocks of 4 of its 15 measurements gives what one block gives, up to rounding."""

    def build():
        observations = observe("linear array", move=move)
        return observations if which == "whole" else observations.split(0.4, seed=1)[0]

    whole = build()
    monkeypatch.setattr("dmf.kernels.reference._BLOCK_BYTES", 4 * 30 * 8)
    left, right = factors(rng, whole)
    for one, two in zip(whole.evaluate(left, right), build().evaluate(left, right), strict=True):
        one, two = to_host(one), to_host(two)
        np.testing.assert_allclose(two, one, rtol=0, atol=200 * EPS * np.max(np.abs(one)))
