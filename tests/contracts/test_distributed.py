"""Entries on the workers of a cluster keep the contract: they compute what the same entries in one process do."""

from dataclasses import replace

import numpy as np
import pytest

import dmf
from dmf.errors import ArgumentError, BackendError, FileError, ObservationError, ShapeError

distributed = pytest.importorskip("distributed", reason="Dask is not installed: pip install 'dmf[dask]'")

from dmf.observations.block import Block, call  # noqa: E402
from dmf.observations.distributed import DistributedEntries  # noqa: E402
from dmf.solvers.clipping import ends_of  # noqa: E402

BLOCKS = 3


@pytest.fixture(scope="module")
def client():
    """Two workers in this process."""
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def skewed(weighted, dtype=np.float64):
    """Entries of which most are in a few columns; one row and one column are empty, and a position is seen twice."""
    rng = np.random.default_rng(0)
    rows, cols = np.nonzero(rng.random((41, 30)) < 3 / (3 + np.arange(30)))
    kept = (rows != 40) & (cols != 7)
    rows, cols = np.append(rows[kept], 3), np.append(cols[kept], 0)
    left, right = rng.standard_normal((41, 2)), rng.standard_normal((2, 30))
    values = (2 + left @ right)[rows, cols] + 0.1 * rng.standard_normal(rows.size)
    weights = rng.uniform(0.5, 2, rows.size).astype(dtype) if weighted else None
    return dmf.SampledEntries(rows, cols, values.astype(dtype), (41, 30), weights)


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "weighted"])
def pair(request, client):
    here = skewed(request.param)
    return here, DistributedEntries.from_entries(here, client, BLOCKS)


def factors(width=3):
    rng = np.random.default_rng(1)
    return rng.standard_normal((41, width)), rng.standard_normal((width, 30))


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)


def test_sizes(pair):
    here, there = pair
    for name in ("shape", "n_measurements", "n_distinct", "dtype"):
        assert getattr(there, name) == getattr(here, name)
    for name in ("mean_square", "largest", "gain", "mean_weight"):
        close(getattr(there, name), getattr(here, name))
    for side in (0, 1):
        np.testing.assert_array_equal(there.counts(side), here.counts(side))
    for mine, other in zip(there.connectivity(), here.connectivity(), strict=True):
        same = mine[:, None] == mine
        np.testing.assert_array_equal(same, other[:, None] == other)


def test_products(pair):
    here, there = pair
    left, right = factors()
    for found, expected in zip(there.evaluate(left, right), here.evaluate(left, right), strict=True):
        close(found, expected)
    for weights in (lambda one: one.values, lambda one: one.predict(left, right)):
        found, expected = (one.adjoint(weights(one), left, right) for one in (there, here))
        for mine, other in zip(found, expected, strict=True):
            close(mine, other)
    close(there.best_scale(left, right), here.best_scale(left, right))
    for side, factor in ((0, right.T), (1, left)):
        close(there.pattern_product(side, factor), here.pattern_product(side, factor))
    step = np.random.default_rng(2).standard_normal((71, 3))
    close(there.tangent_normal(left, right)(step), here.tangent_normal(left, right)(step))


