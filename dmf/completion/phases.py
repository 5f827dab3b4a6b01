"""Solvers one after another, on one budget and in one history."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmf.completion.dense_core import DenseCore
from dmf.errors import ArgumentError
from dmf.models import DeepLinearNetwork
from dmf.observations import Observations
from dmf.recovery.results import History, Recovery, Status
from dmf.solvers.loop import Callback, Snapshot, run


@dataclass(frozen=True)
class Plan:
    """What the user decided.

    Parameters
    ----------
    rank : int or None
        Upper bound; None: none.
    depth : int, >= 1
    iterations : int, >= 0
        Most iterations of all solvers together.
    seed : int
    callback : callable or None
    """

    rank: int | None
    depth: int
    iterations: int
    seed: int
    callback: Callback | None


@dataclass
class Phases:
    """Runs solvers one after another on one budget, and joins their histories."""

    observations: Observations
    plan: Plan
    names: list[str] = field(default_factory=list)
    histories: list[History] = field(default_factory=list)
    spent: int = 0
    measured: dict[str, tuple[int, ...]] = field(default_factory=dict)  # shapes of what callbacks returned
    ended: Status | None = None  # by a callback, Ctrl-C or divergence
    contradicted: bool = False  # the last continuation met noise

    def run(
        self,
        name: str,
        solver: Any,
        start: DeepLinearNetwork,
        most: int | None = None,
        core: DenseCore | None = None,
    ) -> Recovery:
        """Recovery of one solver, within what is left of the budget; its history joins the others.

        With a core, of the core; callbacks see networks of the whole matrix.
        """
        left = self.plan.iterations - self.spent
        recovery = run(
            solver,
            self.observations if core is None else core.observations,
            start,
            iterations=left if most is None else min(left, most),
            callback=self._named(name, core),
        )
        self.names.append(name)
        self.histories.append(recovery.history)
        self.spent += int(recovery.history.iteration[-1])
        if recovery.status.reason in ("interrupted", "stopped", "diverged"):
            self.ended = recovery.status
        return recovery

    def _named(self, name: str, core: DenseCore | None) -> Callback:
        def callback(snapshot: Snapshot):
            seen = snapshot if core is None else snapshot.with_network(core.widened)
            seen.phase = name
            return None if self.plan.callback is None else self._checked(self.plan.callback(seen))

        return callback

    def _checked(self, answer: Any) -> Any:
        """What a callback measured, if it fits into one history with the other phases."""
        for name, value in (answer or {}).items():
            shape = tuple(getattr(value, "shape", np.shape(value)))
            if name == "phase" or self.measured.setdefault(name, shape) != shape:
                raise ArgumentError(
                    f"callback measured {name!r} of shape {shape}, but a column of the history has one shape "
                    f'({self.measured.get(name)} before) and "phase" counts the solvers. Return arrays of one shape under '
                    "another name.",
                    argument="callback",
                    value=name,
                )
        return answer

    def exhausted(self) -> bool:
        """Whether the user or the budget has ended the whole."""
        return self.ended is not None or self.spent >= self.plan.iterations

    def history(self) -> History:
        """One history; its column `phase` counts the solvers."""
        names = list(dict.fromkeys(name for history in self.histories for name in history))
        columns: dict[str, list[np.ndarray]] = {name: [] for name in (*names, "phase")}
        iterations, seconds = 0, 0.0
        for phase, history in enumerate(self.histories):
            length = history.iteration.shape[0]
            shifted = {**history, "iteration": history.iteration + iterations, "seconds": history.seconds + seconds}
            for name in names:
                shape = next(h[name].shape[1:] for h in self.histories if name in h)
                columns[name].append(shifted.get(name, np.full((length, *shape), np.nan)))
            columns["phase"].append(np.full(length, phase))
            iterations, seconds = shifted["iteration"][-1], shifted["seconds"][-1]
        return History({name: np.concatenate(parts) for name, parts in columns.items()})
