"""Tables that share their frames need a fraction of the entries; tables that do not are left apart."""

import numpy as np
import pytest

import dmf
from dmf.completion import together
from dmf.errors import ArgumentError, DmfError, RankError, ShapeError

from helpers import ctrl_c_at


def relations(rng, count, d1, d2, rank, noise, share):
    """Tables U C_k V^T with entries of mean square 1, and the same with noise and holes."""
    u, v, cores = (rng.standard_normal(s) for s in ((d1, rank), (d2, rank), (count, rank, rank)))
    truth = np.einsum("ia,kab,jb->kij", u, cores, v)
    truth /= truth.std()
    seen = np.where(rng.random(truth.shape) < share, truth + noise * rng.standard_normal(truth.shape), np.nan)
    return truth, seen


def error(found, truth):
    return np.linalg.norm([t.product() for t in found] - truth) / np.linalg.norm(truth)


def test_shared_frames_are_found_from_fewer_entries_than_one_table_has_unknowns(rng):
    """Exact, though each table alone has fewer entries than degrees of freedom: r (d1 + d2 - r) = 154."""
    truth, seen = relations(rng, 8, 40, 39, 2, 0.0, 0.08)
    assert max(np.sum(~np.isnan(table)) for table in seen) < 154
    found = dmf.complete_together(list(seen), 2)
    assert found.shared
    assert error(found, truth) < 1e-8
    assert np.all(found[3].filled()[~np.isnan(seen[3])] == seen[3][~np.isnan(seen[3])])


def test_noise_is_estimated_and_borrowed_strength_pays(rng):
    truth, seen = relations(rng, 5, 30, 25, 2, 0.2, 0.3)
    found = dmf.complete_together(list(seen), 2)
    alone = [dmf.complete(table, 2, offsets=False) for table in seen]
    assert found.shared
    assert found.noise == pytest.approx(0.2, rel=0.15)
    assert error(found, truth) < 0.7 * error(alone, truth)


def test_tables_that_share_nothing_are_left_apart(rng):
    """No worse than tables completed alone, as they then are."""
    pairs = [relations(rng, 1, 30, 30, 2, 0.05, 0.5) for _ in range(3)]
    truth, seen = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    found = dmf.complete_together(list(seen), 2)
    assert not found.shared
    assert found.heldout["apart"] < found.heldout["together"]
    assert error(found, truth) == pytest.approx(error([dmf.complete(t, 2, offsets=False) for t in seen], truth))


def test_entries_of_low_weight_hardly_count(rng):
    """One in ten is wrong, and known to be; the noise is that of an entry of weight 1."""
    truth, seen = relations(rng, 4, 30, 25, 2, 0.1, 0.5)
    tables = []
    for table in seen:
        rows, cols = np.nonzero(~np.isnan(table))
        bad = rng.random(rows.size) < 0.1
        values = table[rows, cols] + 20 * rng.standard_normal(rows.size) * bad
        tables.append(dmf.SampledEntries(rows, cols, values, table.shape, 4 * np.where(bad, 1e-9, 1.0)))
    found = dmf.complete_together(tables, 2)
    assert found.shared and error(found, truth) < 0.1
    assert found.noise == pytest.approx(0.2, rel=0.15)  # of weight 4, an entry has half of it


@pytest.mark.parametrize("unit", [2.0**-400, 2.0**390])  # 4e-121 and 3e117
def test_the_unit_of_the_tables_does_not_matter(unit, rng):
    _, seen = relations(rng, 3, 20, 15, 1, 0.1, 0.5)
    usual, far = (dmf.complete_together(list(factor * seen), 1) for factor in (1.0, unit))
    assert usual.shared and far.shared
    np.testing.assert_allclose(far[1].product() / unit, usual[1].product(), rtol=1e-6, atol=1e-9)
    assert far.noise / unit == pytest.approx(usual.noise)
    assert far.heldout["together"] / unit == pytest.approx(usual.heldout["together"])


def test_data_frames_come_back_filled(rng):
    pandas = pytest.importorskip("pandas")
    truth, seen = relations(rng, 3, 20, 15, 1, 0.0, 0.6)
    found = dmf.complete_together(
        [pandas.DataFrame(t).rename(columns="c{}".format, index="r{}".format) for t in seen], 1
    )
    filled = found[1].filled()
    assert isinstance(filled, pandas.DataFrame) and filled.columns[2] == "c2" and filled.index[-1] == "r19"
    np.testing.assert_allclose(filled.to_numpy(), truth[1], atol=1e-7)


def test_parts_and_frames_without_a_gram_matrix_find_the_same(rng, monkeypatch):
    """As in large tables, of which neither all products nor the Gram matrix are formed at once."""
    truth, seen = relations(rng, 8, 40, 39, 2, 0.0, 0.12)
    monkeypatch.setattr(together, "_AT_ONCE", 4_000)
    monkeypatch.setattr(together, "_DENSE", 1)
    monkeypatch.setattr(together, "_ONE_BY_ONE", 20)
    assert error(dmf.complete_together(list(seen), 2), truth) < 1e-8


def test_a_rank_that_fits_no_memory_is_refused():
    tables = [dmf.SampledEntries([0], [0], [1.0], (10**5, 10**5))] * 2
    with pytest.raises(ArgumentError, match=r"rank=2000, but the normal matrices of 2 tables .* GB") as caught:
        dmf.complete_together(tables, 2000)
    assert caught.value.argument == "rank"


def test_ctrl_c_in_the_fit_of_one_table_ends_the_whole(rng, monkeypatch):
    _, seen = relations(rng, 2, 20, 20, 1, 0.3, 0.5)
    calls = ctrl_c_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        dmf.complete_together(list(seen), 1)
    assert len(calls) == 1


def test_zeros_stay_zeros():
    assert np.all(dmf.complete_together([np.zeros((4, 4)), np.zeros((4, 4))], 1)[0].product() == 0)


@pytest.mark.parametrize(
    ("tables", "rank", "kind"),
    [
        ([np.ones((3, 3))], 1, ArgumentError),
        (np.ones((3, 3)) is None, 1, ArgumentError),
        ([np.ones((3, 3)), np.ones((3, 4))], 1, ShapeError),
        ([np.ones((3, 3)), np.ones((3, 3))], 4, RankError),
        ([np.ones((3, 3)), np.full((3, 3), np.nan)], 1, DmfError),
    ],
)
def test_what_cannot_be_completed_together_is_refused(tables, rank, kind):
    with pytest.raises(kind):
        dmf.complete_together(tables, rank)
