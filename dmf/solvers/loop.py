"""The only loop: budgets, stopping, history, callbacks and interruption live here, once for all solvers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, Protocol

import numpy as np

from dmf.arrays.backend import is_complex, namespace
from dmf.arrays.checks import check_kind, check_option
from dmf.arrays.interrupts import remembered_interrupts
from dmf.errors import ArgumentError, DTypeError, ShapeError
from dmf.models import DeepLinearNetwork, LowRank
from dmf.observations import Observations
from dmf.solvers.checkpoints import Checkpoint, CheckpointLike, Progress, data_fingerprint
from dmf.solvers.outcomes import Outcome
from dmf.solvers.packing import fingerprint
from dmf.solvers.records import Records
from dmf.solvers.runs import History, Run
from dmf.solvers.units import InUnits, unit_of

_CHUNK_SECONDS = 0.1  # longest time for which a solver works without listening to Ctrl-C


class Solver(Protocol):
    """A frozen dataclass of options with pure functions; a state is arrays and numbers, all that it needs to go on but the data.

    States are tuples or dataclasses, nested or not, and those of a run are made alike: arrays of the same shapes and dtypes in
    the same places. So a checkpoint can hold any of them.

    A solver whose options are not in the units of the data, as step sizes are, may have a method ``rescaled(unit)``: itself for
    data that are divided by this number. Then it never sees data of extreme size.

    A solver with an attribute ``takes_complex = True`` has conjugates where complex matrices need them.

    To add a solver: write these functions, call `run`, and add it to tests/solver_cases.py.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def prepare(self, observations: Observations, start: Any) -> Any:
        """What the other functions take as their data: the observations, or what follows from both and never changes."""

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
        """What the solver knows besides: columns of the history, and findings of the run.

        A solver that `dmf.completion.strategy` is to use gives two: "rank", the number of components that the data support,
        and "noise", the standard deviation of the noise of a measurement in the units of the data.
        """

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
    findings : mapping of str to float, optional
        What the solver knows besides, such as "noise", in the units of the data.

    Attributes
    ----------
    stage : str
        What the run is for, where it is one of several, as in `dmf.complete`; empty otherwise.
    fit : str
        "hold-out fit" or "final fit" in `dmf.complete`; empty otherwise.
    """

    stage = fit = ""

    def __init__(
        self,
        iteration: int,
        loss: float,
        seconds: float,
        model: Callable[[], Any],
        findings: Mapping[str, float] | None = None,
    ) -> None:
        self.iteration, self.loss, self.seconds = iteration, loss, seconds
        self._model, self.findings = model, findings or {}

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
        other = Snapshot(self.iteration, self.loss, self.seconds, lambda: change(self.model), self.findings)
        other.stage, other.fit = stage, fit
        return other


Callback = Callable[[Snapshot], Mapping[str, Any] | None]


def run(
    solver: Solver,
    observations: Observations,
    start: Any,
    *,
    iterations: int,
    tolerance: float = 0.0,
    record_every: int = 1,
    callback: Callback | None = None,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
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
    checkpoint : path or Checkpoint, optional
        Where the run is kept every minute, at its end and on Ctrl-C, so that it can go on after the process has ended.
    resume : bool
        Go on from `checkpoint`, to the same last bits, if there is one. Callbacks are not called again.

    Returns
    -------
    Run
        Always finite. Ctrl-C ends the run at its last good state, with the outcome INTERRUPTED.
    """
    if start is not None:
        check_problem(observations, start, getattr(solver, "takes_complex", False))
    kept = Checkpoint.opened(checkpoint, resume)
    with observations.threads():
        if kept is not None:
            kept.expect(data=data_fingerprint(observations))
        unit, rescaled = unit_of(observations), getattr(solver, "rescaled", None)
        working = solver if unit == 1 or rescaled is None else InUnits(rescaled(unit), unit)
        data = working.prepare(observations, start)
        options = {"tolerance": tolerance, "record_every": record_every, "callback": callback, "checkpoint": kept}
        return replace(follow(working, data, start, iterations=iterations, **options), solver=solver)  # type: ignore[arg-type]


