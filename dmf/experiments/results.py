"""What the paper's experiments are made of: runs, their curves, and the published numbers beside ours."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmf.arrays.threads import one_blas_thread
from dmf.models import DeepLinearNetwork
from dmf.observations import Observations
from dmf.solvers import Checkpoint, Outcome, Run, Snapshot, alternating_minimization, gradient_descent
from dmf.solvers.outcomes import uninterrupted

Progress = Callable[[str, Snapshot], None]
Measure = Callable[[DeepLinearNetwork], Mapping[str, Any]]

_ONE_THREAD = 128  # rows and columns, up to which a network is trained by one thread


@dataclass(frozen=True)
class Curve:
    """One run: `run.history` holds what the experiment measures in the column `measure`."""

    label: str
    run: Run
    measure: str = "error"
    best: Callable[[np.ndarray], Any] = np.min

    def row(self) -> dict[str, Any]:
        """What tables show of this run."""
        history = self.run.history
        return {
            "network": self.label,
            "iterations": int(history.iteration[-1]),
            "seconds": float(history.seconds[-1]),
            "parameters": self.run.network.n_parameters,
            "training loss": float(history.loss[-1]),
            self.measure: float(history[self.measure][-1]),
            f"best {self.measure}": float(self.best(history[self.measure])),
            "outcome": self.run.outcome.name,
        }

    @property
    def iterations(self) -> float:
        """Iterations to the tolerance; NaN if it was not reached."""
        return float(self.run.nit) if self.run.outcome is Outcome.TOLERANCE else math.nan

    def iterations_to(self, level: float, column: str = "error") -> float:
        """First recorded iteration at which a column of the history is at or below `level`; NaN if it never is."""
        below = np.flatnonzero(self.run.history[column] <= level)
        return float(self.run.history.iteration[below[0]]) if below.size else math.nan


@dataclass(frozen=True)
class Claim:
    """A published number beside ours.

    Attributes
    ----------
    what : str
    published : float
        Read from the figures of the authors' repository, by eye; NaN: none.
    ours : float
        NaN: never reached.
    within : float
        Agrees if neither number is more than ``1 + within`` times the other.
    in_kind : bool
        Of a version of other size: only the side of 1 on which both are is compared.
    """

    what: str
    published: float
    ours: float
    within: float = 0.1
    in_kind: bool = False

    @property
    def ratio(self) -> float:
        """Ours over the published number."""
        return self.ours / self.published

    @property
    def verdict(self) -> str:
        """Whether they agree."""
        if not math.isfinite(self.ours):
            return "not reached"
        if math.isnan(self.published):
            return "not published"
        if self.in_kind:
            return "same in kind" if (self.ours > 1) == (self.published > 1) else "the other way round"
        return "agrees" if abs(math.log(self.ratio)) <= math.log1p(self.within) else "differs"

    def row(self) -> dict[str, Any]:
        """What tables show of it."""
        return {
            "what": self.what,
            "published": self.published,
            "ours": self.ours,
            "ratio": self.ratio,
            "verdict": self.verdict,
        }


@dataclass(frozen=True)
class Experiment:
    """Curves of one experiment of the paper, with the settings that produced them and the published numbers beside ours."""

    name: str
    title: str
    error: str  # what the column "error" measures
    settings: dict[str, Any]
    small: bool = False
    curves: list[Curve] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    note: str = ""  # what differs from the paper, and what we found

    def rows(self) -> list[dict[str, Any]]:
        """One table row for each curve."""
        return [curve.row() for curve in self.curves]

    def claim(self, what: str, published: float, ours: float, within: float = 0.1) -> None:
        """Put a published number beside ours; not in a small version, whose numbers are others."""
        if not self.small:
            self.claims.append(Claim(what, published, ours, within))

    def quotient(self, what: str, published: float, ours: float, within: float = 0.25) -> None:
        """Put a published quotient beside ours; of a small version it is compared in kind."""
        self.claims.append(Claim(what, published, ours, within, self.small))

    def finding(self, what: str, ours: float) -> None:
        """A number of ours on a claim for which none is published."""
        self.claims.append(Claim(what, math.nan, ours))

    def as_json(self) -> dict[str, Any]:
        """Settings, tables and full curves, as JSON holds them."""
        curves = [
            {"label": curve.label} | {name: np.asarray(column).tolist() for name, column in curve.run.history.items()}
            for curve in self.curves
        ]
        return {
            "experiment": self.name,
            "title": self.title,
            "error": self.error,
            "settings": self.settings,
            "note": self.note,
            "table": self.rows(),
            "claims": [claim.row() for claim in self.claims],
            "curves": curves,
        }


@dataclass(frozen=True)
class Runner:
    """Runs networks on one problem and collects their curves; `measure` gives columns of the history, "error" among them."""

    experiment: Experiment
    observations: Observations
    measure: Measure
    progress: Progress | None
    checkpoint: Checkpoint | None

    def descend(self, label: str, network: DeepLinearNetwork, step_size: float, **options: Any) -> Curve:
        """Gradient descent from `network`."""
        # Threads gain nothing on products of small matrices, and on a busy machine they wait for each other.
        small = max(network.shape) <= _ONE_THREAD
        with one_blas_thread() if small else nullcontext():
            return self._collected(label, gradient_descent, network, step_size, **options)

    def alternate(self, rank: int, **options: Any) -> Curve:
        """Alternating minimisation."""
        return self._collected("AltMin", alternating_minimization, rank, **options)

    def _collected(self, label: str, solve: Callable[..., Run], *arguments: Any, **options: Any) -> Curve:
        def callback(snapshot: Snapshot) -> Mapping[str, Any]:
            if self.progress is not None:
                self.progress(label, snapshot)
            return self.measure(snapshot.network)

        run = solve(self.observations, *arguments, callback=callback, checkpoint=self.checkpoint, **options)
        curve = Curve(label, uninterrupted(run))
        self.experiment.curves.append(curve)
        return curve


def relative_error(target: np.ndarray) -> Measure:
    """Measures ``||W - M||_F / ||M||_F``."""
    size = np.linalg.norm(target)
    return lambda network: {"error": float(np.linalg.norm(network.product() - target) / size)}
