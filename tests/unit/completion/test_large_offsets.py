"""Entries whose mean, or row and column offsets, dwarf all else: the rest is fitted in its own right."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host

from helpers import LIBRARIES, examples, seeds


def table(rng, offsets, *, noise=0.0, rank=0, shape=(60, 50), share=0.5, dtype=np.float64):
    """A table with holes, and the signal without offsets and noise."""
    signal = 9 * rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    values = (offsets + signal + noise * rng.standard_normal(shape)).astype(dtype)
    return np.where(rng.random(shape) < share, values, dtype(np.nan)), signal


def error(recovery, offsets, signal):
    return np.linalg.norm(recovery.product() - offsets - signal) / np.linalg.norm(signal)


@pytest.mark.parametrize(
    ("mean", "noise", "dtype"),
    [(1.7e12, 10, np.float64), (1e6, 1e-6, np.float64), (-1e3, 1e-3, np.float64), (1e5, 0.1, np.float32)],
)
@pytest.mark.parametrize("offsets", ["auto", True, pytest.param(False, marks=pytest.mark.slow)])
def test_noise_under_a_large_mean_is_noise(mean, noise, dtype, offsets, rng):
    """Milliseconds since 1970 with a jitter of 10 are the first."""
    seen, _ = table(rng, mean, noise=noise, dtype=dtype)
    recovery = dmf.complete(seen, offsets=offsets)
    assert not recovery.found.exact
    if offsets is not False:
        assert recovery.found.rank == 0 and recovery.found.noise == pytest.approx(noise, rel=0.1)
        np.testing.assert_allclose(recovery.product(), mean, rtol=0, atol=noise)
    assert (recovery.offsets is None) == (offsets is False)


@pytest.mark.parametrize(
    ("mean", "dtype", "limit"),
    [(1e6, np.float64, 1e-9), (1e12, np.float64, 1e-4), (1e3, np.float32, 1e-4), (1e5, np.float32, 1e-2)],
)
def test_a_signal_under_a_large_mean_is_found_to_the_rounding_of_the_entries(mean, dtype, limit, rng):
    seen, signal = table(rng, mean, rank=3, dtype=dtype)
    recovery = dmf.complete(seen, holdout=0.1)
    assert recovery.found.exact and error(recovery, mean, signal) < limit
    kept = ~np.isnan(seen)
    np.testing.assert_array_equal(recovery.filled()[kept], seen[kept])
    assert recovery.heldout.rmse < limit * np.sqrt(np.mean(signal**2))


@examples(4)
@given(seed=seeds, power=st.floats(-3, 11), dtype=st.sampled_from([np.float64, np.float32]))
def test_noise_is_found_under_any_mean(seed, power, dtype):
    """The rank and the level of noise do not depend on the mean, as long as the dtype holds the noise."""
    mean = 10 ** min(power, 4 if dtype == np.float32 else np.inf)
    seen, signal = table(np.random.default_rng(seed), mean, noise=0.5, rank=3, dtype=dtype)
    recovery = dmf.complete(seen)
    assert recovery.found.rank in (3, 4) and recovery.found.noise == pytest.approx(0.5, rel=0.15)
    assert error(recovery, mean, signal) < 0.05


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
def test_large_offsets_of_rows_are_taken_away_too(move, rng):
    offsets = 1e12 * rng.standard_normal((60, 1))
    seen, _ = table(rng, offsets, noise=10)
    shapes = []
    recovery = dmf.complete(move(seen), callback=lambda at: shapes.append(at.model.entries(*2 * [move(np.arange(3))])))
    assert not recovery.found.exact and recovery.found.noise == pytest.approx(10, rel=0.2)
    for values in shapes:  # callbacks see all of it
        np.testing.assert_allclose(to_host(values), offsets[:3, 0], rtol=0, atol=1e3)


@pytest.mark.parametrize("rank", [1, 2])
def test_a_matrix_of_offsets_is_exact_without_any(rank, rng):
    """Nothing is left that they could hide."""
    matrix = np.add.outer(
        *((rng.standard_normal(30), rng.standard_normal(20) + 1e3) if rank == 2 else np.full((2, 20), 0.1))
    )
    recovery = dmf.complete(np.where(rng.random(matrix.shape) < 0.6, matrix, np.nan))
    assert recovery.found.exact and recovery.found.rank == rank and recovery.offsets is None
    np.testing.assert_allclose(recovery.product(), matrix, rtol=1e-12)


def test_offsets_of_many_entries_are_judged_by_some(rng, monkeypatch):
    """Rows at random are enough to tell whether offsets help."""
    case = dmf.SampledEntries.from_dense(
        5 + rng.standard_normal((300, 1)) + rng.standard_normal(200) + 0.1 * rng.standard_normal((300, 200))
    )
    whole = dmf.complete(case)
    monkeypatch.setattr("dmf.completion.offsets._JUDGED", 5_000)
    part = dmf.complete(case)
    assert whole.found.offsets and part.found.offsets
    np.testing.assert_array_equal(whole.product(), part.product())


@pytest.mark.parametrize(("mean", "noise"), [(1e9, 0.0), (1.7e12, 0.1)])
def test_outliers_are_found_under_a_large_mean(mean, noise, rng):
    seen, signal = table(rng, mean, noise=noise, rank=2)
    wrong = ~np.isnan(seen) & (rng.random(seen.shape) < 0.02)
    recovery = dmf.complete(seen + 200 * wrong, outliers=True)
    out = recovery.outliers
    assert set(zip(out.rows.tolist(), out.cols.tolist(), strict=True)) == set(
        zip(*map(list, np.nonzero(wrong)), strict=True)
    )
    np.testing.assert_allclose(out.values, 200, atol=5 * noise + 0.01)
    assert recovery.found.exact == (noise == 0) and error(recovery, mean, signal) < 0.02


def test_a_search_for_outliers_that_is_broken_off_keeps_the_mean(rng):
    seen, signal = table(rng, 1e9, noise=0.1, rank=2)

    def stop(snapshot):
        assert abs(snapshot.model.product().mean() - 1e9) < 100
        if snapshot.iteration == 30:
            raise StopIteration

    recovery = dmf.complete(seen, outliers=True, callback=stop)
    assert recovery.outcome.broken_off and recovery.found.offsets
    assert error(recovery, 1e9, signal) < 0.5


def test_a_rank_path_under_a_large_mean_ends_exact(rng):
    seen, signal = table(rng, 1e9, rank=2, share=0.7)
    refit = dmf.completion.rank_path(seen, most=5).refit()
    assert refit.found.exact and error(refit, 1e9, signal) < 1e-6


def test_an_update_under_a_large_mean_stays_exact(rng):
    seen, signal = table(rng, 1e9, rank=2, share=0.7)
    kept, new = dmf.SampledEntries.from_dense(seen).split(0.2, 0)
    updated = dmf.complete(kept).update(new)
    assert updated.found.exact and updated.found.noise == 0 and error(updated, 1e9, signal) < 1e-6
