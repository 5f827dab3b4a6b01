"""Entries with weights: what they mean, against the same data without."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.arrays.backend import to_host
from dmf.models.offsets import fit_offsets

from helpers import LIBRARIES, examples, seeds


def noisy(rng, d1=60, d2=50, rank=2, share=0.5, offsets=0.0):
    """A matrix, and a table of it with holes whose noise has the deviations `spread`."""
    matrix = rng.standard_normal((d1, rank)) @ rng.standard_normal((rank, d2))
    matrix += offsets * (rng.standard_normal((d1, 1)) + rng.standard_normal(d2) + 3)
    spread = np.where(rng.random(matrix.shape) < 0.5, 0.1, 2.0)
    seen = rng.random(matrix.shape) < share
    return matrix, np.where(seen, matrix + spread * rng.standard_normal(matrix.shape), np.nan), spread


@examples(8)
@given(seed=seeds, side=st.sampled_from([0, 1]), uncertain=st.booleans())
def test_a_weight_of_k_is_k_measurements(seed, side, uncertain):
    """Loss, gradients, regression and fill are those of entries repeated k times."""
    rng = np.random.default_rng(seed)
    rows, cols = np.divmod(rng.permutation(30)[:18], 5)
    values, counts = rng.standard_normal(18), rng.integers(0, 4, 18)
    counts[0] = 2
    weighted = dmf.SampledEntries(rows, cols, values, (6, 5), counts)
    repeated = dmf.SampledEntries(*(np.repeat(a, counts) for a in (rows, cols, values)), (6, 5))
    left, right = rng.standard_normal((6, 3)), rng.standard_normal((3, 5))
    for one, other in zip(weighted.evaluate(left, right), repeated.evaluate(left, right), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-12)
    factor = (right.T, left)[side]
    variances = rng.random(factor.shape) if uncertain else None
    fits = [part.ridge(side, factor, np.full(3, 0.7), variances) for part in (weighted, repeated)]
    for one, other in zip(*fits, strict=True):
        if one is not None:
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-12)
    assert weighted.gain == pytest.approx(repeated.gain)
    assert weighted.centred()[0] == pytest.approx(repeated.centred()[0])
    np.testing.assert_allclose(weighted.fill(np.zeros((6, 5))), repeated.fill(np.zeros((6, 5))))
    np.testing.assert_allclose(weighted.surrogate_svd(2)[1], repeated.surrogate_svd(2)[1])


@pytest.mark.parametrize("offsets", [False, True])
def test_noise_of_known_spread_is_used(offsets, rng):
    """Weights of the inverse variance halve the error, and show the noise of weight 1."""
    matrix, table, spread = noisy(rng, offsets=offsets)
    errors = {
        name: np.sqrt(np.mean((recovery.product() - matrix) ** 2))
        for name, recovery in {
            "plain": dmf.complete(table, offsets=offsets),
            "weighted": dmf.complete(table, weights=spread**-2.0, offsets=offsets),
        }.items()
    }
    assert errors["weighted"] < 0.5 * errors["plain"]
    recovery = dmf.complete(table, weights=spread**-2.0, offsets=offsets)
    assert recovery.found.noise == pytest.approx(1, rel=0.1)
    seen = ~np.isnan(table)
    np.testing.assert_array_equal(recovery.filled()[seen], table[seen])


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("factor", [1e-6, 1.0, 1e4])
def test_only_ratios_of_weights_matter(offsets, factor, rng):
    """A common factor of 1 is no weights at all; any other scales the noise by its root and nothing else."""
    _, table, spread = noisy(rng, offsets=offsets)
    ones = np.ones_like(spread)
    for weights, reference in ((factor * ones, {}), (factor / spread**2, {"weights": spread**-2.0})):
        expected = dmf.complete(table, offsets=offsets, **reference)
        found = dmf.complete(table, weights=weights, offsets=offsets)
        np.testing.assert_allclose(found.product(), expected.product(), atol=2e-3)
        assert found.found.noise == pytest.approx(expected.found.noise * np.sqrt(factor), rel=2e-3)
        assert found.found.rank == expected.found.rank


def test_exact_data_stay_exact_under_weights(rng):
    matrix = rng.standard_normal((60, 3)) @ rng.standard_normal((3, 50))
    table = np.where(rng.random(matrix.shape) < 0.4, matrix, np.nan)
    recovery = dmf.complete(table, weights=10 ** rng.uniform(-1, 1, matrix.shape))
    assert recovery.found.exact and recovery.found.rank == 3
    np.testing.assert_allclose(recovery.product(), matrix, atol=1e-9)


def test_weight_zero_is_not_observed(rng):
    _, table, spread = noisy(rng)
    weights = spread**-2.0
    weights[:, 7] = 0
    without = table.copy()
    without[:, 7] = np.nan
    expected = dmf.complete(without, weights=weights)
    np.testing.assert_array_equal(dmf.complete(table, weights=weights).product(), expected.product())
    stored = scipy.sparse.csr_array(np.nan_to_num(table))
    sparse_weights = scipy.sparse.csr_array(np.where(np.isnan(table), 0, weights))
    np.testing.assert_array_equal(dmf.complete(stored, weights=sparse_weights).product(), expected.product())


def test_new_rows_by_their_weights(rng):
    """Ridge regression with the noise of each entry."""
    matrix, table, spread = noisy(rng, offsets=1.0)
    recovery = dmf.complete(table, weights=spread**-2.0, offsets=True)
    rows, cols = np.nonzero(~np.isnan(table[:3]))
    scaled = dmf.SampledEntries(rows, cols, table[rows, cols], (3, 50), 100 * spread[rows, cols] ** -2)
    as_if = dmf.SampledEntries(rows, cols, table[rows, cols], (3, 50), spread[rows, cols] ** -2)
    found = dmf.new_rows(recovery, as_if)
    # an entry of a hundredfold weight under the same noise is one of weight 1 under a tenth of it
    quieter = replace(recovery, found=replace(recovery.found, noise=recovery.found.noise / 10))
    quieter = dmf.new_rows(quieter, as_if)
    np.testing.assert_allclose(dmf.new_rows(recovery, scaled).product(), quieter.product(), rtol=1e-9, atol=1e-9)
    plain = dmf.new_rows(recovery, dmf.SampledEntries(rows, cols, table[rows, cols], (3, 50)))
    errors = [np.sqrt(np.mean((each.product() - matrix[:3]) ** 2)) for each in (found, plain)]
    assert errors[0] < errors[1]


def test_offsets_by_their_weights(rng):
    """Of a table without noise in half of its cells and a lot of it in the others."""
    matrix = rng.standard_normal((40, 1)) + rng.standard_normal(30) + 2
    good = rng.random(matrix.shape) < 0.5
    values = matrix + np.where(good, 0, 5) * rng.standard_normal(matrix.shape)
    rows, cols = np.nonzero(np.ones_like(good))
    entries = dmf.SampledEntries(rows, cols, values[rows, cols], matrix.shape, np.where(good, 1, 1e-8)[rows, cols])
    left, right = fit_offsets(entries).factors()
    np.testing.assert_allclose(left @ right, matrix, atol=1e-3)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_order_dtype_and_library(move, dtype, rng):
    """Sorted together with their positions, repeated ones in the order given; kept in the dtype of the values."""
    rows, cols = np.array([2, 0, 0, 1, 0]), np.array([1, 1, 0, 0, 1])
    values, weights = np.arange(5.0).astype(dtype), np.array([5.0, 4, 0, 2, 9])
    entries = dmf.SampledEntries(move(rows), move(cols), move(values), (3, 2), move(weights))
    assert to_host(entries.rows).tolist() == [0, 0, 1, 2]
    assert to_host(entries.entries).tolist() == [1, 4, 3, 0]
    assert to_host(entries.weights).tolist() == [4, 9, 2, 5]
    assert entries.weights.dtype == entries.values.dtype and to_host(entries.values).dtype == dtype
    np.testing.assert_allclose(to_host(entries.values), np.sqrt([4, 9, 2, 5]) * [1, 4, 3, 0], rtol=1e-6)
    filled = to_host(entries.fill(move(np.zeros((3, 2), dtype))))
    np.testing.assert_allclose(filled, [[0, (4 * 1 + 9 * 4) / 13], [3, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "kind", "words"),
    [
        ([1.0], dmf.errors.ShapeError, r"shape \(1,\), but there are 2 values"),
        ([1.0, -2.0], dmf.errors.ObservationError, "hold -2"),
        ([1.0, np.nan], dmf.errors.ObservationError, "weights holds 1 NaN"),
        ([1.0, np.inf], dmf.errors.ObservationError, "infinite"),
        ([0.0, 0.0], dmf.errors.ObservationError, "all weights are zero"),
        (["a", "b"], dmf.errors.DTypeError, "weights has dtype"),
        ([1j, 1], dmf.errors.DTypeError, "complex"),
    ],
)
def test_bad_weights(weights, kind, words):
    with pytest.raises(kind, match=words):
        dmf.SampledEntries([0, 1], [0, 1], [1.0, 2.0], (2, 2), np.array(weights))


def test_weights_that_do_not_go_with_the_data(rng):
    _, table, _ = noisy(rng)
    with pytest.raises(dmf.errors.ShapeError, match=r"weights have shape \(50,\), but the matrix \(60, 50\)"):
        dmf.complete(table, weights=np.ones(50))
    with pytest.raises(dmf.errors.ArgumentError, match="Pass SampledEntries"):
        dmf.complete(dmf.SampledEntries.from_dense(table), weights=np.ones((60, 50)))


def test_weights_beyond_the_precision_of_the_values_are_refused():
    with pytest.raises(dmf.errors.ObservationError, match="weights holds 1"):
        dmf.SampledEntries([0, 1], [0, 1], np.ones(2, np.float32), (2, 2), np.array([1.0, 1e300]))


@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("seed", range(2))
def test_a_few_entries_of_a_thousandfold_weight(seed, share):
    """They are nearly exact, and take nothing from the others: 3 to 3.5 % of error without them."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((80, 3)) @ rng.standard_normal((3, 60))
    rows, cols = np.nonzero(rng.random(truth.shape) < 0.4)
    weights = np.where(rng.random(rows.size) < share, 1000.0, 1.0)
    values = truth[rows, cols] + 0.1 / np.sqrt(weights) * rng.standard_normal(rows.size)
    run = dmf.complete(dmf.SampledEntries(rows, cols, values, truth.shape, weights), offsets=False)
    assert np.linalg.norm(run.product() - truth) < 0.05 * np.linalg.norm(truth)
    assert run.found.rank == 3 and 0.09 < run.found.noise < 0.12
