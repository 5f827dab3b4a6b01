"""Every branch of the strategy, as a table: what was asked for and found, and what comes next. No data, no solver."""

from dataclasses import replace

import numpy as np
import pytest

from dmf.completion import strategy
from dmf.completion.state import Facts, Stage
from dmf.models import LowRank
from dmf.models.offsets import Offsets
from dmf.solvers import History, Outcome, Run

# 60 x 60; 3,600 different entries: 2.0 for each degree of freedom up to rank 19, 4.0 up to rank 7.
FACTS = Facts((60, 60), 3_600, 3_600, 1.0, 1.0, 1e-11, rank=None, iterations=100, seed=3)
SCARCE = replace(FACTS, n_distinct=600, n_measurements=600)  # 2.0 only up to rank 2, 1.05 up to rank 5
NOISE, NONE = Outcome.NOISE_SETTLED, Outcome.NO_NOISE


def result(rank, outcome, *, noise=0.5, loss=0.1, nit=1, sizes=None, offsets=False, explained=0.0):
    """A run of a solver that found this."""
    s = np.linspace(2, 1, max(rank, 1)) if sizes is None else np.array(sizes, float)
    ones = np.ones((60, s.size))
    history = History({"iteration": [0, nit], "loss": [1.0, loss], "seconds": [0.0, 0.1]})
    added = Offsets(0.0, np.zeros(60), np.zeros(60)) if offsets else None
    found = {"rank": rank, "noise": noise, "explained": explained}
    return Run(None, LowRank(ones, s, ones.T, added), outcome, "", history, found)


EXACT = {"outcome": Outcome.EXACT, "loss": 1e-30}
TOO_SLOW = {"outcome": Outcome.UNPROMISING, "loss": 0.1}


def follow(facts, runs):
    """State, the last task, and the stages of all tasks."""
    state, task = strategy.begin(facts)
    stages = [task.stage.name]
    for run in runs:
        state, task = strategy.step(state, task, run)
        stages.append("END" if task is None else task.stage.name)
    return state, task, stages


