"""The only loop: budgets, stopping, history, callbacks and interruption live here, once for all solvers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np

from dmf.arrays.backend import as_array, namespace, to_host
from dmf.arrays.checks import check_kind, check_option
from dmf.arrays.interrupts import remembered_interrupts
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.models import DeepLinearNetwork, LowRank
from dmf.observations import Observations
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History, Run

_COLUMNS = ("iteration", "loss", "seconds")
_CHUNK_SECONDS = 0.1  # longest time for which a solver works without listening to Ctrl-C


class Solver(Protocol):
    """A frozen dataclass of options with pure functions; a state is arrays and numbers, all that it needs to go on but the data.

    To add a solver: write these functions, call `run`, and add it to the suite tests/contracts/test_solvers.py.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def prepare(self, observations: Observations) -> Any:
        """What the other functions take as their data: the observations, or what follows from them and never changes."""

    def init(self, data: Any, start: Any) -> Any:
        """State at the start, a `LowRank` or a `DeepLinearNetwork`."""

    def advance(self, data: Any, state: Any, iterations: int) -> tuple[Any, int]:
        """State after at most `iterations` iterations, and their number: fewer if finished or the next one is not finite."""

    def loss(self, state: Any) -> float:
        """Training loss of a state."""

    def model(self, data: Any, state: Any) -> Any:
        """What a state has fitted, of the kind of the start."""

    def finished(self, state: Any) -> Outcome | None:
        """Why the solver has nothing more to do; None while it has."""

    def findings(self, state: Any) -> dict[str, float]:
        """What the solver knows besides: columns of the history, and findings of the run."""

    def advice(self, outcome: Outcome) -> str:
        """One sentence on what to do after a run that ended like this; empty if there is nothing to say."""


class Snapshot:
    """A solver's state, as callbacks see it.

    Parameters
    ----------
    iteration : int
    loss : float
        Training loss.
    seconds : float
        Time spent in the solver so far.
    model : callable
        Makes the model when it is asked for.

    Attributes
    ----------
    stage : str
        What the run is for, where it is one of several, as in `dmf.complete`; empty otherwise.
    fit : str
        "hold-out fit" or "final fit" in `dmf.complete`; empty otherwise.
    """

    stage = fit = ""

    def __init__(self, iteration: int, loss: float, seconds: float, model: Callable[[], Any]) -> None:
        self.iteration, self.loss, self.seconds = iteration, loss, seconds
        self._model = model

    @property
    def model(self) -> Any:
        """What is fitted, at this iteration: ``product()`` gives the matrix, ``entries(rows, cols)`` some of it."""
        return self._model()

    @property
    def network(self) -> Any:
        """The network at this iteration: what is trained, or of a low-rank model a balanced one without its offsets."""
        model = self.model
        return model.network() if isinstance(model, LowRank) else model

    def seen_as(self, change: Callable[[Any], Any], stage: str, fit: str) -> Snapshot:
        """The same with ``change(model)`` in place of the model, computed if it is looked at."""
        other = Snapshot(self.iteration, self.loss, self.seconds, lambda: change(self.model))
        other.stage, other.fit = stage, fit
        return other


Callback = Callable[[Snapshot], Mapping[str, Any] | None]