def test_regression(pair):
    """The rows of a fit have the bits of one process: each of them is fitted by one task."""
    here, there = pair
    left, right = factors()
    for side, factor in ((0, right.T), (1, left)):
        other = (left, right.T)[side]
        for options in ({}, {"variances": factor**2, "means": other}):
            found, expected = (one.ridge(side, factor, np.ones(3), **options) for one in (there, here))
            np.testing.assert_array_equal(found.rows, expected.rows)
            assert (found.variances is None) == (expected.variances is None)
            if options:
                np.testing.assert_array_equal(found.variances, expected.variances)
            close(found[2:], expected[2:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipped_entries(client, dtype):
    """Of the fifth largest value and what is beyond it the same is known wherever the entries are."""
    rows, cols, values = (getattr(skewed(False), name) for name in ("rows", "cols", "entries"))
    here = dmf.SampledEntries(rows, cols, np.minimum(values, np.sort(values)[-5]).astype(dtype), (41, 30))
    there = DistributedEntries.from_entries(here, client, BLOCKS)
    ends = ends_of(here)
    assert ends == ends_of(there) == (-np.inf, here.entries.max())
    left, right = (factor.astype(dtype) for factor in factors())
    found, expected = (
        one.clipped(ends, one.centred()[1]).expected(one.centred()[1], left, right, 0.3) for one in (there, here)
    )
    eps = float(np.finfo(dtype).eps)
    np.testing.assert_allclose(found[0].gathered().values, expected[0].values, rtol=10 * eps, atol=10 * eps)
    assert found[1] == pytest.approx(expected[1], rel=10 * eps) and found[1] > 0
    assert ends_of(DistributedEntries.from_entries(skewed(True), client, BLOCKS)) is None


def test_other_entries(pair):
    here, there = pair
    left, right = factors()
    assert there.with_values(there.values).loss(left, right) == there.loss(left, right)
    ways = {
        "without a product": lambda one: one.minus(left, right),
        "without the mean": lambda one: one.centred()[1],
        "times a number": lambda one: one.scaled(-0.5),
        "with others": lambda one: one.with_values(one.predict(left, right)),
        "in some rows and columns": lambda one: one.restricted(np.arange(9, 40, 2), np.arange(25)),
        "held out": lambda one: one.split(0.3, 5)[1],
        "kept": lambda one: one.split(0.3, 5)[0],
    }
    for way in ways.values():
        found, expected = way(there).gathered(), way(here)
        assert found.shape == expected.shape
        np.testing.assert_array_equal(found.rows, expected.rows)
        np.testing.assert_array_equal(found.cols, expected.cols)
        close(found.values, expected.values)
    with pytest.raises(ObservationError, match="no entry is observed"):
        there.restricted(np.array([40]), np.arange(30))


@pytest.mark.parametrize("weighted", [False, True])
def test_passes_on_a_device(weighted):
    """A block whose entries are elsewhere (here arrays of array-api-strict) computes there, and returns arrays of the host."""
    strict = pytest.importorskip("array_api_strict")
    place = {"device": strict.Device("device1")}
    here, bounds = skewed(weighted), np.array([0, 11, 30])
    block = Block.of(here.rows, here.cols, here.entries, here.weights, (0, 41), bounds)
    arrays = (here.rows, here.cols, here.entries, here.weights)
    entries = dmf.SampledEntries(*(a if a is None else strict.asarray(a, **place) for a in arrays[:3]), here.shape,
                                 None if here.weights is None else strict.asarray(here.weights, **place))  # fmt: skip
    met = block.taken([(np.arange(30)[begin:end],) for begin, end in ((0, 11), (11, 30))])[0]
    there = replace(block, entries=entries.restricted(np.arange(41), met), device="device1")
    left, right = factors()
    parts = [(right.T[begin:end], right.T[begin:end] ** 2) for begin, end in ((0, 11), (11, 30))]
    for method, arguments in {
        "ridge": (parts, (left,), np.ones(3), True),
        "predicted": (parts, (left,)),
        "product": (parts, (left,)),
        "applied": (parts,),
        "residual": (parts, (left,)),
        "loss": (parts, (left,)),
        "products": (parts, (left,)),
        "pattern": (parts,),
    }.items():
        mine, other = (call(method, each, *arguments) for each in (there, block))
        for found, expected in zip(*map(flat, (mine, other)), strict=True):
            assert isinstance(found, (float, np.ndarray, np.floating))
            close(found, expected)
    assert call("minus", there, parts, (left,)).device == "device1"


def flat(found):
    return found if isinstance(found, tuple) else (found,)


def test_completion(client, rng):
    """The same model, errors and outcome, with offsets and a hold-out."""
    here = skewed(False)
    there = DistributedEntries.from_entries(here, client, BLOCKS)
    options = {"rank": 2, "offsets": True, "holdout": 0.2, "iterations": 3, "bounds": (-9, 9)}
    one, other = (dmf.complete(data, **options) for data in (here, there))
    assert one.outcome == other.outcome and one.found.rank == other.found.rank
    close(other.heldout.rmse, one.heldout.rmse)
    np.testing.assert_allclose(other.filled(), one.filled(), rtol=1e-10)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_fit_starts_with_the_bits_of_one_process(client, weighted):
    """In single precision, too: a difference in the last bits grows while components appear."""
    here = skewed(weighted, np.float32)
    one, other = (each.centred()[1] for each in (here, DistributedEntries.from_entries(here, client, BLOCKS)))
    for mine, found in zip(one.surrogate_svd(2), other.surrogate_svd(2), strict=True):
        np.testing.assert_array_equal(found, mine)


def test_the_number_of_workers_changes_no_bit(client):
    here, (left, right) = skewed(True, np.float32), factors()
    left, right = left.astype(np.float32), right.astype(np.float32)
    found = []
    for workers in (1, 2):
        with (
            distributed.LocalCluster(
                n_workers=workers, threads_per_worker=2, processes=False, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster, set_as_default=False) as some,
        ):
            there = DistributedEntries.from_entries(here, some, BLOCKS)
            fit = there.ridge(0, right.T, np.ones(3, np.float32), right.T**2)
            found.append((*there.evaluate(left, right), there.mean_square, *fit))
    for mine, other in zip(*found, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_bad_arguments(client, monkeypatch):
    with pytest.raises(ArgumentError, match="SampledEntries is needed"):
        DistributedEntries.from_entries(np.eye(3), client)
    with pytest.raises(ArgumentError, match="blocks=0"):
        DistributedEntries.from_entries(skewed(False), client, 0)
    there = DistributedEntries.from_entries(skewed(False), client, 1)
    assert there.to_device("cpu") is there
    with pytest.raises(ArgumentError, match="device='gpu'"):
        there.to_device("gpu")
    monkeypatch.setattr(client, "run", lambda *args, **options: {"tcp://one": {"Python": "2.7"}})
    with pytest.raises(BackendError, match="tcp://one has"):
        DistributedEntries.from_entries(skewed(False), client)


def table(rows=60):
    """A long table with ids of text and a few holes."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(3)
    users, items = rng.integers(0, 9, rows), rng.integers(0, 7, rows)
    stars = np.where(rng.random(rows) < 0.1, np.nan, rng.integers(1, 6, rows))
    return pandas.DataFrame({"user": [f"u{k}" for k in users], "item": items, "stars": stars, "when": 0})


NAMES = "user", "item", "stars"


def assert_same_entries(found, expected):
    here = found.gathered()
    for name in ("shape", "n_measurements"):
        assert getattr(here, name) == getattr(expected, name)
    for name in ("rows", "cols", "values"):
        np.testing.assert_array_equal(getattr(here, name), getattr(expected, name))
    assert (found.form.row_ids, found.form.col_ids) == (expected.form.row_ids, expected.form.col_ids)
    for side in (0, 1):
        np.testing.assert_array_equal(found.counts(side), expected.counts(side))


def test_parquet(client, tmp_path):
    """Some row groups make a partition; ids are numbered as in one table; an empty file changes nothing."""
    frame = table()
    frame[:30].to_parquet(tmp_path / "a.parquet", row_group_size=2)
    frame[:0].to_parquet(tmp_path / "b.parquet")
    frame[30:].to_parquet(tmp_path / "c.parquet")
    there = DistributedEntries.from_parquet(tmp_path, *NAMES, client, BLOCKS)
    assert_same_entries(there, dmf.SampledEntries.from_frame(frame, *NAMES))


def test_ids_that_partitions_hold_in_other_types(client, tmp_path):
    """Whole numbers, floats and text with numbers between, each id in several files; numbered as in one table."""
    pandas = pytest.importorskip("pandas")
    rng = np.random.default_rng(6)
    users = [rng.integers(-4, 9, 40), rng.integers(-4, 9, 40).astype(float), rng.integers(-4, 9, 40).astype(np.int32)]
    items = [np.array([f"i{k}" for k in rng.integers(0, 9, 40)]) for _ in users]
    frames = [
        pandas.DataFrame({"user": user, "item": item, "stars": rng.random(40)})
        for user, item in zip(users, items, strict=True)
    ]
    for k, frame in enumerate(frames):
        frame.to_parquet(tmp_path / f"{k}.parquet", row_group_size=15)
    there = DistributedEntries.from_parquet(tmp_path, *NAMES, client, BLOCKS)
    assert_same_entries(there, dmf.SampledEntries.from_frame(pandas.concat(frames), *NAMES))


def test_a_dask_frame(client):
    frame = table()
    parts = pytest.importorskip("dask.dataframe").from_pandas(frame, npartitions=3, sort=False)
    there = DistributedEntries.from_dask(parts, *NAMES, client, BLOCKS)
    assert_same_entries(there, dmf.SampledEntries.from_frame(frame, *NAMES))
    with pytest.raises(ArgumentError, match="row='nobody'"):
        DistributedEntries.from_dask(parts, "nobody", "item", "stars", client)
    with pytest.raises(ArgumentError, match="a Dask data frame is needed"):
        DistributedEntries.from_dask([1.0], *NAMES, client)


def test_a_dask_array(client):
    """Chunks of a matrix with NaN: one of them has no entry, one row and one column neither."""
    array = pytest.importorskip("dask.array")
    matrix = np.random.default_rng(4).standard_normal((23, 11)).astype(np.float32)
    matrix[np.random.default_rng(5).random(matrix.shape) < 0.5] = np.nan
    matrix[8:16, 4:8] = matrix[3] = matrix[:, 9] = np.nan
    there = DistributedEntries.from_dask_array(array.from_array(matrix, chunks=(8, 4)), client, BLOCKS)
    found, expected = there.gathered(), dmf.SampledEntries.from_dense(matrix)
    assert there.dtype == np.float32 and there.shape == matrix.shape
    for name in ("rows", "cols", "values"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    whole = DistributedEntries.from_dask_array(array.ones((5, 4), chunks=3, dtype=int), client)
    assert whole.dtype == np.float64 and whole.n_measurements == 20
    some = array.from_array(matrix[:, 0], chunks=8)
    matrix[17, 2] = np.inf
    for wrong, error, message in (
        (matrix, ArgumentError, "a Dask array is needed"),
        (some, ShapeError, "a matrix has 2"),
        (array.from_array(matrix, chunks=(8, 4)), ObservationError, "infinite at row 17, column 2"),
        (array.full((4, 4), np.nan, chunks=2), ObservationError, "no entry is observed"),
        (array.ones((5, 4), chunks=2)[array.arange(5, chunks=2) > 2], ShapeError, "compute_chunk_sizes"),
    ):
        with pytest.raises(error, match=message):
            DistributedEntries.from_dask_array(wrong, client)


def test_partitions_that_cannot_be_used(client, tmp_path):
    with pytest.raises(FileError, match="the folder holds no"):
        DistributedEntries.from_parquet(tmp_path, *NAMES, client)
    frame = table()
    frame.to_parquet(tmp_path / "good.parquet")
    broken = tmp_path / "broken.parquet"
    frame.to_parquet(broken)
    whole = broken.read_bytes()
    broken.write_bytes(whole[:4] + bytes(len(whole) // 3) + whole[4 + len(whole) // 3 :])
    with pytest.raises(FileError, match="broken"):
        DistributedEntries.from_parquet(tmp_path, *NAMES, client)
    broken.write_bytes(b"no")
    with pytest.raises(FileError, match="broken"):
        DistributedEntries.from_parquet(tmp_path, *NAMES, client)
    frame.drop(columns="stars").to_parquet(broken)
    with pytest.raises(FileError, match="no column stars"):
        DistributedEntries.from_parquet(tmp_path, *NAMES, client)
    frame.assign(user=None).to_parquet(broken)
    with pytest.raises(ObservationError, match=r"broken\.parquet, row group 0"):
        DistributedEntries.from_parquet(broken, *NAMES, client)
    frame.assign(stars=np.inf).to_parquet(broken)
    with pytest.raises(ObservationError, match="infinite values"):
        DistributedEntries.from_parquet(broken, *NAMES, client)
    frame.assign(stars=np.nan).to_parquet(broken)
    with pytest.raises(ObservationError, match="no entry is observed"):
        DistributedEntries.from_parquet(broken, *NAMES, client)
