"""What a recovery tells of its runs: iterations, seconds and history are those of the runs, whatever was asked for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from low_rank_cases import low_rank_case

import dmf

from helpers import examples, seeds


@examples(6)
@given(
    seed=seeds,
    offsets=st.sampled_from([True, False, "auto"]),
    holdout=st.sampled_from([0.0, 0.2]),
    noise=st.sampled_from([0.0, 0.2]),
    iterations=st.sampled_from([0, 3, 40, 10_000]),
)
def test_every_run_is_told_once(seed, offsets, holdout, noise, iterations):
    case = low_rank_case(seed, (30, 25), 2, oversampling=3, noise=noise)
    calls = []
    recovery = dmf.complete(
        case.observations, offsets=offsets, holdout=holdout, iterations=iterations, callback=calls.append
    )
    runs, history = recovery.runs, recovery.history
    assert recovery.nit == history.iteration[-1] == sum(run.nit for run in runs)
    assert history.seconds[-1] == pytest.approx(sum(run.seconds for run in runs))
    assert len(calls) == len(history.iteration)
    fits = ["hold-out fit", "final fit"] if holdout else ["final fit"]
    assert list(dict.fromkeys(run.fit for run in runs)) == fits
    for fit in fits:
        assert sum(run.nit for run in runs if run.fit == fit) <= iterations
    for k, run in enumerate(runs):
        mine = history["run"] == k
        assert np.ptp(history.iteration[mine]) == run.nit
        assert (history["rank"][mine][-1], history["noise"][mine][-1]) == (run.rank, run.noise)
        assert {(at.stage, at.fit) for at, yes in zip(calls, mine, strict=True) if yes} == {(run.stage, run.fit)}
    assert recovery.success == (recovery.outcome.name in ("NOISE_SETTLED", "EXACT"))
    assert (recovery.settings.offsets, recovery.settings.holdout) == (offsets, holdout)
    assert recovery.found.offsets == (recovery.offsets is not None)


def test_a_bound_searched_for_without_the_held_out_entries_is_not_searched_for_again():
    case = low_rank_case(0, (90, 80), 12, oversampling=3.5, noise=0.1)
    recovery = dmf.complete(case.observations, offsets=True, holdout=0.1)
    assert [run.fit for run in recovery.runs] == ["hold-out fit", "hold-out fit", "final fit"]
    assert (recovery.found.rank, recovery.settings.rank) == (12, None)
