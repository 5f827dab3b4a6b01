"""A run that was killed goes on to the last bits of one that was not: every solver, cut anywhere, on every array library."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmf.solvers import Checkpoint, Outcome
from dmf.solvers.loop import run

from helpers import LIBRARIES, examples, observe, start
from solver_cases import PARTICULAR, SOLVERS, Cut, KilledError, assert_same_run, problem

ALL = SOLVERS | PARTICULAR


def watched(snapshot):
    return {"twice": 2 * snapshot.iteration, "rest": np.array([1.0, snapshot.iteration])}


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("name", ALL)
@examples(2)
@given(data=st.data())
def test_a_killed_run_goes_on_to_the_same_bits(name, library, data, tmp_path_factory):
    """Whether the checkpoint is written at each step, or not before Ctrl-C. A run that is done makes no step."""
    kind = data.draw(st.sampled_from(["entries", "linear array", "full"]))
    solver, (observations, first) = ALL[name], problem(name, kind, library)
    options = {
        "iterations": data.draw(st.integers(0, 7)),
        "record_every": data.draw(st.integers(1, 4)),
        "tolerance": data.draw(st.sampled_from([0.0, 1e-3])),
        "callback": data.draw(st.sampled_from([None, watched])),
    }
    whole = run(solver, observations, first, **options)
    path = tmp_path_factory.mktemp("cut") / "run.npz"
    for number, calls in enumerate(data.draw(st.lists(st.integers(0, 5), max_size=2))):
        error, seconds = data.draw(st.sampled_from([(KilledError, 0), (KeyboardInterrupt, 3600)]))
        kept = Checkpoint(path, resume=number > 0, seconds=seconds)
        with contextlib.suppress(KilledError):
            run(Cut(solver, calls, error), observations, first, **options, checkpoint=kept)
    assert_same_run(whole, run(solver, observations, first, **options, checkpoint=path, resume=True))
    assert_same_run(whole, run(Cut(solver, 0), observations, first, **options, checkpoint=path, resume=True))


def test_ctrl_c_writes_the_checkpoint_before_it_is_due(tmp_path):
    solver, (observations, first) = SOLVERS["gradient descent"], problem("gradient descent", "entries", "numpy")
    options = {"iterations": 4, "checkpoint": tmp_path / "run.npz"}
    whole = run(solver, observations, first, iterations=4)
    ended = run(Cut(solver, 2, KeyboardInterrupt), observations, first, **options)
    assert (ended.outcome, ended.nit) == (Outcome.INTERRUPTED, 2)
    assert_same_run(whole, run(Cut(solver, 2), observations, first, **options, resume=True))


def test_a_callback_that_ended_a_run_ended_it(tmp_path):
    """It is not called again."""
    observations, solver = observe("entries"), SOLVERS["gradient descent"]

    def stop(snapshot):
        if snapshot.iteration == 3:
            raise StopIteration("enough")

    options = {"iterations": 9, "checkpoint": tmp_path / "run.npz"}
    ended = run(solver, observations, start(observations), **options, callback=stop)
    assert_same_run(ended, run(Cut(solver, 0), observations, start(observations), **options, resume=True))
