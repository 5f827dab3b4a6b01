"""Training: the solvers' loop on samples in batches."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, all_true, from_host, namespace, number
from dmf.arrays.checks import check_option, positive_integer
from dmf.errors import ArgumentError
from dmf.nonlinear.losses import softmax_cross_entropy
from dmf.nonlinear.network import Network, check_network
from dmf.nonlinear.recorded import NetworkSteps, recorded_steps
from dmf.nonlinear.samples import Samples
from dmf.solvers.checkpoints import Checkpoint, CheckpointLike
from dmf.solvers.loop import Callback, Snapshot, follow
from dmf.solvers.optimizers import Arrays, Optimizer, check_decay
from dmf.solvers.outcomes import Outcome
from dmf.solvers.packing import fingerprint
from dmf.solvers.runs import Run


def train(
    network: Network,
    samples: Samples,
    optimizer: Optimizer,
    *,
    loss: str = "cross-entropy",
    batch_size: int | None = None,
    iterations: int,
    tolerance: float = 0.0,
    record_every: int = 1,
    ema_decay: float = 0.0,
    callback: Callback | None = None,
    seed: int = 0,
    checkpoint: CheckpointLike | None = None,
    resume: bool = False,
) -> Run:
    """Train a network on samples.

    Parameters
    ----------
    network : Network
        The start; of the library, device and dtype of the samples.
    samples : Samples
    optimizer : SGD or Adam
    loss : {"cross-entropy", "squared"}
        Averaged over the samples of a batch.
    batch_size : int, >= 1, optional
        Samples in a batch; all of them unless given. In each epoch every sample comes once, in a new random order; the last
        batch of an epoch holds those that are left.
    iterations : int, >= 0
        Exact upper bound on the number of steps. On a CUDA device, steps of networks of `Dense`, `DeepLinearBlock` and
        `Activation` layers are recorded as a CUDA graph where they are so small that their launches would take longer.
    tolerance : float, >= 0
        Converged once the loss at a recorded iteration is at or below it.
    record_every : int, >= 1
        The history holds iteration 0, every multiple of this, and the last one.
    ema_decay : float, 0 <= ema_decay < 1
        Callbacks and the result get the exponential moving average of the weights so far, those of k steps ago with weight
        ``ema_decay**k``: about the last ``1 / (1 - ema_decay)`` steps. At a constant step size it is steadier than the weights
        themselves, and mostly better. 0: the weights themselves. Steps and losses are the same with any value.
    callback : callable, optional
        Called with a snapshot (``iteration``, ``loss``, ``seconds``, ``network``) at each recorded iteration. It may return
        a mapping of names to numbers or arrays, which become columns of the history, and may raise StopIteration("reason").
    seed : int
        Of the order of the samples.
    checkpoint : path or Checkpoint, optional
        Where the run is kept every minute, at its end and on Ctrl-C, for a process that ends before its time.
    resume : bool
        Go on from `checkpoint`, to the same last bits, if there is one.

    Returns
    -------
    Run
        Its ``network`` is the last finite one; with `ema_decay`, the average up to there. The losses of its history are of the
        batch that comes next, before it is learned from; of all samples in full-batch training.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If an option is out of range, or the samples do not fit the network or the loss.

    References
    ----------
    .. [1] Polyak, Juditsky, SIAM Journal on Control and Optimization 30 (1992): averages of the iterates.
    """
    _check_optimizer(optimizer)
    check_network(network)
    network.check_samples(samples, loss)
    size = len(samples) if batch_size is None else min(positive_integer(batch_size, "batch_size"), len(samples))
    seed = int(check_option("seed", seed, whole=True))
    ema_decay = check_decay("ema_decay", ema_decay)
    kept = Checkpoint.opened(checkpoint, resume)
    if kept is not None:
        kept.expect(network=repr(network), data=fingerprint((samples.inputs, samples.targets)))
    recorded = recorded_steps(network, samples, optimizer, loss, size, ema_decay)
    return follow(
        _Steps(optimizer, loss, size, ema_decay, seed),
        _Problem(samples, network, recorded),
        network.parameters,
        iterations=iterations,
        tolerance=tolerance,
        record_every=record_every,
        callback=callback,
        checkpoint=kept,
    )


def _check_optimizer(optimizer: Any) -> None:
    good = is_dataclass(optimizer) and not isinstance(optimizer, type)
    if not good or not all(hasattr(optimizer, name) for name in ("init", "step")):
        raise ArgumentError(
            f"optimizer={optimizer!r}, but it is a dataclass of options with the functions init and step. Pass SGD(step_size) or "
            "Adam().",
            argument="optimizer",
            value=optimizer,
            limit=("SGD", "Adam"),
        )


@dataclass(frozen=True, eq=False)
class _Problem:
    """What training does not change."""

    samples: Samples
    network: Network  # whatever its parameters are
    recorded: NetworkSteps | None  # on a device, where steps are small


@dataclass(frozen=True, eq=False)
class _State:
    """Loss and gradients are those of the next batch at these parameters; nobody overwrites the arrays of a state."""

    iteration: int
    loss: float
    parameters: Arrays
    gradients: Arrays
    moments: Arrays
    averages: Arrays  # of the parameters; none without a decay
    packed: Array = None  # all arrays in one piece, where steps are recorded; they stand in no other place then

    def kept_for(self, recorded: NetworkSteps | None) -> _State:
        """The same as this one, in one piece where steps are recorded."""
        if recorded is None:
            return self
        packed = recorded.pack((self.parameters, self.gradients, self.moments, self.averages))
        return _State(self.iteration, self.loss, (), (), (), (), packed)

    def unpacked(self, recorded: NetworkSteps | None) -> _State:
        """The same with each array in its place."""
        if recorded is None:
            return self
        gradients, moments = recorded.gradients_and_moments(self.packed)
        weights, averages = recorded.weights(self.packed), recorded.averages(self.packed)
        return _State(self.iteration, self.loss, weights, gradients, moments, averages)


@dataclass(frozen=True)
class _Steps:
    """Steps of an optimiser, as a solver for the driver's loop."""

    optimizer: Optimizer
    loss_name: str
    batch_size: int
    ema_decay: float
    seed: int

    def init(self, problem: _Problem, parameters: Arrays) -> _State:
        batch = _Batches(problem.samples, self.batch_size, self.seed)[0]
        loss, gradients = problem.network.loss_and_gradients(batch, self.loss_name)
        averages = parameters if self.ema_decay else ()
        state = _State(0, number(loss), parameters, gradients, self.optimizer.init(parameters), averages)
        return state.kept_for(problem.recorded)

    def advance(self, problem: _Problem, state: _State, iterations: int, careful: bool = False) -> tuple[_State, int]:
        batches = _Batches(problem.samples, self.batch_size, self.seed)
        if problem.recorded and not careful:
            return self._replayed(problem, state, iterations, batches)
        before, state = state, state.unpacked(problem.recorded)
        network, loss = problem.network, state.loss
        # The steps overwrite these copies, so that the state survives: an interruption or a divergence goes back to it.
        parameters, averages, moments, gradients = map(
            _copied, (state.parameters, state.averages, state.moments, state.gradients)
        )
        for done in range(iterations):
            count = state.iteration + done + 1
            parameters, moments = self.optimizer.step(parameters, gradients, moments, network.rates, count)
            averages = _averaged(averages, parameters, self.ema_decay, count)
            network = network.with_parameters(parameters)
            value, gradients = network.loss_and_gradients(batches[count], self.loss_name)
            loss = number(value)
            if not math.isfinite(loss) or (careful and not _finite(parameters)):
                return self.advance(problem, before, done)  # the same steps again, without the one that went too far
        if not careful and not _finite(parameters):  # an activation can hide that from the loss
            return self.advance(problem, before, iterations, careful=True)
        following = _State(state.iteration + iterations, loss, parameters, gradients, moments, averages)
        return following.kept_for(problem.recorded), iterations

    def _replayed(self, problem: _Problem, state: _State, iterations: int, batches: _Batches) -> tuple[_State, int]:
        """`advance` by recorded steps, as long as all stays finite."""
        assert problem.recorded is not None
        found, loss, done, finite = problem.recorded(
            state.packed, state.iteration, state.loss, iterations, batches.order
        )
        if done < iterations:  # the same steps again, without the one that went too far
            return self._replayed(problem, state, done, batches)
        if not finite:
            return self.advance(problem, state, iterations, careful=True)
        return replace(state, iteration=state.iteration + done, loss=loss, packed=found), done

    def loss(self, state: _State) -> float:
        return state.loss

    def model(self, problem: _Problem, state: _State) -> Network:
        state = state.unpacked(problem.recorded)
        return problem.network.with_parameters(state.averages if self.ema_decay else state.parameters)

    def finished(self, state: _State) -> None:
        return None

    def findings(self, state: _State) -> dict[str, float]:
        return {}

    def advice(self, outcome: Outcome) -> str:
        return {
            Outcome.DIVERGED: "Take a smaller step_size.",
            Outcome.BUDGET: "Raise iterations if the loss still falls.",
        }.get(outcome, "")


