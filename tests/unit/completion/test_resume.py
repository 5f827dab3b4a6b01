"""`complete` and `sense`, killed and resumed: the same bits, whichever stage it was."""

import contextlib
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.backend import to_host
from dmf.solvers import Checkpoint, Outcome

from helpers import LIBRARIES, OTHERS, examples
from solver_cases import KilledError


def ratings(move):
    """Noise, row offsets, and a row that nobody has seen."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((30, 1)) + rng.standard_normal((30, 2)) @ rng.standard_normal((2, 25))
    rows, cols = np.nonzero(rng.random(table.shape) < 0.5)
    values = table[rows, cols] + 0.3 * rng.standard_normal(rows.size)
    return dmf.SampledEntries(*map(move, (rows, cols, values)), (31, 25))


def scarce(move):
    """Near the information limit, so that all stages have their turn."""
    case = low_rank_case(0, (25, 20), 1, oversampling=1.7)
    return dmf.SampledEntries(*map(move, (case.rows, case.cols, case.values)), case.matrix.shape)


def measured(move):
    rng = np.random.default_rng(0)
    operator = rng.standard_normal((90, 10, 8))
    truth = rng.standard_normal((10, 1)) @ rng.standard_normal((1, 8))
    return dmf.LinearMeasurements(move(operator), move(np.einsum("mij,ij->m", operator, truth)))


CASES = {
    "ratings": (dmf.complete, ratings, {"holdout": 0.2, "iterations": 30}),
    "scarce": (dmf.complete, scarce, {"iterations": 100}),
    "sense": (dmf.sense, measured, {"iterations": 60}),
}


def counted(most):
    """A callback that kills the process after so many calls."""
    calls = 0

    def callback(snapshot):
        nonlocal calls
        calls += 1
        if calls > most:
            raise KilledError
        return {"size": snapshot.loss}

    return callback


@cache
def uninterrupted(name, library):
    call, make, options = CASES[name]
    data = make(LIBRARIES[library])
    return data, call(data, **options, callback=counted(10**9))


def assert_same_recovery(one, other):
    for name in ("u", "s", "vt"):
        np.testing.assert_array_equal(*(to_host(getattr(r.model, name)) for r in (one, other)))
    assert (one.found, one.outcome, one.message, one.settings) == (
        other.found,
        other.outcome,
        other.message,
        other.settings,
    )
    assert [(r.stage, r.fit, r.message) for r in one.runs] == [(r.stage, r.fit, r.message) for r in other.runs]
    for name in set(one.history) - {"seconds"}:
        np.testing.assert_array_equal(one.history[name], other.history[name])
    if one.heldout is not None:
        assert (one.heldout.rmse, one.heldout.quantiles) == (other.heldout.rmse, other.heldout.quantiles)


@pytest.mark.parametrize("library", ["numpy", *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
@pytest.mark.parametrize("name", CASES)
@examples(2)
@given(data=st.data())
def test_a_killed_call_goes_on_to_the_same_bits(name, library, data, tmp_path_factory):
    call, _, options = CASES[name]
    observations, whole = uninterrupted(name, library)
    path, length = tmp_path_factory.mktemp("cut") / "fit.npz", len(whole.history.iteration)
    for _ in range(data.draw(st.integers(1, 2))):
        kept = Checkpoint(path, resume=True, seconds=data.draw(st.sampled_from([0, 3600])))
        with contextlib.suppress(KilledError):
            call(observations, **options, callback=counted(data.draw(st.integers(0, length))), checkpoint=kept)
    again = call(observations, **options, callback=counted(10**9), checkpoint=path, resume=True)
    assert_same_recovery(whole, again)


@pytest.mark.parametrize("name", CASES)
def test_after_ctrl_c_the_rest_follows(name, tmp_path):
    """In whichever stage: the model so far is returned, and the resumed call returns the whole."""
    call, _, options = CASES[name]
    observations, whole = uninterrupted(name, "numpy")
    at, length = 0, len(whole.history.iteration)

    def interrupted(snapshot):
        nonlocal at
        at += 1
        if at == length // 2:
            raise KeyboardInterrupt
        return {"size": snapshot.loss}

    path = tmp_path / "fit.npz"
    ended = call(observations, **options, callback=interrupted, checkpoint=path)
    assert ended.outcome is Outcome.INTERRUPTED
    again = call(observations, **options, callback=counted(10**9), checkpoint=path, resume=True)
    assert_same_recovery(whole, again)


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"rank": 3}, {"holdout": 0.1}, {"offsets": False}, {"iterations": 31}]
)
def test_other_options_are_refused_by_name(changed, tmp_path):
    observations, _ = uninterrupted("ratings", "numpy")
    options, path = CASES["ratings"][2], tmp_path / "fit.npz"
    dmf.complete(observations, **options, checkpoint=path)
    with pytest.raises(dmf.errors.ArgumentError, match=f"{next(iter(changed))} is") as caught:
        dmf.complete(observations, **options | changed, checkpoint=path, resume=True)
    assert list(caught.value.value) == list(changed)
    with pytest.raises(dmf.errors.ArgumentError, match="the data differ"):
        dmf.complete(observations.split(0.1)[0], **options, checkpoint=path, resume=True)