def follow(
    solver: Any,
    data: Any,
    start: Any,
    *,
    iterations: int,
    tolerance: float,
    record_every: int,
    callback: Callback | None,
    checkpoint: Checkpoint | None = None,
) -> Run:
    """The loop of `run` for anything with the functions of a `Solver`, whatever its data and its model are."""
    iterations = int(check_option("iterations", iterations, least=0, whole=True))
    record_every = int(check_option("record_every", record_every, least=1, whole=True))
    tolerance = check_option("tolerance", tolerance, least=0)
    if callback is not None and not callable(callback):
        raise ArgumentError(
            f"callback={callback!r}, but it is a function of a snapshot. Pass one, or None.",
            argument="callback",
            value=callback,
        )
    with remembered_interrupts() as interrupts:
        with np.errstate(over="ignore", invalid="ignore"):
            at = Progress(solver.init(data, start))
        if not math.isfinite(solver.loss(at.state)):
            raise ArgumentError(
                "the loss at the start is not finite. Start from smaller weights, or scale the data down.",
                argument="network",
            )
        if checkpoint is not None:
            own = {option.name: getattr(solver, option.name) for option in fields(solver)}
            options = {"iterations": iterations, "tolerance": tolerance, "record_every": record_every}
            asked = {"solver": repr(solver).partition("(")[0], **own, "start model": fingerprint(start), **options}
            checkpoint.expect(**asked)
            at = checkpoint.stored(at.state, solver.findings(at.state)) or at
        # State and iteration belong together: `at` is replaced as a whole, as Ctrl-C may come between any two steps.
        records, wish, end = Records(at.columns, solver.findings(at.state)), at.wish, at.end
        rate = 0.0  # iterations per second, 0 until known

        def record() -> None:
            """Record this iteration."""
            nonlocal wish
            loss, found, measured = solver.loss(at.state), solver.findings(at.state), None
            if callback is not None:
                snapshot = Snapshot(at.iteration, loss, at.seconds, lambda: solver.model(data, at.state), found)
                try:
                    measured = callback(snapshot)
                except StopIteration as reason:
                    wish = str(reason)
            records.add(at.iteration, loss, at.seconds, found, measured)

        def ends() -> Outcome | None:
            """The outcome if the run ends at this recorded iteration."""
            finished = solver.finished(at.state)
            if finished is not None:
                return finished
            if solver.loss(at.state) <= tolerance:
                return Outcome.TOLERANCE
            if wish is not None:
                return Outcome.STOPPED
            return Outcome.BUDGET if at.iteration >= iterations else None

        def keep(interrupted: bool = False) -> None:
            """Write the checkpoint; Ctrl-C waits until it is there."""
            if checkpoint is not None:
                with interrupts.held():
                    checkpoint.keep(replace(at, columns=records.columns(), wish=wish, end=end), interrupted)

        outcome = end
        try:
            while end is None:
                left = iterations - at.iteration
                if at.iteration % record_every == 0 or left == 0 or solver.finished(at.state) is not None:
                    if records.last_iteration() < at.iteration:
                        record()
                    end = ends()
                if end is None:
                    interrupts.check()
                    if checkpoint is not None and checkpoint.due:
                        keep()
                    chunk = min(record_every - at.iteration % record_every, left, max(1, int(rate * _CHUNK_SECONDS)))
                    begin = time.perf_counter()
                    with np.errstate(over="ignore", invalid="ignore"):
                        state, done = solver.advance(data, at.state, chunk)
                    elapsed = time.perf_counter() - begin
                    at = Progress(state, at.iteration + done, at.seconds + elapsed)
                    rate = chunk / max(elapsed, 1e-6)
                    if done < chunk and solver.finished(state) is None:
                        end = Outcome.DIVERGED
                if end is not None:
                    keep()
            outcome = end
        except (KeyboardInterrupt, SystemError) as error:
            if not _interrupted(error):
                raise
            interrupts.pending = False
            outcome = Outcome.INTERRUPTED
            keep(interrupted=True)
        loss, findings = solver.loss(at.state), solver.findings(at.state)
        if records.last_iteration() < at.iteration:
            records.add(at.iteration, loss, at.seconds, findings)
        assert outcome is not None
        message = f"{_detail(outcome, at.iteration, loss, tolerance, wish)}. {solver.advice(outcome)}".strip()
        history = History(records.columns())
        return Run(solver, solver.model(data, at.state), outcome, message, history, findings, at.state)


def _detail(outcome: Outcome, iteration: int, loss: float, tolerance: float, wish: str | None) -> str:
    match outcome:
        case Outcome.BUDGET:
            return f"after {iteration:,} iterations the loss is {loss:.3g}"
        case Outcome.TOLERANCE:
            return f"the loss {loss:.3g} is at or below the tolerance {tolerance:g}"
        case Outcome.DIVERGED:
            return f"the loss was no longer finite after iteration {iteration:,}; this is the last finite state"
        case Outcome.INTERRUPTED:
            return f"interrupted after iteration {iteration:,}; this is the last good state"
        case Outcome.STOPPED if wish:
            return wish
    return outcome.value


def _interrupted(error: BaseException | None) -> bool:
    """Whether Ctrl-C is behind an error: compiled functions that it meets on their way out raise SystemError from it."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__
    return error is not None


def check_problem(observations: Any, start: Any, or_complex: bool = False) -> None:
    """Raise unless they are observations and a model of the same shape, library, device and dtype, real or `or_complex`."""
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
    if is_complex(observations.like) and not or_complex:
        raise DTypeError(
            f"the measurements are {observations.dtype}, but this solver takes real ones. Complex matrices are for "
            "gradient_descent with a fixed step or SGD, and the squared loss.",
            argument="observations",
            value=str(observations.dtype),
            limit=("float32", "float64"),
        )