class _Batches:
    """Batch of each iteration: a function of seed and iteration alone, so that steps can be taken again."""

    def __init__(self, samples: Samples, size: int, seed: int) -> None:
        self.samples, self._size, self._seed = samples, size, seed
        self._per_epoch = -(-len(samples) // size)
        self._epoch, self._order = -1, None

    def order(self, epoch: int) -> np.ndarray:
        """Of the samples in an epoch."""
        return np.random.default_rng([self._seed, epoch]).permutation(len(self.samples))

    def __getitem__(self, iteration: int) -> Samples:
        if self._size == len(self.samples):
            return self.samples
        epoch, place = divmod(iteration, self._per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, from_host(self.order(epoch), self.samples.inputs)
        assert self._order is not None
        start = place * self._size
        return self.samples.take(self._order[start : min(start + self._size, len(self.samples))])


def _finite(arrays: Arrays) -> bool:
    return all(all_true(namespace(array).isfinite(array)) for array in arrays)


def _averaged(averages: Arrays, parameters: Arrays, decay: float, count: int) -> Arrays:
    """Averages after step number `count`, from 1, which may overwrite them; the start is forgotten at once."""
    share = (1 - decay) / (1 - decay**count)  # of the new parameters: weights decay**k, k < count, over their sum
    moved = []
    for average, w in zip(averages, parameters, strict=bool(averages)):
        average *= 1 - share
        average += share * w
        moved.append(average)
    return tuple(moved)


def _copied(arrays: Arrays) -> Arrays:
    return tuple(namespace(array).asarray(array, copy=True) for array in arrays)


def accuracy(network: Network, samples: Samples) -> float:
    """Share of the samples whose largest output is that of their label.

    Parameters
    ----------
    network : Network
    samples : Samples
        With labels.

    Returns
    -------
    float, from 0 to 1

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If the samples do not fit the network.
    """
    check_network(network)
    network.check_samples(samples, "cross-entropy")
    return _hits(network.forward(samples.inputs)[0], samples)


def _hits(outputs: Array, samples: Samples) -> float:
    xp = namespace(outputs)
    hits = xp.astype(xp.argmax(outputs, axis=1), samples.targets.dtype) == samples.targets
    return number(xp.sum(xp.astype(hits, xp.float64))) / len(samples)


class Evaluation:
    """Callback: "accuracy" and "test_loss" (cross-entropy) on samples that are not trained on.

    Parameters
    ----------
    samples : Samples
        With labels.
    """

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def __call__(self, snapshot: Snapshot) -> Mapping[str, float]:
        """Measures ``snapshot.network``."""
        snapshot.network.check_samples(self._samples, "cross-entropy")
        outputs, _ = snapshot.network.forward(self._samples.inputs)
        loss, _ = softmax_cross_entropy(outputs, self._samples.targets)
        return {"accuracy": _hits(outputs, self._samples), "test_loss": number(loss)}
