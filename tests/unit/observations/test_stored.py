"""Objects whose arrays lie in files: they come back, share what they have in common, and leave nothing behind."""

import gc
import pickle

import numpy as np
import pytest

from dmf.errors import FileError
from dmf.observations import SampledEntries
from dmf.observations.stored import stored


def entries():
    rng = np.random.default_rng(0)
    rows, cols = np.nonzero(rng.random((50, 40)) < 0.5)
    return SampledEntries(rows, cols, rng.standard_normal(rows.size), (50, 40))


def test_what_is_stored_comes_back(tmp_path):
    here = entries(), {"a": np.arange(5), "none": np.empty((0, 3))}
    there = [each.read() for each in stored(here, str(tmp_path))]
    for name in ("rows", "cols", "values"):
        np.testing.assert_array_equal(getattr(there[0], name), getattr(here[0], name))
    factors = np.ones((50, 2)), np.ones((2, 40))
    np.testing.assert_array_equal(there[0].predict(*factors), here[0].predict(*factors))
    for name, array in here[1].items():
        np.testing.assert_array_equal(there[1][name], array)
    with pytest.raises(ValueError, match="read-only"):
        there[1]["a"][0] = 1


def test_it_is_sent_as_it_was(tmp_path):
    (there,) = stored([np.arange(1000)], str(tmp_path))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(there)), np.arange(1000))


def test_positions_in_common_are_written_once(tmp_path):
    (first,) = stored([entries()], str(tmp_path))
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    read = first.read()
    (second,) = stored([read.with_values(2 * read.values)], str(tmp_path), list(first.files()))
    more = sum(path.stat().st_size for path in tmp_path.iterdir()) - size
    assert read.values.nbytes <= more < read.values.nbytes + 256
    del first, read
    gc.collect()
    np.testing.assert_array_equal(second.read().rows, entries().rows)
    np.testing.assert_array_equal(second.read().values, 2 * entries().values)


def test_files_go_with_what_they_hold(tmp_path):
    one, other = stored([np.arange(10), np.arange(20)], str(tmp_path))
    del one
    gc.collect()
    assert len(list(tmp_path.iterdir())) == 1 and other.read()[19] == 19
    del other
    gc.collect()
    assert not list(tmp_path.iterdir())


def test_no_folder(tmp_path):
    with pytest.raises(FileError, match="a folder with more room"):
        stored([np.arange(3)], str(tmp_path / "none"))
