"""Updates by new entries, rows and columns come close to a fit of everything, and do not drift."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.errors import DmfError


def problem(rng, noise, shape=(60, 80), rank=3, share=0.5):
    truth = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1])) / rank**0.5
    return truth, truth + noise * rng.standard_normal(shape), rng.random(shape) < share


def entries(matrix, mask, shape=None):
    return dmf.SampledEntries(*np.nonzero(mask), matrix[mask], matrix.shape if shape is None else shape)


def error(recovery, truth):
    return np.linalg.norm(recovery.product() - truth) / np.linalg.norm(truth)


@pytest.mark.parametrize("noise", [0.0, 0.2])
def test_new_columns_with_a_direction_of_their_own_are_learned(noise, rng):
    """Within 1 % of a fit of everything; without noise, exact."""
    truth, matrix, mask = problem(rng, noise)
    own = 1.5 * np.outer(rng.standard_normal(60), rng.standard_normal(20))
    truth[:, 60:] += own
    matrix[:, 60:] += own
    old = dmf.complete(entries(matrix[:, :60], mask[:, :60]), offsets=False)
    assert old.found.rank == 3
    mask_new = mask & (np.arange(80) >= 60)
    updated = old.update(entries(matrix, mask_new))
    whole = dmf.complete(entries(matrix, mask), offsets=False)
    assert updated.shape == (60, 80)
    assert updated.found.rank == whole.found.rank == 4
    assert updated.found.exact == (noise == 0)
    assert len(updated.runs) == 1  # from what the new columns show: no other rank or start is tried
    assert error(updated, truth) <= (1.01 * error(whole, truth) if noise else 1e-9)
    assert updated.observations.n_measurements == mask.sum()


def test_a_stream_of_updates_does_not_drift(rng):
    """Entries in parts, each time a few more: at the end within 2 % of a fit of everything."""
    truth, matrix, mask = problem(rng, 0.2, (40, 40))
    part = np.where(mask, rng.integers(0, 8, mask.shape), -1)
    recovery = dmf.complete(entries(matrix, (part >= 0) & (part < 4)), offsets=False)
    for number in range(4, 8):
        recovery = recovery.update(entries(matrix, part == number))
    whole = dmf.complete(entries(matrix, mask), offsets=False)
    assert recovery.found.noise == pytest.approx(whole.found.noise, rel=0.02)
    assert error(recovery, truth) < 1.02 * error(whole, truth)


@settings(max_examples=3)
@given(seed=st.integers(0, 10**6), noise=st.sampled_from([0.05, 0.3]), own=st.booleans())
def test_new_rows_columns_and_entries_at_once_are_those_of_a_fit_of_everything(seed, noise, own):
    """Whatever comes first: 50 x 60 of 70 x 75 are known, in part; the new columns perhaps have a direction of their own."""
    rng = np.random.default_rng(seed)
    truth, matrix, mask = problem(rng, noise, (70, 75))
    if own:
        more = np.outer(rng.standard_normal(70), np.r_[np.zeros(60), rng.standard_normal(15)])
        truth, matrix = truth + more, matrix + more
    first = mask & (rng.random(mask.shape) < 0.8)
    first[50:] = first[:, 60:] = False
    old = dmf.complete(entries(matrix[:50, :60], first[:50, :60]), offsets=False)
    updated = old.update(entries(matrix, mask & ~first))
    whole = dmf.complete(entries(matrix, mask), offsets=False)
    assert updated.found.rank == whole.found.rank == 3 + own
    assert error(updated, truth) <= 1.02 * error(whole, truth)
    assert updated.found.noise == pytest.approx(whole.found.noise, rel=0.02)


def test_offsets_are_updated_with_the_rest(rng):
    """Ratings of new users, and of old ones: within 2 % of a fit of everything, and of the same offsets."""
    truth, matrix, mask = problem(rng, 0.3, (90, 60), 2, 0.3)
    offsets = 3 + rng.standard_normal((90, 1)) + rng.standard_normal(60)
    truth, matrix = truth + offsets, matrix + offsets
    first = mask & (rng.random(mask.shape) < 0.9) & (np.arange(90) < 75)[:, None]
    old = dmf.complete(entries(matrix[:75], first[:75]))
    updated, whole = old.update(entries(matrix, mask & ~first)), dmf.complete(entries(matrix, mask))
    assert updated.found.offsets and whole.found.offsets
    assert error(updated, truth) <= 1.02 * error(whole, truth)
    assert np.corrcoef(updated.offsets.row[75:], whole.offsets.row[75:])[0, 1] > 0.99


def test_a_start_that_leads_astray_is_left(rng):
    """Little noise and few entries in each new column: from the old model sweeps end at a wrong minimum, with more noise."""
    truth, matrix, mask = problem(rng, 0.02, (200, 200), 3, 0.09)
    own = np.outer(rng.standard_normal(200), np.r_[np.zeros(180), rng.standard_normal(20)])
    truth, matrix = truth + own, matrix + own
    old = dmf.complete(entries(matrix[:, :180], mask[:, :180]), offsets=False)
    updated = old.update(entries(matrix, mask & (np.arange(200) >= 180)))
    whole = dmf.complete(entries(matrix, mask), offsets=False)
    assert len(updated.runs) == 2 and updated.runs[0].noise > 1.3 * updated.runs[1].noise
    assert updated.found.noise == pytest.approx(whole.found.noise, rel=0.1)
    assert error(updated, truth) < 1.1 * error(whole, truth)


def test_what_is_no_update_is_refused(rng):
    _, matrix, mask = problem(rng, 0.1, (12, 10), 1, 0.8)
    recovery = dmf.complete(entries(matrix, mask), offsets=False)
    for wrong in (
        matrix,
        entries(matrix[:5], mask[:5]),
        entries(matrix.astype(np.float32), mask),
    ):
        with pytest.raises(DmfError) as caught:
            recovery.update(wrong)
        assert caught.value.argument == "observations"
    with pytest.raises(DmfError, match="new_rows"):
        dmf.factorize(matrix, 1).update(entries(matrix, mask))


def test_rows_without_entries_are_told_as_they_are_after_an_update(rng):
    truth, matrix, mask = problem(rng, 0.0, (40, 30))
    mask[39] = False
    old = dmf.complete(entries(matrix, mask), offsets=False)
    assert old.found.undetermined == ((39,), ())
    row = np.zeros((42, 30), bool)
    row[39], row[41] = True, True
    updated = old.update(entries(np.vstack([matrix, truth[:2]]), row))
    assert updated.found.undetermined == ((40,), ()) and "39" not in updated.message


@pytest.mark.parametrize("value", [3.0, 5.0])
def test_an_update_of_equal_entries_asks_whether_they_still_are(value):
    old = dmf.complete(np.where(np.eye(10, 8) > 0, np.nan, 3.0))
    assert old.found.constant
    updated = old.update(dmf.SampledEntries(np.full(8, 10), np.arange(8), np.full(8, value), (11, 8)))
    assert updated.found.exact and updated.found.constant == (value == 3.0)
