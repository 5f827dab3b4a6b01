"""Updates by new entries, rows and columns come close to a fit of everything, and do not drift."""

import numpy as np
import pytest

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
