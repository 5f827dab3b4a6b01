"""Predictions and rankings written by workers are those of one process."""

import numpy as np
import pytest

import dmf
from dmf.errors import FileError, ObservationError, ShapeError
from dmf.recovery.ranking import top_columns

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dmf[dask]'")
pandas = pytest.importorskip("pandas")

from dmf.observations import DistributedEntries  # noqa: E402
from dmf.recovery.partitions import predict_partitions, top_partitions  # noqa: E402

NAMES = "user", "item", "stars"


@pytest.fixture(scope="module")
def client():
    """Two workers in this process."""
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def fitted():
    """A table, and a recovery with names and held-out errors."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(0, 30, 400), rng.integers(0, 12, 400)
    stars = 3 + rng.standard_normal(30)[users] * rng.standard_normal(12)[items] + 0.1 * rng.standard_normal(400)
    frame = pandas.DataFrame({"user": [f"u{k}" for k in users], "item": items, "stars": stars})
    seen = dmf.SampledEntries.from_frame(frame, *NAMES)
    return frame, dmf.complete(seen, 1, offsets=True, holdout=0.2, iterations=5, bounds=(0, 6))


def test_predictions(client, fitted, tmp_path):
    frame, recovery = fitted
    pairs = pandas.concat([frame, pandas.DataFrame({"user": ["u1", "nobody"], "item": [99, 99]})])
    pairs.to_parquet(tmp_path / "pairs.parquet", row_group_size=150)
    done = predict_partitions(
        recovery, tmp_path / "pairs.parquet", "user", "item", tmp_path / "out", client, coverage=0.9
    )
    found = pandas.read_parquet(tmp_path / "out")
    assert done == (402, 2) and len(list((tmp_path / "out").iterdir())) == 3
    values, known = recovery.predict_named(list(pairs["user"]), list(pairs["item"]))
    assert list(found.columns) == ["row", "column", "prediction", "low", "high"]
    np.testing.assert_array_equal(found["prediction"], values)
    np.testing.assert_array_equal(found["low"].isna(), ~known)
    low, high = dmf.recovery.intervals.interval_around(recovery, values, 0.9)
    np.testing.assert_array_equal(found["low"][known], low[known])
    np.testing.assert_array_equal(found["high"][known], high[known])
    np.testing.assert_array_equal(found["row"], pairs["user"])


def ranked(folder):
    found = pandas.read_parquet(folder)
    return sorted(zip(found["row"], found["column"], found["prediction"], strict=True))


def expected(recovery, seen):
    rows, cols, values = top_columns(recovery, np.arange(recovery.shape[0]), 3, seen)
    return sorted((recovery.row_ids[i], recovery.col_ids[j], v) for i, j, v in zip(rows, cols, values, strict=True))


def test_best_columns(client, fitted, tmp_path):
    """Without seen entries; without those fitted; and without some of other rows and columns, in another order."""
    frame, recovery = fitted
    assert top_partitions(recovery, 3, tmp_path / "all", client) == 3 * recovery.shape[0]
    assert ranked(tmp_path / "all") == expected(recovery, None)
    there = DistributedEntries.from_entries(recovery.observations, client, 3)
    top_partitions(recovery, 3, tmp_path / "unseen", client, seen=there)
    assert ranked(tmp_path / "unseen") == expected(recovery, recovery.observations)
    some = frame[frame["user"] != "u3"][::-1].replace({"user": {"u5": "nobody"}})
    some.to_parquet(tmp_path / "some.parquet", row_group_size=50)
    other = DistributedEntries.from_parquet(tmp_path / "some.parquet", *NAMES, client)
    top_partitions(recovery, 3, tmp_path / "other", client, seen=other)
    left = ~frame["user"].isin(["u3", "u5"])
    rows, cols = (np.array([ids.index(str(name)) for name in frame[column][left]])
                  for ids, column in ((recovery.row_ids, "user"), (recovery.col_ids, "item")))  # fmt: skip
    seen = dmf.SampledEntries(rows, cols, np.ones(rows.size), recovery.shape)
    assert ranked(tmp_path / "other") == expected(recovery, seen)


def test_nothing_half_written(client, fitted, tmp_path):
    frame, recovery = fitted
    frame.assign(user=frame["user"].where(frame.index != 7)).to_parquet(tmp_path / "pairs.parquet")
    arguments = tmp_path / "pairs.parquet", "user", "item"
    with pytest.raises(ObservationError, match=r"pairs.parquet: column 'user' has no id in row 7"):
        predict_partitions(recovery, *arguments, tmp_path / "out", client)
    with pytest.raises(FileError, match="there is something already"):
        predict_partitions(recovery, *arguments, tmp_path, client)
    with pytest.raises(FileError, match="cannot be written"):
        predict_partitions(recovery, *arguments, tmp_path / "no" / "out", client)
    with pytest.raises(ShapeError, match="no names"):
        there = DistributedEntries.from_entries(dmf.SampledEntries([0], [0], [1.0], (2, 2)), client)
        top_partitions(recovery, 1, tmp_path / "out", client, seen=there)
    assert [path.name for path in tmp_path.iterdir()] == ["pairs.parquet"]
