"""The kernels of drift beside what NumPy says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dmf.kernels.drift import filtered, neighbours

sizes = st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)).map(np.array)


@given(st.integers(0, 2**32 - 1), st.integers(1, 12), sizes, sizes)
def test_filter_equals_its_dense_twin(seed, n, variances, scales):
    rng = np.random.default_rng(seed)
    gaps, weights, sums = rng.uniform(0.01, 3, (2, n)), rng.uniform(0.3, 4, n), rng.standard_normal(n)
    gaps[:, (rng.random(n) < 0.2) | (np.arange(n) == 0)] = np.inf
    row, covariance = np.cumsum(np.isinf(gaps[0])), np.zeros((n, n))
    for v, scale, gap in zip(variances, scales, gaps, strict=True):
        at = np.cumsum(np.where(np.isinf(gap), 0, gap))
        covariance += v * np.exp(-np.abs(at[:, None] - at) / scale) * (row[:, None] == row)
    means = sums / weights
    expected = sums @ means - means @ np.linalg.solve(covariance + np.diag(1 / weights), means)
    explained, determinant = filtered(gaps, weights, sums, variances, scales, 1e-12)
    np.testing.assert_allclose(explained, expected, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        determinant, np.linalg.slogdet(np.eye(n) + covariance * weights)[1], rtol=1e-6, atol=1e-6
    )


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 6), min_size=1, max_size=5))
def test_neighbours_are_those_of_a_search_in_each_row(seed, counts):
    rng = np.random.default_rng(seed)
    parts = [np.sort(rng.choice(20, count, replace=False) / 2) for count in counts]
    starts = np.append(0, np.cumsum(counts))
    index, wanted = rng.integers(0, len(counts), 30), rng.integers(-2, 42, 30) / 4
    last, first = neighbours(starts, np.concatenate(parts), index, wanted)
    expected = [
        [starts[i] + np.searchsorted(parts[i], t, side) for i, t in zip(index, wanted, strict=True)]
        for side in ("right", "left")
    ]
    np.testing.assert_array_equal(last, np.array(expected[0]) - 1)
    np.testing.assert_array_equal(first, expected[1])
