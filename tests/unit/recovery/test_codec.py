"""Model files of the precision that the posterior has."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dmf
from dmf.errors import ArgumentError, FileError
from dmf.io.archive import read_archive, write_archive

pytest.importorskip("constriction", reason="small model files need constriction")


def noisy(seed, shape=(90, 70), rank=3, noise=0.3, share=0.4, dtype=float, offsets=0.0):
    """Truth, and noisy entries."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((shape[0], rank)) @ rng.standard_normal((rank, shape[1]))
    truth = truth + offsets * (rng.standard_normal((shape[0], 1)) + rng.standard_normal(shape[1]))
    rows, cols = np.nonzero(rng.random(shape) < share)
    values = truth[rows, cols] + noise * rng.standard_normal(rows.size)
    return truth, dmf.SampledEntries(rows, cols, values.astype(dtype), shape)


@settings(max_examples=4)
@given(seed=st.integers(0, 10**6), noise=st.sampled_from([0.01, 0.3]), offsets=st.sampled_from([0.0, 3.0]))
def test_what_is_lost_is_small_beside_what_noise_hides(seed, noise, offsets, folder):
    """Rounding adds at most a hundredth to the squared error, and the file is a sixth as large or less."""
    truth, entries = noisy(seed, noise=noise, offsets=offsets)
    recovery = dmf.complete(entries, 3, offsets="auto")
    recovery.save(folder / "m.npz")
    recovery.save(folder / "m.dmfz", precision="posterior")
    loaded = dmf.load(folder / "m.dmfz")
    error = np.mean((recovery.product() - truth) ** 2)
    # What rounding moves. The error itself may fall or rise by more: moves and errors are in step or not, by chance.
    assert np.mean((loaded.product() - recovery.product()) ** 2) < 0.01 * error
    assert 6 * (folder / "m.dmfz").stat().st_size < (folder / "m.npz").stat().st_size + 6 * 3_500  # which headers take
    assert (loaded.found, loaded.outcome, loaded.settings, loaded.runs) == (
        recovery.found,
        recovery.outcome,
        recovery.settings,
        recovery.runs,
    )
    assert loaded.message == recovery.message


def test_the_rate_is_the_entropy_of_the_model(tmp_path):
    """Streams are no longer than what the distributions of their numbers say, and 5 %."""
    scipy_stats = pytest.importorskip("scipy.stats")
    _, entries = noisy(0, (400, 300), share=0.3)
    recovery = dmf.complete(entries, 3)
    recovery.save(tmp_path / "m.dmfz", precision="posterior")
    _, arrays = read_archive(tmp_path / "m.dmfz")
    loaded = dmf.load(tmp_path / "m.dmfz")
    scales, bits = arrays["scales"], 0.0
    left, right = loaded.model.halves()
    for side, numbers in enumerate((left, right.T)):
        sizes = np.std(numbers, axis=0)
        # A Gaussian of this size, rounded to steps of a quarter of the posterior deviation.
        steps = scales[side, 0, :-1]
        bits += numbers.shape[0] * np.sum(scipy_stats.norm.entropy(scale=sizes / steps) / np.log(2))
    coded = 32 * (arrays["stream_row"].size + arrays["stream_col"].size)
    assert coded < 1.15 * bits + 2 * 32  # and the octaves of rows


def test_every_kind_of_field(tmp_path):
    _, entries = noisy(1, dtype=np.float32, offsets=2.0)
    recovery = dmf.complete(entries, holdout=0.1, outliers=True, bounds=(-50, 50))
    recovery = recovery.with_ids([f"r{k}" for k in range(90)], [f"ü{k}" for k in range(70)])
    recovery.save(tmp_path / "m.dmfz", precision="posterior")
    loaded = dmf.load(tmp_path / "m.dmfz")
    assert loaded.product().dtype == np.float32
    assert (loaded.row_ids, loaded.col_ids, loaded.bounds) == (recovery.row_ids, recovery.col_ids, recovery.bounds)
    np.testing.assert_array_equal(loaded.outliers.rows, recovery.outliers.rows)
    np.testing.assert_allclose(loaded.heldout.quantiles, recovery.heldout.quantiles, rtol=1e-3)
    assert loaded.history.iteration.tolist() == [recovery.nit]
    loaded.save(tmp_path / "again.npz")
    np.testing.assert_array_equal(dmf.load(tmp_path / "again.npz").product(), loaded.product())


def test_what_has_no_posterior_is_refused(tmp_path):
    _, entries = noisy(2)
    recovery = dmf.complete(entries, 3)
    path = tmp_path / "m.dmfz"
    with pytest.raises(ArgumentError, match="holds no entries"):
        replace(recovery, observations=None).save(path, precision="posterior")
    with pytest.raises(ArgumentError, match="no noise"):
        replace(recovery, found=replace(recovery.found, noise=0.0)).save(path, precision="posterior")
    with pytest.raises(ArgumentError, match="too small"):
        replace(recovery, found=replace(recovery.found, noise=1e-9)).save(path, precision="posterior")
    with pytest.raises(ArgumentError, match="full, posterior"):
        recovery.save(path, precision="half")
    assert not path.exists()


@settings(max_examples=40)
@given(data=st.data())
def test_damage_is_seen(data, folder):
    """Whatever bytes of the parts change: an error that names the file, or the same numbers."""
    path = folder / "whole.dmfz"
    if not path.exists():
        dmf.complete(noisy(3, (20, 15), 2, share=0.7)[1], 2).save(path, precision="posterior")
    header, arrays = read_archive(path)
    name = data.draw(st.sampled_from(["stream_row", "stream_col", "content"]))
    changed = arrays[name].copy()
    at = data.draw(st.integers(0, changed.size - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    write_archive(folder / "damaged.dmfz", header, arrays | {name: changed})
    try:
        loaded = dmf.load(folder / "damaged.dmfz")
    except FileError as error:
        assert "damaged.dmfz" in str(error)
    else:
        np.testing.assert_array_equal(loaded.product(), dmf.load(path).product())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("shape", [10**9, 10**9]), ("shape", [0, 3]), ("shape", "big"), ("width", -1), ("dtype", "int8"), ("sides", []),
        ("sides", [[0, 0, 0, 0]] * 2), ("sides", [[4, 0, 1, 0]] * 2),
        ("arrays", {"u": ["O", [1]]}), ("arrays", {"u": ["<f8", [10**9]]}),
        ("format_version", 99),
    ],
)  # fmt: skip
def test_headers_are_not_trusted(name, value, tmp_path):
    path = tmp_path / "m.dmfz"
    dmf.complete(noisy(4, (20, 15), 2, share=0.7)[1], 2).save(path, precision="posterior")
    header, arrays = read_archive(path)
    write_archive(path, header | {name: value}, arrays)
    with pytest.raises(FileError, match=r"m\.dmfz"):
        dmf.load(path)