class _Records:
    """Rows of the history. The first answer of the callback fixes its columns; a row without an answer holds NaN there."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, float, float]] = []
        self._found: list[dict[str, float]] = []
        self._measured: list[dict[str, np.ndarray]] = []
        self._first: dict[str, np.ndarray] = {}

    def add(
        self,
        iteration: int,
        loss: float,
        seconds: float,
        found: dict[str, float],
        measured: Mapping[str, Any] | None = None,
    ) -> None:
        if measured is not None and not isinstance(measured, Mapping):
            raise ArgumentError(
                f"callback returned a {type(measured).__name__}, but it returns a mapping of names to numbers, or None. Return "
                "{'name': number}.",
                argument="callback",
                value=type(measured).__name__,
                limit="Mapping",
            )
        row = {name: to_host(as_array(value, name)) for name, value in (measured or {}).items()}
        for name, value in row.items():
            if value.dtype.kind not in "fiub" or name in (*_COLUMNS, *found):
                raise ArgumentError(
                    f"callback measured {name!r} of dtype {value.dtype}, but it returns real numbers or arrays of them, "
                    f"under names other than {', '.join((*_COLUMNS, *found))}, which the history has already. Convert or "
                    "rename it.",
                    argument="callback",
                    value=name,
                )
        self._first = self._first or row
        shapes, before = ({name: value.shape for name, value in r.items()} for r in (row, self._first))
        if row and shapes != before:
            raise ArgumentError(
                f"callback measured {shapes} (names and shapes) at iteration {iteration}, but {before} before. Return the "
                "same names and shapes each time.",
                argument="callback",
                value=shapes,
                limit=before,
            )
        self._rows.append((iteration, loss, seconds))
        self._found.append(found)
        self._measured.append(row)

    def last_iteration(self) -> int:
        return self._rows[-1][0] if self._rows else -1

    def history(self) -> History:
        columns = dict(zip(_COLUMNS, map(np.asarray, zip(*self._rows, strict=True)), strict=True))
        measured = {
            name: np.stack([row.get(name, np.full(value.shape, np.nan)) for row in self._measured])
            for name, value in self._first.items()
        }
        found = {name: np.asarray([row[name] for row in self._found]) for name in self._found[0]}
        return History({**measured, **found, **columns})


def run(
    solver: Solver,
    observations: Observations,
    start: Any,
    *,
    iterations: int,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
) -> Run:
    """Run a solver from `start` until it converges, its budget is spent, or it must stop.

    Parameters
    ----------
    solver : Solver
    observations : Observations
    start : LowRank, DeepLinearNetwork or None
        Of the library, device, dtype and shape of the observations; None for solvers that make their own.
    iterations : int, >= 0
        Exact upper bound on the number of iterations.
    tolerance : float, >= 0
        Converged once the training loss is at or below it; checked at recorded iterations.
    record_every : int, >= 1
        The history holds iteration 0, every multiple of this, and the last one.
    callback : callable, optional
        Called with a `Snapshot` at each recorded iteration. It may return a mapping of names to numbers (or arrays of one
        shape), which become columns of the history, and may raise StopIteration("reason") to end the run.

    Returns
    -------
    Run
        Always finite. Ctrl-C ends the run at its last good state, with the outcome INTERRUPTED.
    """
    if start is not None:
        check_problem(observations, start)
    with observations.threads():
        data = solver.prepare(observations)
        options = {"tolerance": tolerance, "record_every": record_every, "callback": callback}
        return follow(solver, data, start, iterations=iterations, **options)  # type: ignore[arg-type]


def follow(
    solver: Any,
    data: Any,
    start: Any,
    *,
    iterations: int,
    tolerance: float,
    record_every: int,
    callback: Callback | None,
) -> Run:
    """The loop of `run` for anything with the functions of a `Solver`, whatever its data and its model are."""
    check_option("iterations", iterations, least=0, whole=True)
    check_option("record_every", record_every, least=1, whole=True)
    check_option("tolerance", tolerance, least=0)
    if callback is not None and not callable(callback):
        raise ArgumentError(
            f"callback={callback!r}, but it is a function of a snapshot. Pass one, or None.",
            argument="callback",
            value=callback,
        )
    with remembered_interrupts() as interrupts:
        with np.errstate(over="ignore", invalid="ignore"):
            state = solver.init(data, start)
        if not math.isfinite(solver.loss(state)):
            raise ArgumentError(
                "the loss at the start is not finite. Start from smaller weights, or scale the data down.",
                argument="network",
            )
        iteration, seconds, rate = 0, 0.0, 0.0  # rate: iterations per second, 0 until known
        records = _Records()
        wish = ""  # of the callback that ended the run

        def ends() -> Outcome | None:
            """Record this iteration; the outcome if the run ends here."""
            nonlocal wish
            loss = solver.loss(state)
            measured, stop = None, None
            if callback is not None:
                try:
                    measured = callback(Snapshot(iteration, loss, seconds, lambda: solver.model(data, state)))
                except StopIteration as reason:
                    stop, wish = Outcome.STOPPED, str(reason)
            records.add(iteration, loss, seconds, solver.findings(state), measured)
            finished = solver.finished(state)
            if finished is not None:
                return finished
            return Outcome.TOLERANCE if loss <= tolerance else stop

        end = None
        try:
            end = ends()
            while end is None and iteration < iterations:
                interrupts.check()
                chunk = min(
                    record_every - iteration % record_every, iterations - iteration, max(1, int(rate * _CHUNK_SECONDS))
                )
                begin = time.perf_counter()
                with np.errstate(over="ignore", invalid="ignore"):
                    state, done = solver.advance(data, state, chunk)
                elapsed = time.perf_counter() - begin
                seconds, iteration, rate = seconds + elapsed, iteration + done, chunk / max(elapsed, 1e-6)
                if done < chunk and solver.finished(state) is None:
                    end = Outcome.DIVERGED
                elif done < chunk or iteration % record_every == 0 or iteration == iterations:
                    end = ends()
        except (KeyboardInterrupt, SystemError) as error:
            if not _interrupted(error):
                raise
            interrupts.pending = False
            end = Outcome.INTERRUPTED
        loss, findings = solver.loss(state), solver.findings(state)
        if records.last_iteration() < iteration:
            records.add(iteration, loss, seconds, findings)
        outcome = Outcome.BUDGET if end is None else end
        message = f"{_detail(outcome, iteration, loss, tolerance, wish)}. {solver.advice(outcome)}".strip()
        return Run(solver, solver.model(data, state), outcome, message, records.history(), findings, state)


def _detail(outcome: Outcome, iteration: int, loss: float, tolerance: float, wish: str) -> str:
    match outcome:
        case Outcome.BUDGET:
            return f"after {iteration:,} iterations the loss is {loss:.3g}"
        case Outcome.TOLERANCE:
            return f"the loss {loss:.3g} is at or below the tolerance {tolerance:g}"
        case Outcome.DIVERGED:
            return f"the loss was no longer finite after iteration {iteration:,}; this is the last finite state"
        case Outcome.INTERRUPTED:
            return f"Ctrl-C after iteration {iteration:,}; this is the last good state"
        case Outcome.STOPPED if wish:
            return wish
    return outcome.value


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: compiled functions that it meets on their way out raise SystemError from it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def check_problem(observations: Any, start: Any) -> None:
    """Raise unless they are observations and a model of the same shape, library, device and dtype."""
    check_kind(
        "observations", observations, Observations, "Pass for example SampledEntries(rows, cols, values, shape)."
    )
    if not isinstance(start, LowRank):
        check_kind("network", start, DeepLinearNetwork, "Pass for example spectral_network(observations, rank).")
    if start.shape != observations.shape:
        raise ShapeError(
            f"network is of shape {start.shape}, but the observations are of a {observations.shape} matrix.",
            argument="network",
            value=start.shape,
            limit=observations.shape,
        )
    namespace(start.s if isinstance(start, LowRank) else start.weights[0], observations.like)
    if start.dtype != observations.dtype:
        raise DTypeError(
            f"network has dtype {start.dtype} and the observations {observations.dtype}, but one call computes in one "
            "dtype. Convert one of them; a start takes its dtype from orthogonal_network(like=...).",
            argument="network",
            value=str(start.dtype),
            limit=str(observations.dtype),
        )