TABLE = {
    "noise, plenty of data": (FACTS, [(3, NOISE)], "NOISE END", NOISE),
    "noise, all of the bound is used": (FACTS, [(10, NOISE), (12, NOISE)], "NOISE NOISE END", NOISE),
    "the bound is the user's": (replace(FACTS, rank=10), [(10, NOISE)], "NOISE END", NOISE),
    "no noise, exact": (FACTS, [(3, NONE), (3, EXACT)], "NOISE REFINE END", Outcome.EXACT),
    "a small component is tried without, and needed": (
        FACTS,
        [(3, NONE), (3, EXACT | {"sizes": [1, 0.9, 0.01]}), (2, TOO_SLOW)],
        "NOISE REFINE REFINE END",
        Outcome.EXACT,
    ),
    "a small component is one too many": (
        FACTS,
        [(3, NONE), (3, EXACT | {"sizes": [1, 0.9, 0.01]}), (2, EXACT)],
        "NOISE REFINE REFINE END",
        Outcome.EXACT,
    ),
    "the rank shows at a lower level": (
        FACTS,
        [(2, NONE), (2, TOO_SLOW), (3, NONE), (3, EXACT)],
        "NOISE REFINE LOWER REFINE END",
        Outcome.EXACT,
    ),
    "noise shows at a lower level": (FACTS, [(2, NONE), (2, TOO_SLOW), (3, NOISE)], "NOISE REFINE LOWER END", NOISE),
    "so little noise from scarce data that need the whole bound is doubted": (
        replace(SCARCE, rank=2),
        [(2, NONE), (2, TOO_SLOW), (2, {"outcome": NOISE, "noise": 0.1})],
        "NOISE REFINE LOWER REFINE",
        None,
    ),
    "more noise is not": (replace(SCARCE, rank=2), [(2, NOISE)], "NOISE END", NOISE),
    "a larger bound, then exact": (
        FACTS,
        [(10, NONE), (10, TOO_SLOW), (10, NONE), (10, TOO_SLOW), (12, NONE), (12, EXACT)],
        "NOISE REFINE LOWER REFINE NOISE REFINE END",
        Outcome.EXACT,
    ),
    "rank 0 is not refined": (FACTS, [(0, NONE), (0, NOISE)], "NOISE LOWER END", NOISE),
    "scarce noise is refined, continued twice, and settled": (
        SCARCE,
        [(4, NOISE), (4, TOO_SLOW), *[(4, {"outcome": Outcome.CONTRADICTED}), (4, TOO_SLOW)] * 2],
        "NOISE REFINE HOMOTOPY REFINE SLOW_HOMOTOPY REFINE END",
        NOISE,
    ),
    "a contradiction is trusted where the data suffice": (
        SCARCE,
        [(2, NONE), (2, TOO_SLOW), (2, NONE), (2, TOO_SLOW), (2, NONE), (2, TOO_SLOW),
         (2, {"outcome": Outcome.CONTRADICTED}), (2, TOO_SLOW), (2, NOISE)],
        "NOISE REFINE LOWER REFINE LOWEST REFINE HOMOTOPY REFINE SETTLE END",
        NOISE,
    ),
    "all that is left is below every homotopy": (
        FACTS,
        [(3, NONE), (3, {"outcome": Outcome.STATIONARY, "loss": 1e-14}), (3, NOISE)],
        "NOISE REFINE SETTLE END",
        NOISE,
    ),
    "as little as that from scarce data proves nothing": (
        SCARCE,
        [(4, NONE), (4, {"outcome": Outcome.STATIONARY, "loss": 1e-14})],
        "NOISE REFINE LOWER",
        None,
    ),
    "the homotopy goes down level by level": (
        SCARCE,
        [(4, NOISE), (4, TOO_SLOW), (4, {"outcome": Outcome.PATH_END, "noise": 0.9e-3}), (4, TOO_SLOW),
         (4, {"outcome": Outcome.PATH_END, "noise": 0.9e-4}), (4, EXACT)],
        "NOISE REFINE HOMOTOPY REFINE HOMOTOPY REFINE END",
        Outcome.EXACT,
    ),
    "the homotopy ends below the last level": (
        SCARCE,
        [(4, NOISE), (4, TOO_SLOW), (4, {"outcome": Outcome.PATH_END, "noise": 1e-7}), (4, TOO_SLOW)],
        "NOISE REFINE HOMOTOPY REFINE SLOW_HOMOTOPY",
        None,
    ),
    "noise asks for too many components": (
        SCARCE,
        [(4, NOISE), (4, TOO_SLOW), (6, {"outcome": Outcome.OVERFITTED, "noise": 0.25})],
        "NOISE REFINE HOMOTOPY END",
        NOISE,
    ),
    "far below the noise seen, slowness may find fewer": (
        SCARCE,
        [(4, NOISE), (4, TOO_SLOW), (6, {"outcome": Outcome.OVERFITTED, "noise": 0.1})],
        "NOISE REFINE HOMOTOPY SLOW_HOMOTOPY",
        None,
    ),
    "too few measurements to prove anything": (
        replace(SCARCE, n_distinct=300), [(5, NOISE)], "NOISE HOMOTOPY", None
    ),
    "zeros": (FACTS, [(0, {"outcome": Outcome.TRIVIAL})], "NOISE END", Outcome.EXACT),
    "the budget": (FACTS, [(3, {"outcome": Outcome.BUDGET, "nit": 100})], "NOISE END", Outcome.BUDGET),
    "the budget ends the trial without a small component": (
        FACTS,
        [(3, NONE), (3, EXACT | {"sizes": [1, 0.9, 0.01]}), (2, {"outcome": Outcome.BUDGET, "nit": 99})],
        "NOISE REFINE REFINE END",
        Outcome.EXACT,
    ),
    "the user ends the trial without a small component": (
        FACTS,
        [(3, NONE), (3, EXACT | {"sizes": [1, 0.9, 0.01]}), (2, {"outcome": Outcome.STOPPED})],
        "NOISE REFINE REFINE END",
        Outcome.STOPPED,
    ),
    "the budget, exact all the same": (FACTS, [(3, NONE), (3, EXACT | {"nit": 99})], "NOISE REFINE END", Outcome.EXACT),
    "the user stops it": (FACTS, [(3, NONE), (3, {"outcome": Outcome.STOPPED})], "NOISE REFINE END", Outcome.STOPPED),
    "divergence": (FACTS, [(3, {"outcome": Outcome.DIVERGED})], "NOISE END", Outcome.DIVERGED),
}  # fmt: skip
OFFSETS = replace(FACTS, offsets=True, plain=False, n_measurements=10_000, rank=4)
AUTO = replace(OFFSETS, plain=True)
WITH = {"offsets": True}
TABLE |= {
    "offsets": (OFFSETS, [(3, WITH | {"outcome": NOISE})], "OFFSETS END", NOISE),
    "offsets, noise in doubt, nothing else to try": (OFFSETS, [(0, WITH | {"outcome": NOISE})], "OFFSETS END", NOISE),
    "offsets grow while the noise falls": (
        replace(OFFSETS, rank=None),
        [(10, WITH | {"outcome": NOISE}), (20, WITH | {"outcome": NOISE, "noise": 0.4}),
         (40, WITH | {"outcome": NOISE, "noise": 0.45})],
        "OFFSETS OFFSETS OFFSETS END",
        NOISE,
    ),
    "offsets from a dense core": (
        replace(OFFSETS, core=(12, 12)), [(3, WITH | {"outcome": NOISE})] * 2, "CORE SPREAD END", NOISE
    ),
    "offsets, and noise for sure": (AUTO, [(3, WITH | {"outcome": NOISE})], "OFFSETS END", NOISE),
    "offsets, noise in doubt: exact without": (
        AUTO, [(0, WITH | {"outcome": NOISE}), (3, NONE), (3, EXACT)], "OFFSETS NOISE REFINE END", Outcome.EXACT
    ),
    "offsets, noise in doubt: noise without, too": (
        AUTO, [(0, WITH | {"outcome": NOISE}), (3, NOISE)], "OFFSETS NOISE END", NOISE
    ),
    "few entries are looked at twice": (
        replace(AUTO, n_measurements=4_000), [(3, WITH | {"outcome": NOISE}), (3, NOISE)], "OFFSETS NOISE END", NOISE
    ),
    "nothing but offsets and noise": (
        replace(AUTO, n_distinct=600),
        [(0, WITH | {"outcome": NOISE}), (1, {"outcome": NOISE, "noise": 1.0}), (1, TOO_SLOW),
         (6, {"outcome": Outcome.OVERFITTED, "noise": 0.1})],
        "OFFSETS NOISE REFINE HOMOTOPY END",
        NOISE,
    ),
    "offsets that diverged": (
        AUTO, [(3, WITH | {"outcome": Outcome.DIVERGED}), (3, NOISE)], "OFFSETS NOISE END", NOISE
    ),
    "the budget is spent on offsets": (
        AUTO, [(0, WITH | {"outcome": Outcome.BUDGET, "nit": 100})], "OFFSETS END", Outcome.BUDGET
    ),
    "the user stops the fit without offsets": (
        AUTO, [(0, WITH | {"outcome": NOISE}), (3, {"outcome": Outcome.STOPPED})], "OFFSETS NOISE END", Outcome.STOPPED
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLE)
def test_what_comes_next(name):
    facts, found, stages, outcome = TABLE[name]
    runs = [result(rank, **(what if isinstance(what, dict) else {"outcome": what})) for rank, what in found]
    state, task, seen = follow(facts, runs)
    assert " ".join(seen) == stages
    assert state.outcome is outcome and (task is None) == (outcome is not None)


@pytest.mark.parametrize(
    ("name", "rank", "offsets"),
    [
        ("a small component is tried without, and needed", 3, False),
        ("a small component is one too many", 2, False),
        ("offsets grow while the noise falls", 20, True),
        ("offsets, noise in doubt: exact without", 3, False),
        ("offsets, noise in doubt: noise without, too", 0, True),
        ("offsets that diverged", 3, False),
        ("the user stops the fit without offsets", 3, False),
        ("the user ends the trial without a small component", 3, False),
        ("zeros", 0, False),
    ],
)
def test_which_fit_is_the_result(name, rank, offsets):
    facts, found, _, _ = TABLE[name]
    runs = [result(r, **(what if isinstance(what, dict) else {"outcome": what})) for r, what in found]
    result_of = follow(facts, runs)[0].result
    assert (result_of.rank, result_of.model.offsets is not None) == (rank, offsets)


def test_tasks_carry_what_the_runs_found():
    """Starts are those of the last estimate, levels go down from its noise, and budgets are those of the stage."""
    first = result(2, NONE, noise=0.1)
    _, refine, _ = follow(FACTS, [first])
    assert refine.stage is Stage.REFINE and refine.start.width == 2 and refine.most == strategy.MOST_STEPS
    _, lower, _ = follow(FACTS, [first, result(2, **TOO_SLOW)])
    assert lower.start is first.model
    assert (lower.solver.start, lower.solver.until) == (pytest.approx(0.01), strategy.NOISE_LEVELS[1])
    assert strategy.begin(FACTS)[1].start == strategy.FIRST_BOUND
    core = replace(OFFSETS, core=(12, 12))
    state, spread, _ = follow(core, [result(3, NOISE, offsets=True, nit=100)])
    assert spread.most == 0 and spread.start is state.with_offsets.model  # the budget is spent, all rows are needed
    wide = follow(replace(OFFSETS, rank=None), [result(10, NOISE, offsets=True, noise=0.3)])[1]
    assert wide.solver.most_noise == 0.3 and strategy.begin(OFFSETS)[1].solver.most_noise == np.inf


@pytest.mark.parametrize(("explained", "implicit"), [(0.01, False), (0.1, True)])
def test_an_implicit_term_that_told_nothing_in_the_core_is_left_out(explained, implicit):
    core = replace(OFFSETS, core=(12, 12))
    assert strategy.begin(core)[1].solver.implicit
    assert follow(core, [result(3, NOISE, offsets=True, explained=explained)])[1].solver.implicit is implicit
