"""One fit: a descent from the spectral start with its step, its start and its end chosen."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from dmf.backend import Array, namespace, number
from dmf.errors import ArgumentError
from dmf.networks import DeepLinearNetwork, balanced_network
from dmf.networks.initialize import check_depth_and_scale
from dmf.observations import Observations
from dmf.offsets import Offsets
from dmf.options import check_option
from dmf.results import Recovery, Status
from dmf.solvers import Snapshot, gradient_descent, largest_curvature

Callback = Callable[[Snapshot], Any]

SCALE = 1e-2
_RECORD_EVERY = 5
_PREDICTABLE = 0.5  # held-out root-mean-square error, relative to predicting zero, that shows more structure than noise
_LEARNING = 0.99  # of the first loss: below, the first component is being learned
_PATIENCE = 200  # iterations, and half as many again as led to the lowest held-out error
_ATTEMPTS = 6  # of a diverging descent, each with half the step, unless the step was given


@dataclass(frozen=True)
class Plan:
    """The options that all pipelines share."""

    rank: int | None
    depth: int
    scale: float | None
    outer_scale: float
    step_size: float | None
    iterations: int
    validation: float
    seed: int
    callback: Callback | None
    attempts: int = _ATTEMPTS

    @classmethod
    def checked(cls, *options: Any) -> Plan:
        plan = cls(*options)
        check_depth_and_scale(plan.depth, SCALE if plan.scale is None else plan.scale)
        check_option("outer_scale", plan.outer_scale, strictly=True)
        if plan.step_size is not None:
            check_option("step_size", plan.step_size, strictly=True)
            plan = replace(plan, attempts=1)
        check_option("iterations", plan.iterations, whole=True)
        check_option("seed", plan.seed, whole=True)
        if not 0 <= plan.validation < 1:
            raise ArgumentError(
                f"validation={plan.validation!r}, but the held-out share is at least 0 and below 1. Pass 0 to hold nothing "
                "out.",
                argument="validation",
                value=plan.validation,
                limit=(0, 1),
            )
        return plan


@dataclass(frozen=True)
class Fit:
    recovery: Recovery
    step_size: float
    validation_rmse: float  # lowest one; NaN without held-out measurements
    iterations: int  # at the lowest one, or the budget if the error was still falling
    turned: bool  # whether the held-out error had a minimum before the end
    scale: float
    predictable: bool  # most of the held-out measurements' square is predicted: more structure than noise

    @property
    def failed(self) -> bool:
        return self.recovery.status.reason in ("interrupted", "diverged")


def fit(
    observations: Observations, plan: Plan, offsets: Offsets | None, phase: str, held: Observations | None = None
) -> Fit:
    """One descent from the spectral start to convergence, or until the error on `held` has been rising for long."""
    target, held_target = observations, held
    if offsets is not None:
        target = _without(observations, offsets)
        held_target = None if held is None else _without(held, offsets)
    assert plan.rank is not None  # set by _recover
    scale = SCALE if plan.scale is None else plan.scale
    u, s, vt = target.surrogate_svd(plan.rank, plan.seed)
    s = s * _calibration(target, u * s, vt)
    size = max(number(s[0]), float(namespace(s).finfo(s.dtype).smallest_normal) ** 0.25)
    start = balanced_network(u, 0 * s + size * scale**plan.depth, vt, plan.depth)
    step_size = plan.step_size
    if step_size is None:
        solution = balanced_network(u, s + 1e-3 * size, vt, plan.depth)
        curvature = largest_curvature(target, solution, plan.outer_scale, seed=plan.seed)
        step_size = 1 / curvature if curvature > 0 else 1.0
    relative = 1e-8 if "64" in str(target.dtype) else 1e-5
    for _ in range(plan.attempts):
        monitor = _Monitor(held_target, plan.callback, phase, relative / 10)
        recovery = gradient_descent(
            target,
            start,
            step_size,
            plan.outer_scale,
            iterations=plan.iterations,
            tolerance=relative**2 * mean_square(target) / 2,
            record_every=_RECORD_EVERY,
            callback=monitor,
        )
        if recovery.status.reason != "diverged":
            break
        step_size /= 2
    spent = int(recovery.history.iteration[-1])
    options: dict[str, Any] = {"solver": "gradient descent", "rank": plan.rank, "depth": plan.depth, "scale": scale}
    options |= {"outer_scale": plan.outer_scale, "seed": plan.seed, "iterations": spent}
    status = recovery.status
    if monitor.settled:
        status = Status("converged", f"the weights stopped moving at iteration {spent}.")
    recovery = replace(recovery, offsets=offsets, observations=observations, options=options, status=status)
    turned = monitor.best_iteration < spent
    return Fit(
        recovery,
        step_size,
        math.sqrt(monitor.best) if held is not None else math.nan,
        monitor.best_iteration if turned else plan.iterations,
        turned,
        scale,
        held_target is not None and monitor.best < _PREDICTABLE**2 * mean_square(held_target),
    )


def _calibration(observations: Observations, left: Array, right: Array) -> float:
    """Factor that makes ``left @ right`` fit best; the surrogate of a general operator has another unit than the matrix."""
    xp = namespace(left, right)
    predicted = observations.predict(left, right)
    size = number(xp.sum(predicted * predicted))
    return abs(number(xp.sum(predicted * observations.values))) / size if size > 0 else 1.0


def mean_square(observations: Observations) -> float:
    """Mean square error of predicting zero."""
    xp = namespace(observations.values)
    return number(xp.sum(observations.values**2)) / observations.n_measurements


def _without(observations: Observations, offsets: Offsets) -> Observations:
    return observations.with_values(observations.values - observations.predict(*offsets.factors()))


class _Monitor:
    """Callback that measures the held-out error and ends the descent when it has risen for long, or nothing moves."""

    def __init__(self, held: Observations | None, callback: Callback | None, phase: str, still: float) -> None:
        self._held, self._callback, self._phase, self._still = held, callback, phase, still
        self.best, self.best_iteration, self.settled = math.inf, 0, False
        self._last: DeepLinearNetwork | None = None
        self._first_loss = math.inf

    def __call__(self, snapshot: Snapshot) -> dict[str, float]:
        snapshot.phase = self._phase
        measured = {}
        network = snapshot.network
        if snapshot.iteration == 0:
            self._first_loss = snapshot.loss
        learning = snapshot.loss < _LEARNING * self._first_loss  # before, nothing says when to stop
        if self._held is not None:
            square = 2 * number(self._held.loss(*network.factors())) / self._held.n_measurements
            measured["validation_rmse"] = math.sqrt(square)
            if square < self.best:
                self.best, self.best_iteration = square, snapshot.iteration
            elif learning and snapshot.iteration > 1.5 * self.best_iteration + _PATIENCE:
                raise StopIteration(f"the held-out error was lowest at iteration {self.best_iteration}")
        if self._callback is not None:
            measured |= dict(self._callback(snapshot) or {})
        if self._last is not None and learning and snapshot.iteration % _RECORD_EVERY == 0:
            self.settled = _movement(self._last, network) <= self._still * _RECORD_EVERY
            if self.settled:
                raise StopIteration("the weights stopped moving")
        self._last = network
        return measured


def _movement(before: DeepLinearNetwork, after: DeepLinearNetwork) -> float:
    """Change of all weights between two networks, relative to their size."""
    xp = namespace(after.weights[0])
    change = sum(number(xp.sum((a - b) ** 2)) for a, b in zip(after.weights, before.weights, strict=True))
    size = sum(number(xp.sum(a**2)) for a in after.weights)
    return math.sqrt(change / size)
