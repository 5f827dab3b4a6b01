"""Dense linear algebra against NumPy and LAPACK."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmf.arrays.backend import to_host
from dmf.arrays.linalg import (
    chain_product,
    conjugate_gradient,
    dense_svd,
    gaussian,
    identity,
    reduced_qr,
    truncated_svd,
)

from helpers import DTYPES, LIBRARIES, random_weights, seeds

EPS = np.finfo(float).eps
libraries = pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
dtypes = pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)


class Counted:
    """A matrix of which only the shape is known, and the number of multiplications that made it."""

    spent = 0

    def __init__(self, rows, columns):
        self.shape = rows, columns

    def __matmul__(self, other):
        assert self.shape[1] == other.shape[0]
        Counted.spent += self.shape[0] * self.shape[1] * other.shape[1]
        return Counted(self.shape[0], other.shape[1])


def least_cost(sizes):
    """Over every order of multiplication, by trying them all."""
    if len(sizes) <= 2:
        return 0
    return min(
        least_cost(sizes[: k + 1]) + least_cost(sizes[k:]) + sizes[0] * sizes[k] * sizes[-1]
        for k in range(1, len(sizes) - 1)
    )


@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=7))
def test_chain_product_takes_the_cheapest_order(sizes):
    Counted.spent = 0
    product = chain_product([Counted(a, b) for a, b in zip(sizes, sizes[1:], strict=False)])
    assert product.shape == (sizes[0], sizes[-1])
    assert Counted.spent == least_cost(sizes)


@libraries
@given(sizes=st.lists(st.integers(1, 9), min_size=2, max_size=7), seed=seeds)
def test_chain_product_is_the_product(move, sizes, seed):
    """One rounding for each inner dimension and product, times the sum of the absolute terms, whatever the order."""
    matrices = [w.T for w in random_weights(np.random.default_rng(seed), sizes)]
    expected, terms = matrices[0], np.abs(matrices[0])
    for matrix in matrices[1:]:
        expected, terms = expected @ matrix, terms @ np.abs(matrix)
    actual = to_host(chain_product([move(m) for m in matrices]))
    assert np.all(np.abs(actual - expected) <= (sum(sizes) + len(sizes)) * EPS * terms)


def with_spectrum(rng, shape, values):
    u, v = (np.linalg.qr(rng.standard_normal((n, len(values))))[0] for n in shape)
    return (u * values) @ v.T


def check_triplets(matrix, u, s, vt, tolerance):
    """Orthonormal, and singular: ``S v = s u`` and ``S^T u = s v``, relative to the largest singular value."""
    rank = s.shape[0]
    exact = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(s, exact[:rank], rtol=0, atol=tolerance * max(exact[0], 1e-300))
    np.testing.assert_allclose(u.T @ u, np.eye(rank), rtol=0, atol=100 * np.finfo(u.dtype).eps)
    np.testing.assert_allclose(vt @ vt.T, np.eye(rank), rtol=0, atol=100 * np.finfo(u.dtype).eps)
    np.testing.assert_allclose(matrix @ vt.T, u * s, rtol=0, atol=tolerance * exact[0])
    np.testing.assert_allclose(matrix.T @ u, vt.T * s, rtol=0, atol=tolerance * exact[0])


def check_qr(matrix, q, r):
    eps = np.finfo(matrix.dtype).eps
    assert q.dtype == r.dtype == matrix.dtype and q.shape == matrix.shape
    np.testing.assert_allclose(q.T @ q, np.eye(r.shape[0]), rtol=0, atol=20 * eps)
    np.testing.assert_allclose(q @ r, matrix, rtol=0, atol=20 * eps * np.linalg.norm(matrix, 2))
    assert not np.tril(r, -1).any()


@dtypes
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("condition", [1.0, 1e2, 1e3, 1e4, 1e7, 1e9, 1e14, np.inf])
def test_tall_matrices_of_any_condition_have_an_orthogonal_factor(dtype, condition, order, rng):
    """To the rounding errors of LAPACK, on either side of the condition number from which on LAPACK is asked."""
    matrix = with_spectrum(
        rng, (20_000, 12), np.geomspace(1, 1 / condition, 12) if np.isfinite(condition) else [1.0, 0.5]
    )
    matrix = np.asarray(matrix, dtype, order=order)
    check_qr(matrix, *reduced_qr(matrix))


def test_tall_matrices_of_good_condition_need_no_reflections(monkeypatch, rng):
    matrix = rng.standard_normal((20_000, 12))
    monkeypatch.setattr(np.linalg, "qr", None)  # calling it would raise
    check_qr(matrix, *reduced_qr(matrix))


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_reduced_qr_of_zeros_and_nan_is_that_of_lapack(value):
    matrix = np.full((20_000, 12), value)
    for ours, theirs in zip(reduced_qr(matrix), np.linalg.qr(matrix), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def iterate(matrix, rank, move=np.asarray, **options):
    """`truncated_svd` of a host matrix, and the number of its sweeps."""
    moved, calls = move(matrix), []

    def apply(block):
        calls.append(block)
        return moved @ block

    triplets = truncated_svd(apply, lambda block: moved.T @ block, matrix.shape, rank, like=moved, **options)
    return tuple(map(to_host, triplets)), len(calls)


@libraries
@dtypes
@pytest.mark.parametrize("shape", [(60, 45), (45, 60)])
def test_truncated_svd_of_a_fast_falling_spectrum_equals_lapack(move, dtype, shape, rng):
    """The block holds 13 of 40 values; each sweep gains (s_14/s_3)^2 = 4^-22: three reach the rounding unit."""
    matrix = with_spectrum(rng, shape, 4.0 ** -np.arange(40)).astype(dtype)
    (u, s, vt), sweeps = iterate(matrix, 3, move)
    assert u.dtype == s.dtype == vt.dtype == dtype
    assert sweeps <= 12
    check_triplets(matrix, u, s, vt, 100 * np.finfo(dtype).eps)
    assert np.all(np.diff(s) < 0)


@given(rank=st.integers(1, 6), d1=st.integers(6, 16), d2=st.integers(6, 16), seed=seeds)
def test_truncated_svd_of_a_small_matrix_is_exact(rank, d1, d2, seed):
    """The block of rank + 10 spans the whole space, whatever the spectrum."""
    matrix = np.random.default_rng(seed).standard_normal((d1, d2))
    if rank + 10 >= min(d1, d2):
        (u, s, vt), _ = iterate(matrix, rank)
        check_triplets(matrix, u, s, vt, 200 * EPS)
    else:
        (u, s, vt), _ = iterate(matrix, rank, sweeps=200, tolerance=0)
        exact = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(s, exact[:rank], rtol=0, atol=1e-6 * exact[0])


@pytest.mark.parametrize("values", [[1.0] * 30, [1.0] * 3, [2.0, 1.0, 1.0, 1.0] + [0.5] * 30])
def test_truncated_svd_with_equal_singular_values(values, rng):
    """Where the gap is nil the vectors may be any of the subspace, but they are singular vectors."""
    matrix = with_spectrum(rng, (50, 40), np.array(values))
    (u, s, vt), _ = iterate(matrix, 2, sweeps=100, tolerance=0)
    check_triplets(matrix, u, s, vt, 200 * EPS)


def test_truncated_svd_ends_when_the_values_stand_still(rng):
    """An exact rank of 5 is caught by the first sweep; the second sees that nothing changed."""
    matrix = with_spectrum(rng, (80, 70), np.arange(5, 0, -1.0))
    (u, s, vt), sweeps = iterate(matrix, 5)
    assert sweeps == 2
    check_triplets(matrix, u, s, vt, 200 * EPS)


def test_truncated_svd_beyond_the_rank_and_of_zeros(rng):
    """Orthonormal vectors for singular values of zero."""
    for matrix in (with_spectrum(rng, (30, 25), np.array([2.0, 1.0])), np.zeros((30, 25))):
        (u, s, vt), _ = iterate(matrix, 4)
        np.testing.assert_allclose(u.T @ u, np.eye(4), rtol=0, atol=100 * EPS)
        np.testing.assert_allclose(vt @ vt.T, np.eye(4), rtol=0, atol=100 * EPS)
        np.testing.assert_allclose((u * s) @ vt, matrix, rtol=0, atol=200 * EPS)


def test_truncated_svd_depends_on_the_seed_only(rng):
    matrix = rng.standard_normal((40, 30))
    one, again, other = (iterate(matrix, 3, seed=seed)[0] for seed in (1, 1, 2))
    for a, b in zip(one, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one[0], other[0])


@libraries
@pytest.mark.parametrize("limit", [500, 0], ids=["LAPACK", "iterated"])
def test_dense_svd_on_both_sides_of_its_limit(move, limit, monkeypatch, rng):
    """The gap from 1/16 to 1/64, ten values further on, gives 4^-22 a sweep."""
    monkeypatch.setattr("dmf.arrays.linalg._DENSE_SVD_LIMIT", limit)
    matrix = with_spectrum(rng, (40, 35), 4.0 ** -np.arange(30))
    u, s, vt = map(to_host, dense_svd(move(matrix), 3))
    assert (u.shape, s.shape, vt.shape) == ((40, 3), (3,), (3, 35))
    check_triplets(matrix, u, s, vt, 100 * EPS)


@libraries
@dtypes
def test_gaussian_is_the_same_everywhere(move, dtype):
    like = move(np.zeros(1, dtype))
    numbers = gaussian((3, 4), 5, like)
    assert numbers.device == like.device
    np.testing.assert_array_equal(to_host(numbers), np.random.default_rng(5).standard_normal((3, 4)).astype(dtype))
    unit = identity(3, like)
    assert unit.device == like.device
    np.testing.assert_array_equal(to_host(unit), np.eye(3, dtype=dtype))


@given(size=st.integers(1, 8), columns=st.integers(1, 3), seed=seeds)
def test_conjugate_gradient_solves_a_definite_system(size, columns, seed):
    """Ends at 1e-12 of the right-hand side, in at most as many steps as there are different eigenvalues (plus rounding)."""
    rng = np.random.default_rng(seed)
    q = np.linalg.qr(rng.standard_normal((size, size)))[0]
    matrix = (q * rng.uniform(1, 10, size)) @ q.T
    target, start = rng.standard_normal((size, columns)), rng.standard_normal((size, columns))
    calls = []

    def apply(x):
        calls.append(x)
        return matrix @ x

    solution = conjugate_gradient(apply, target, start, tolerance=1e-12)
    assert len(calls) <= size + 6
    np.testing.assert_allclose(matrix @ solution, target, rtol=0, atol=1.1e-12 * np.linalg.norm(target) + 50 * EPS)


@libraries
def test_conjugate_gradient_of_a_singular_system_stays_nearest_to_its_start(move, rng):
    """The null space is never touched: the solution is the start plus the least correction."""
    basis = np.linalg.qr(rng.standard_normal((6, 3)))[0]
    host = (basis * [1.0, 2.0, 3.0]) @ basis.T
    matrix, wanted, start = move(host), rng.standard_normal((6, 2)), rng.standard_normal((6, 2))
    solution = conjugate_gradient(lambda x: matrix @ x, matrix @ move(wanted), move(start), tolerance=1e-13)
    expected = start + basis @ basis.T @ (wanted - start)
    np.testing.assert_allclose(to_host(solution), expected, rtol=0, atol=1e-11)


def test_conjugate_gradient_makes_at_most_the_steps_allowed(rng):
    matrix, target = np.diag([1.0, 10.0, 100.0]), np.ones((3, 1))
    calls = []
    for allowed in (0, 1, 2):
        calls.clear()
        solution = conjugate_gradient(lambda x: calls.append(x) or matrix @ x, target, 0 * target, 0.0, allowed)
        assert len(calls) == 1 + allowed
        assert (np.linalg.norm(solution) > 0) == (allowed > 0)


def test_a_preconditioner_that_is_the_inverse_needs_one_step(rng):
    q = np.linalg.qr(rng.standard_normal((20, 20)))[0]
    matrix, target, calls = (q * np.geomspace(1, 1e4, 20)) @ q.T, rng.standard_normal((20, 2)), []
    inverse = np.linalg.inv(matrix)
    solution = conjugate_gradient(
        lambda x: calls.append(x) or matrix @ x, target, tolerance=1e-9, precondition=lambda x: inverse @ x
    )
    assert len(calls) == 1
    np.testing.assert_allclose(matrix @ solution, target, rtol=0, atol=1e-8)
    nothing = conjugate_gradient(lambda x: matrix @ x, target, precondition=lambda x: 0 * x)
    assert not nothing.any()


@pytest.mark.parametrize("target", [0.0, 1.0])
def test_conjugate_gradient_of_the_zero_map_and_the_zero_target(target):
    """No step, no division by zero: the start stays (or, for the identity and target 0, zero is found)."""
    goal, start = np.full((2, 2), target), np.ones((2, 2))
    np.testing.assert_array_equal(conjugate_gradient(lambda x: 0 * x, goal, start), start)
    np.testing.assert_array_equal(conjugate_gradient(lambda x: x, goal, start), goal)
