"""From observations to a recovery: carries out what the strategy asks for, and keeps the record of every run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from dmf.arrays.interrupts import remembered_interrupts
from dmf.completion.state import Facts, Stage, State, Task, relative_residual, rounding_of
from dmf.completion.strategy import begin, chosen_width, interrupted, step
from dmf.completion.submatrix import Submatrix, dense_core
from dmf.errors import ArgumentError
from dmf.models import LowRank
from dmf.observations import Entries, Observations
from dmf.recovery.results import Recovery
from dmf.recovery.values import Found, Plan, StageRun, oversampling
from dmf.solvers.checkpoints import Checkpoint
from dmf.solvers.loop import Callback, Snapshot, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History, Run

FINAL, HOLD_OUT = "final fit", "hold-out fit"
_START_SWEEPS = 2  # of the singular value decomposition: the first sweeps of a solver do what more of them would


@dataclass
class Journal:
    """Every run of a call: its record, its history, and what its callback may see.

    Parameters
    ----------
    callback : callable or None
    checkpoint : Checkpoint or None
        Where the runs are kept.
    fit : str
        The fit that is under way.
    chosen : int or None
        Bound on the rank that the last fit chose, where noise was beyond doubt.
    """

    callback: Callback | None = None
    checkpoint: Checkpoint | None = None
    fit: str = FINAL
    chosen: int | None = None
    runs: list[StageRun] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    measured: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of what callbacks returned

    def add(self, stage: Stage, done: Run) -> None:
        """Keep the record of a run."""
        self.runs.append(StageRun.of(done, stage.value, self.fit))
        self.histories.append(done.history)

    def watching(self, stage: Stage, whole: Callable[[LowRank], LowRank]) -> Callback:
        """The callback for a run: it sees models of the whole matrix, and what it measures fits into one history."""

        def callback(snapshot: Snapshot):
            if self.callback is None:
                return None
            return self._checked(self.callback(snapshot.seen_as(whole, stage.value, self.fit)))

        return callback

    def _checked(self, answer: Any) -> Any:
        for name, value in (answer or {}).items():
            shape = tuple(getattr(value, "shape", np.shape(value)))
            if name == "run" or self.measured.setdefault(name, shape) != shape:
                raise ArgumentError(
                    f"callback measured {name!r} of shape {shape}, but a column of the history has one shape "
                    f'({self.measured.get(name)} before) and "run" counts the runs. Return arrays of one shape under another '
                    "name.",
                    argument="callback",
                    value=name,
                )
        return answer

    def history(self) -> History:
        """One history of all runs; its column "run" counts them."""
        names = list(dict.fromkeys(name for history in self.histories for name in history))
        columns: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "run")}
        iterations, seconds = 0, 0.0
        for count, history in enumerate(self.histories):
            length = history.iteration.shape[0]
            shifted = {**history, "iteration": history.iteration + iterations, "seconds": history.seconds + seconds}
            for name in names:
                shape = next(h[name].shape[1:] for h in self.histories if name in h)
                columns[name].append(shifted.get(name, np.full((length, *shape), np.nan)))
            columns["run"].append(np.full(length, count))
            iterations, seconds = shifted["iteration"][-1], shifted["seconds"][-1]
        return History({name: np.concatenate(parts) for name, parts in columns.items()})


def fit(
    observations: Observations,
    plan: Plan,
    journal: Journal,
    *,
    offsets: bool = False,
    plain: bool = True,
    rounding: float | None = None,
    clipped: tuple[float, float] | None = None,
    whole: Callable[[LowRank], LowRank] = lambda model: model,
) -> Recovery:
    """Recover a matrix of unknown rank and noise level.

    Parameters
    ----------
    observations : Observations
    plan : Plan
    journal : Journal
        Gets the runs.
    offsets, plain : bool
        Whether a model with row and column offsets is tried, and one without.
    rounding : float, optional
        See `Facts`; `rounding_of` the measurements as they are unless given.
    clipped : (float, float), optional
        See `Facts`.
    whole : callable
        Makes of a model of these observations the one that callbacks see.

    Returns
    -------
    Recovery
    """
    with observations.threads(), remembered_interrupts() as interrupts:
        core = dense_core(observations) if offsets and isinstance(observations, Entries) else None
        facts = _facts(observations, plan, offsets, plain, core, rounding, clipped)
        state, task = begin(facts)
        while task is not None:
            if core is not None and task.stage is not Stage.CORE:
                assert isinstance(task.start, LowRank)
                task, core = replace(task, start=core.widened(task.start)), None  # the core's memory is needed now
            try:
                done = _run(task, state, observations, core, journal, whole)
            except KeyboardInterrupt:
                ended = None if core is not None else interrupted(state)
                if ended is None:
                    raise
                interrupts.pending, state = False, ended
                break
            state, task = step(state, task, done)
            del done
        journal.chosen = chosen_width(state)
        return _recovery(state, observations, plan, journal)


def _facts(
    observations: Observations,
    plan: Plan,
    offsets: bool,
    plain: bool,
    core: Submatrix | None,
    rounding: float | None,
    clipped: tuple[float, float] | None,
) -> Facts:
    spread = observations.mean_square
    if offsets and isinstance(observations, Entries):
        spread = observations.centred()[1].mean_square
    return Facts(
        shape=observations.shape,
        n_distinct=observations.n_distinct,
        n_measurements=observations.n_measurements,
        mean_square=observations.mean_square,
        spread=spread,
        rounding=rounding_of(observations, observations.mean_square) if rounding is None else rounding,
        rank=plan.rank,
        iterations=plan.iterations,
        seed=plan.seed,
        offsets=offsets,
        plain=plain,
        core=None if core is None else core.observations.shape,
        clipped=clipped,
    )


def _run(
    task: Task,
    state: State,
    observations: Observations,
    core: Submatrix | None,
    journal: Journal,
    whole: Callable[[LowRank], LowRank],
) -> Run:
    """One run of a solver, within what is left of the budget."""
    left = state.facts.iterations - state.spent
    start, seen = task.start, whole
    if isinstance(start, int):
        start = spectral_start(observations, start, state.facts.seed)
    if core is not None:
        observations, widened = core.observations, core.widened

        def seen(model: LowRank) -> LowRank:
            return whole(widened(model))

    most = left if task.most is None else min(left, task.most)
    callback = journal.watching(task.stage, seen)
    done = run(task.solver, observations, start, iterations=most, callback=callback, checkpoint=journal.checkpoint)
    journal.add(task.stage, done)
    return done


def spectral_start(observations: Observations, width: int, seed: int) -> LowRank:
    """Top components of the surrogate ``A^T(y)``, of the sizes that fit the measurements best together."""
    u, s, vt = observations.surrogate_svd(width, seed, _START_SWEEPS)
    return LowRank(u, abs(observations.best_scale(u * s, vt)) * s, vt)


def _recovery(state: State, observations: Observations, plan: Plan, journal: Journal) -> Recovery:
    """The recovery that a state at the end stands for."""
    facts, outcome, result = state.facts, state.outcome, state.result
    assert outcome is not None
    found = Found(
        rank=result.rank,
        noise=0.0 if outcome is Outcome.EXACT else result.noise,
        exact=outcome is Outcome.EXACT,
        offsets=result.model.offsets is not None,
        relative_residual=relative_residual(result.loss, facts.mean_square),
        oversampling=oversampling(facts.n_distinct, facts.shape, result.rank),
        clipped=facts.clipped if result is state.with_offsets else None,
    )
    model = result.model.truncated(result.rank)
    return Recovery(model, found, outcome, journal.history(), plan, None, tuple(journal.runs), observations)
