"""Descent with everything open: optimiser, rates and ties of layers, schedule, minibatches, loss. In plain array code."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, all_true, from_host, namespace, number
from dmf.arrays.checks import check_option
from dmf.errors import ArgumentError, ShapeError
from dmf.models import DeepLinearNetwork
from dmf.models.gradients import Weights, loss_and_gradients
from dmf.observations import Observations, SampledEntries
from dmf.observations.checks import has_own_loss
from dmf.solvers.losses import Loss
from dmf.solvers.optimizers import SGD, Arrays, Optimizer
from dmf.solvers.outcomes import Outcome
from dmf.solvers.packing import fingerprint

Schedule = Callable[[int], float] | Sequence[float] | Array


class Factors:
    """Factor of the step in each iteration, known by a fingerprint."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self._text = "all 1" if np.all(values == 1) else fingerprint(values)

    def __repr__(self) -> str:
        return self._text


class Batches:
    """Entries of each iteration: a function of seed and iteration alone, so that steps can be taken again."""

    def __init__(self, observations: Any, size: int, seed: int) -> None:
        self.observations, self._size, self._seed = observations, size, seed
        self._epoch, self._order = -1, np.empty(0, int)

    def __getitem__(self, iteration: int) -> Any:
        known = self.observations
        if not self._size:
            return known
        epoch, place = divmod(iteration, -(-known.n_measurements // self._size))
        if epoch != self._epoch:
            order = np.random.default_rng([self._seed, epoch]).permutation(known.n_measurements)
            self._epoch, self._order = epoch, order
        chosen = np.sort(self._order[place * self._size : (place + 1) * self._size])
        index, xp = from_host(chosen, known.values), namespace(known.values)
        rows, cols, values = (xp.take(a, index) for a in (known.rows, known.cols, known.values))
        return SampledEntries(rows, cols, values, known.shape)


@dataclass(frozen=True)
class _State:
    iteration: int
    loss: float
    weights: Weights  # of tied layers, the one that they share
    gradients: Weights
    moments: Arrays


@dataclass(frozen=True)
class OptimizedDescent:
    """Steps of an optimiser; the gradients of the next step are part of the state.

    Parameters
    ----------
    optimizer : SGD or Adam
    rates : tuple of floats
        Factor of the optimiser's step for each layer; with ties, for W_1, the shared layer and W_L.
    factors : Factors
        Of the step in each iteration.
    weight_decay : float
        Layers shrink by ``1 - factor step_size weight_decay`` before each step.
    reduction : {"mean", "sum"}
    criterion : Loss or None
        None: the observations' own, which is the squared one unless a subclass says otherwise.
    batch_size : int
        Entries in a batch; 0 for all measurements.
    seed : int
        Of the batches.
    tied : int
        Number of inner layers, which share one weight; 0 if each has its own.
    """

    optimizer: Optimizer
    rates: tuple[float, ...]
    factors: Factors
    weight_decay: float
    reduction: str
    criterion: Loss | None
    batch_size: int
    seed: int
    tied: int = 0

    @property
    def takes_complex(self) -> bool:
        """With SGD and the squared loss: Adam and other losses know nothing of conjugates."""
        return isinstance(self.optimizer, SGD) and self.criterion is None

    def prepare(self, observations: Observations, start: Any) -> Batches:
        """The batches of every iteration."""
        return Batches(observations, self.batch_size, self.seed)

    def init(self, batches: Batches, network: DeepLinearNetwork) -> _State:
        """State at the start."""
        weights = (*network.weights[:2], network.weights[-1]) if self.tied else network.weights
        loss, gradients = self._evaluated(batches, weights, 0)
        return _State(0, loss, weights, gradients, self.optimizer.init(weights))

    def advance(self, batches: Batches, state: _State, iterations: int) -> tuple[_State, int]:
        """State after at most `iterations` steps, and their number."""
        step_size = self.optimizer.step_size  # type: ignore[attr-defined]
        loss = state.loss
        weights, gradients, moments = map(
            _copied, (state.weights, state.gradients, state.moments)
        )  # steps overwrite them
        for done in range(iterations):
            count = state.iteration + done
            factor = float(self.factors.values[count])
            shrink = 1 - factor * step_size * self.weight_decay
            if shrink != 1:
                weights = tuple(shrink * w for w in weights)
            rates = tuple(factor * rate for rate in self.rates)
            weights, moments = self.optimizer.step(weights, gradients, moments, rates, count + 1)
            loss, gradients = self._evaluated(batches, weights, count + 1)
            if not math.isfinite(loss):
                return self.advance(batches, state, done)  # the same steps, but the one that went too far
        return _State(state.iteration + iterations, loss, weights, gradients, moments), iterations

    def _layers(self, weights: Weights) -> Weights:
        """All L layers."""
        return (weights[0], *[weights[1]] * self.tied, weights[2]) if self.tied else weights

    def _evaluated(self, batches: Batches, weights: Weights, count: int) -> tuple[float, Weights]:
        """Loss and gradients on the batch of an iteration."""
        batch, whole = batches[count], batches.observations.n_measurements
        scale = 1 / batch.n_measurements if self.reduction == "mean" else whole / batch.n_measurements

        def evaluate(left: Array, right: Array) -> tuple[Array, Array, Array]:
            assert self.criterion is not None
            loss, derivatives = self.criterion.evaluate(batch.predict(left, right), batch.values)
            return loss, *batch.adjoint(derivatives, left, right)

        loss, gradients = loss_and_gradients(
            self._layers(weights), batch.evaluate if self.criterion is None else evaluate
        )
        if self.tied:
            gradients = gradients[0], sum(gradients[2:-1], gradients[1]), gradients[-1]
        return scale * number(loss), tuple(scale * g for g in gradients)

    def loss(self, state: _State) -> float:
        """Training loss of a state; with batches, that of the next one."""
        return state.loss

    def model(self, batches: Batches, state: _State) -> DeepLinearNetwork:
        """Network of a state."""
        return DeepLinearNetwork(self._layers(state.weights))

    def finished(self, state: _State) -> None:
        """Never: it goes on until the loop ends it."""

    def findings(self, state: _State) -> dict[str, float]:
        """Nothing besides the loss."""
        return {}

    def advice(self, outcome: Outcome) -> str:
        """What to do after a run that ended like this."""
        return {
            Outcome.DIVERGED: "Take a smaller step_size.",
            Outcome.BUDGET: "Allow more iterations if the loss is still falling.",
        }.get(outcome, "")


def checked_rates(rates: Sequence[float], depth: int) -> tuple[float, ...]:
    """`rates` as L floats; errors if they are not, or negative."""
    found = tuple(check_option("rates", rate) for rate in rates)
    if len(found) != depth:
        raise ShapeError(
            f"rates has {len(found)} numbers, but the network has {depth} layers. Pass one for each, W_1 first.",
            argument="rates",
            value=len(found),
            limit=depth,
        )
    return found


def checked_factors(schedule: Schedule | None, iterations: int) -> Factors:
    """The factors of a schedule, one for each iteration; errors if there are too few, or one is negative or not finite."""
    if schedule is None:
        return Factors(np.ones(iterations))
    values = np.array([schedule(k) for k in range(iterations)] if callable(schedule) else schedule, float)
    if values.ndim != 1 or len(values) < iterations:
        raise ShapeError(
            f"schedule has shape {values.shape}, but there are {iterations} iterations. Pass a factor of the step for each, or a "
            "function of the iteration.",
            argument="schedule",
            value=values.shape,
            limit=(iterations,),
        )
    if not np.all(np.isfinite(values) & (values >= 0)):
        raise ArgumentError(
            "schedule holds a factor that is negative or not finite, but steps go downhill. Pass factors of at least 0.",
            argument="schedule",
            value=float(values[~(np.isfinite(values) & (values >= 0))][0]),
            limit=0,
        )
    return Factors(values[:iterations])


def check_tied(network: DeepLinearNetwork, rates: tuple[float, ...]) -> None:
    """Raise ArgumentError where inner layers or their rates differ, which tied layers cannot."""
    inner, own = network.weights[1:-1], rates[1:-1]
    if not inner:
        raise ArgumentError(
            f"tied=True, but a network of depth {network.depth} has no layers between the first and the last. Pass a deeper "
            "one, or leave tied away.",
            argument="tied",
            value=True,
            limit=network.depth,
        )
    if any(w.shape != inner[0].shape or not all_true(w == inner[0]) for w in inner):
        raise ArgumentError(
            "tied=True, but the start has inner layers W_2, ..., W_(L-1) that differ. Start from spectral_network(...), or from "
            "DeepLinearNetwork([W_1, C, ..., C, W_L]) with one square C.",
            argument="tied",
            value=True,
            limit="equal inner layers",
        )
    if len(set(own)) > 1:
        raise ArgumentError(
            f"tied=True, but rates of inner layers are {own}, and layers that are one move at one rate. Pass equal ones.",
            argument="tied",
            value=True,
            limit="equal rates",
        )


def check_losses(observations: Any, criterion: Loss | None, batch_size: int) -> None:
    """Raise ArgumentError where a loss or batches do not go with the observations."""
    if criterion is not None and not hasattr(criterion, "evaluate"):
        raise ArgumentError(
            f"loss={criterion!r}, but it is an object with the function evaluate(predictions, values). Pass for example "
            "Huber(0.1).",
            argument="loss",
            value=criterion,
        )
    entries = isinstance(observations, SampledEntries) and not has_own_loss(observations, SampledEntries)
    weighted = getattr(observations, "weights", None) is not None
    if criterion is not None and weighted:
        raise ArgumentError(
            f"loss={criterion!r} with weighted entries, but weights are those of squares. Leave one of them away.",
            argument="loss",
            value=criterion,
        )
    if batch_size and (weighted or not entries):
        raise ArgumentError(
            f"batch_size={batch_size} with {'weighted ' if weighted else ''}{type(observations).__name__}, but batches are made "
            "of entries without weights. Pass SampledEntries, or leave batch_size away.",
            argument="batch_size",
            value=batch_size,
            limit="SampledEntries",
        )


def _copied(arrays: Arrays) -> Arrays:
    return tuple(namespace(array).asarray(array, copy=True) for array in arrays)
