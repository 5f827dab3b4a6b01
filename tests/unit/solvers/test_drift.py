"""Effects of time beside the dense Gaussian process that they are the mean of."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dmf import SampledEntries
from dmf.models.drift import Drift, Path
from dmf.solvers.drift import cross_fitted, fit_drift, refitted

SHAPE = (4, 3)


def of_sizes(sizes, shape):
    none = np.zeros(0)
    return [Path(np.zeros(d + 1, int), none, none.astype(int), np.zeros((0, 2)), np.array(sizes)) for d in shape]


def places(known, wanted):
    """Middle of the numbers of the known entries at a time; where there are none, between those before and after."""
    before, until = (np.searchsorted(np.sort(known), wanted, side) for side in ("left", "right"))
    return (before + until - 1) / 2


def dense_mean(times, values, weights, wanted, sizes):
    """Posterior mean of the sum of both processes at the wanted times, for one row."""
    (v_time, v_count), (scale, count) = sizes
    at, there = (times, places(times, times)), (wanted, places(times, wanted))

    def kernel(one, other):
        gaps = [np.abs(a[:, None] - b) for a, b in zip(one, other, strict=True)]
        return v_time * np.exp(-gaps[0] / scale) + v_count * np.exp(-gaps[1] / count)

    return kernel(there, at) @ np.linalg.solve(kernel(at, at) + np.diag(1 / weights), values)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.tuples(st.floats(1e-3, 50), st.floats(1e-3, 50)),
    st.tuples(st.floats(0.1, 100), st.floats(1, 100)),
)
def test_effects_are_the_mean_of_the_gaussian_process(seed, m, variances, scales):
    """Between its points, at them and beyond, whatever the weights, with several entries at one time, and for both sides."""
    rng = np.random.default_rng(seed)
    rows, cols = (rng.integers(0, d, m) for d in SHAPE)
    times, values, weights = rng.integers(0, 12, m) / 2, rng.standard_normal(m), rng.uniform(0.5, 2, m)
    entries = SampledEntries(rows, cols, values, SHAPE, weights, times)
    wanted, sizes = rng.uniform(-3, 9, 30), (variances, scales)
    wanted[:10] = rng.integers(0, 12, 10) / 2
    for side, path in enumerate(of_sizes(sizes, SHAPE)):
        found = refitted(Drift(path, None) if side == 0 else Drift(None, path), entries)
        index = rng.integers(0, SHAPE[side], wanted.size)
        effects = found.at(index, index, wanted)
        for k in range(SHAPE[side]):
            mine = (rows, cols)[side] == k
            expected = dense_mean(times[mine], values[mine], weights[mine], wanted[index == k], sizes)
            np.testing.assert_allclose(effects[index == k], expected, rtol=1e-6, atol=1e-6)


def test_cross_fitted_effects_know_nothing_of_the_entry_they_belong_to():
    """Another value of one entry leaves its own effect as it is, to the last bit."""
    rng = np.random.default_rng(0)
    rows, cols = np.divmod(np.arange(60), 3)
    entries = SampledEntries(rows % 4, cols, rng.standard_normal(60), SHAPE, times=rng.random(60))
    sizes = Drift(*of_sizes([[1.0, 1.0], [0.2, 3.0]], SHAPE))
    before = cross_fitted(refitted(sizes, entries), entries, 0)
    for k in (0, 17, 59):
        values = entries.entries.copy()
        values[k] += 100
        other = entries.with_values(values)
        after = cross_fitted(refitted(sizes, other), other, 0)
        assert after[k] == before[k] and not np.allclose(after, before)


def test_sizes_are_those_of_a_process_that_made_the_values():
    rng = np.random.default_rng(1)
    d, n, scale, spread = 200, 40, 5.0, 2.0
    times = np.sort(rng.uniform(0, 100, (d, n)), axis=1)
    states = np.empty((d, n))
    states[:, 0] = spread * rng.standard_normal(d)
    for k in range(1, n):
        kept = np.exp(-(times[:, k] - times[:, k - 1]) / scale)
        states[:, k] = kept * states[:, k - 1] + spread * np.sqrt(1 - kept**2) * rng.standard_normal(d)
    rows, cols = np.divmod(np.arange(d * n), n)
    values = states.ravel() + rng.standard_normal(d * n)
    found = fit_drift(SampledEntries(rows, cols, values, (d, n), times=times.ravel()))
    variance, time = found.rows.sizes[:, 0]
    assert abs(variance / spread**2 - 1) < 0.15 and abs(time / scale - 1) < 0.2
    assert found.rows.sizes[0, 1] < 0.1 * variance and found.columns is None
