"""Few entries that lie on a device are completed on the host; a stand-in for the device, see tests/gpu for a real one."""

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.completion import placement
from dmf.io.forms import Form

from helpers import assert_same_weights


class There(np.ndarray):
    """An array of the stand-in."""


@pytest.fixture
def there(monkeypatch):
    """Function that moves entries to the stand-in."""
    moves = {"cpu": np.asarray, "cuda:3": lambda array: np.asarray(array).view(There)}

    def move(array, name):
        return moves[name](array)

    def to_device(entries, name):
        return entries.with_values(move(entries.values, name))

    monkeypatch.setattr(dmf.SampledEntries, "to_device", to_device)
    monkeypatch.setattr(placement, "library", lambda array: "cupy" if isinstance(array, There) else "numpy")
    monkeypatch.setattr(placement, "from_host", lambda host, like: moves["cuda:3"](host))
    return lambda entries: to_device(entries, "cuda:3")


def test_the_result_lies_where_the_entries_do(there):
    """And it is what the host finds, with its options; a callback sees models of the device."""
    here, kinds = low_rank_case(0, (20, 15), rank=2).observations, set()
    data, options = there(here), {"rank": 3, "offsets": False, "holdout": 0.1, "bounds": (-9, 9), "seed": 1}
    found = dmf.complete(data, **options, callback=lambda at: kinds.update(map(type, at.model.factors())))
    assert kinds == {There}
    assert {type(found.model.u), type(found.model.vt)} == {There}
    assert found.observations is data
    expected = dmf.complete(here, **options)
    assert_same_weights(found, expected)
    assert (found.settings, found.found) == (expected.settings, expected.found)


def test_names_are_kept_there(there):
    data = there(low_rank_case(0, (20, 15), rank=2).observations)
    data.form = Form(tuple(f"r{k}" for k in range(20)), tuple(f"c{k}" for k in range(15)))
    found = dmf.complete(data, 2, offsets=False)
    assert (found.row_ids, found.col_ids) == (data.form.row_ids, data.form.col_ids)


def test_many_entries_are_completed_on_the_device(there, monkeypatch):
    data = there(low_rank_case(0, (20, 15), rank=2).observations)
    assert placement.better_on_host(data)
    monkeypatch.setattr(placement, "HOST_ENTRIES", data.n_measurements)
    assert not placement.better_on_host(data)
