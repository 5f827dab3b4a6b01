"""Candidates for a table, each a model in a space of margins, and their weights from entries held out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.threads import one_blas_thread, thread_count
from dmf.tables.families import BY_NAME, FAMILIES, GAUSSIAN, Model
from dmf.tables.folds import folds, natural_order
from dmf.tables.margins import SPACES, Margins, fit_margins

_SHRINKAGE = 1 / 10  # of the weights, in sums of squares of what is held out
_CLOSE = 2.5  # standard errors between the errors of candidates that hardly differ
_LEAST_WEIGHT = 0.01  # candidates of less are not worth a fit
_MOST_ROWS = 10_000  # that choices are made on

Told = Callable[[str, int, int], Any]  # called with what is done, how many steps of it are, and of how many


def silent(work: str, done: int, total: int) -> None:
    """No progress told."""


@dataclass(frozen=True)
class Candidate:
    """A model in a space of margins.

    Attributes
    ----------
    family : str
        Name of a `dmf.tables.families.Family`.
    space : float
        0: standardised columns, 1: normal scores, between: a mean of both.
    setting : float
        Of the family.
    start : float or None
        Prior rows of the Gaussian that it starts from.
    """

    family: str
    space: float
    setting: float
    start: float | None = None

    def __str__(self) -> str:
        return f"{self.family} ({BY_NAME[self.family].setting} {self.setting:g}), margins {self.space:g}"


@dataclass(frozen=True)
class Member:
    """A candidate fitted to a table, and its weight in the mean of all."""

    candidate: Candidate
    weight: float
    margins: Margins
    model: Model

    def expected(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Table with its holes filled by their means, and their variances."""
        filled, spread = self.model.moments(self.margins.latent(table))
        mean, variance = np.array(table), np.zeros_like(table)
        for j, holes in enumerate(np.isnan(table).T):
            mean[holes, j], variance[holes, j] = self.margins.expected(j, filled[holes, j], spread[holes, j])
        return mean, variance

    def draw(self, table: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Table with its holes filled by a draw."""
        drawn = self.margins.restored(self.model.draw(self.margins.latent(table), generator))
        return np.where(np.isnan(table), drawn, table)


@dataclass(frozen=True)
class HeldOut:
    """Cells held out, and what the candidates said of them.

    Attributes
    ----------
    rows, columns : arrays of int, shape (m,)
        Of the table.
    truth : array, shape (m,)
        In units of the standardised columns.
    predictions, variances : arrays, shape (m,)
        Of the weighted candidates, fitted without these cells; each given all other observed cells of its row.
    candidates : tuple of Candidate
    weights, errors : arrays, shape (number of candidates,)
        Weight of each, and its root-mean-square error.
    """

    rows: np.ndarray
    columns: np.ndarray
    truth: np.ndarray
    predictions: np.ndarray
    variances: np.ndarray
    candidates: tuple[Candidate, ...]
    weights: np.ndarray
    errors: np.ndarray


def _said(model: Model, margins: Margins, latent: np.ndarray, turns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances of held-out cells, given all others of their rows but those of the same turn.

    So about as much is known of a row as when its holes are filled: held-out ones are observed, too.
    """
    if not turns.any():
        return np.empty(0), np.empty(0)
    by_turn = [turns == turn for turn in range(1, int(turns.max()) + 1)]
    rows = np.concatenate([np.flatnonzero(hidden.any(axis=1)) for hidden in by_turn])
    hidden = np.concatenate([hidden[hidden.any(axis=1)] for hidden in by_turn])
    filled, spread = model.moments(np.where(hidden, np.nan, latent[rows]))
    mean, variance = np.empty_like(latent), np.empty_like(latent)
    for j in range(latent.shape[1]):
        at = np.flatnonzero(hidden[:, j])
        mean[rows[at], j], variance[rows[at], j] = margins.expected(j, filled[at, j], spread[at, j])
    return mean[turns > 0], variance[turns > 0]


def combined(members: Sequence[Member], table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted mean and variance of the holes of a table, over the members; observed cells are kept, with variance 0."""
    mean, square = np.zeros_like(table), np.zeros_like(table)
    for member in members:
        filled, variances = member.expected(table)
        mean += member.weight * filled
        square += member.weight * (variances + filled**2)
    holes = np.isnan(table)
    return np.where(holes, mean, table), np.where(holes, np.maximum(square - mean**2, 0), 0)


def choose(
    table: np.ndarray, groups: np.ndarray, weights: np.ndarray, bounds: np.ndarray, seed: int, told: Told = silent
) -> HeldOut:
    """Weigh the candidates by what they say of entries that are held out.

    Parameters
    ----------
    table : array, shape (n, d)
        Standardised columns; NaN where nothing is observed.
    groups : array of int, shape (d,)
        Columns of one group are held out together.
    weights : array, shape (n,)
        How often each row counts.
    bounds : array, shape (2, d)
    seed : int
        Of what is held out.
    told : callable
        Called after each fit to what is left.

    Returns
    -------
    HeldOut
    """
    generator = np.random.default_rng(seed)
    chosen = np.arange(len(table))
    if len(table) > _MOST_ROWS:
        chosen = np.sort(natural_order(table)[0][generator.choice(len(table), _MOST_ROWS, replace=False)])
    table, weights = table[chosen], weights[chosen]
    turns = folds(table, groups, generator)
    held_out = [fold > 0 for fold in turns]
    held_weights = np.concatenate([np.broadcast_to(weights[:, None], held.shape)[held] for held in held_out])
    truth = np.concatenate([table[held] for held in held_out])
    starts: dict[tuple[int, float], dict[float, Model]] = {}
    margins: dict[tuple[int, float], Margins] = {}

    def tried(job: tuple[int, float, Any]) -> list[tuple[float, np.ndarray, np.ndarray, Model]]:
        k, space, (family, settings, start) = job
        if (k, space) not in margins:
            margins[k, space] = fit_margins(np.where(turns[k] > 0, np.nan, table), space, weights, bounds)
        latent = margins[k, space].latent(table)
        left = np.where(turns[k] > 0, np.nan, latent)
        first = starts[k, space][start] if start is not None else None
        results = []
        for setting, model in family.path(left, weights, first, seed, settings):
            results.append((setting, *_said(model, margins[k, space], latent, turns[k]), model))
        return results

    def error(prediction: np.ndarray) -> float:
        return float(np.sqrt(held_weights @ (prediction - truth) ** 2 / max(held_weights.sum(), np.finfo(float).tiny)))

    found: dict[Candidate, tuple[np.ndarray, np.ndarray]] = {}

    def wave(plans: list[tuple[float, tuple[Any, Sequence[float], float | None]]]) -> None:
        jobs = [(k, space, plan) for space, plan in plans for k in range(len(held_out))]
        results = _side_by_side(tried, jobs, lambda n: told("trying candidates", len(done) + n, total))
        done.extend(jobs)
        for number, (space, (family, _, start)) in enumerate(plans):
            runs = results[number * len(held_out) : (number + 1) * len(held_out)]
            parts = {}
            for steps in zip(*runs, strict=False):  # a path may end early in one of the folds
                mean, variance = (np.concatenate([step[at] for step in steps]) for at in (1, 2))
                parts[Candidate(family.name, space, steps[0][0], start)] = mean, variance
                if family is GAUSSIAN:
                    for k, step in enumerate(steps):
                        starts.setdefault((k, space), {})[step[0]] = step[3]
            if parts and not family.separate:
                best = min(parts, key=lambda candidate: error(parts[candidate][0]))
                parts = {best: parts[best]}
            found.update(parts)

    n, d = table.shape
    settings = {family: tuple(family.settings(n, d)) for family in FAMILIES}
    counts = [len(settings[family]) if family.separate else bool(settings[family]) for family in FAMILIES]
    total = sum(counts) * len(SPACES) * len(held_out)
    done: list[Any] = []
    with one_blas_thread():
        wave([
            (space, (family, settings[family], None))
            for family in FAMILIES if settings[family] and not family.separate for space in SPACES
        ])  # fmt: skip
        gaussian = {c.space: c.setting for c in found if c.family == GAUSSIAN.name}
        wave([
            (space, (family, (setting,), gaussian[space]))
            for family in FAMILIES if family.separate for setting in settings[family] for space in SPACES
        ])  # fmt: skip
    return _weighed(chosen, held_out, truth, held_weights, found, error)


def _weighed(chosen, held_out, truth, held_weights, found, error) -> HeldOut:
    candidates = tuple(found)
    predictions = np.column_stack([found[c][0] for c in candidates])
    errors = np.array([error(column) for column in predictions.T])
    weights = stacking_weights(predictions, truth, held_weights)
    mean = predictions @ weights
    square = sum(w * (found[c][1] + found[c][0] ** 2) for c, w in zip(candidates, weights, strict=True))
    places = [np.nonzero(held) for held in held_out]
    rows, columns = (np.concatenate([place[axis] for place in places]) for axis in (0, 1))
    return HeldOut(chosen[rows], columns, truth, mean, np.maximum(square - mean**2, 0), candidates, weights, errors)


def stacking_weights(predictions: np.ndarray, truth: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Weights of the candidates, at least 0 and of sum 1, that predict best, shrunk to those by which each is close to the best.

    A candidate counts exp(-z^2 / 2 s^2) there, z the number of standard errors by which it is worse than the best one, s = 2.5.
    As what hardly differs counts alike, it matters little which cells are held out.

    Parameters
    ----------
    predictions : array, shape (m, k)
    truth : array, shape (m,)
    counts : array, shape (m,)
        How often each counts.

    Returns
    -------
    array, shape (k,)

    References
    ----------
    .. [1] Wolpert, Neural Networks 1992; Breiman, Machine Learning 1996 (stacking).
    """
    from scipy.optimize import nnls  # here: the import takes a third of a second

    k, root = predictions.shape[1], np.sqrt(counts)
    squares = (predictions - truth[:, None]) ** 2 * root[:, None] ** 2
    worse = squares - squares[:, [np.argmin(squares.sum(axis=0))]]
    total = max(counts @ truth**2, np.finfo(float).eps)
    off = worse - worse.sum(axis=0) / max(len(worse), 1)
    spread = np.sqrt(np.sum(off**2, axis=0)) + np.finfo(float).eps * total
    prior = np.exp(-((worse.sum(axis=0) / spread / _CLOSE) ** 2) / 2)
    prior /= prior.sum()
    shrink = np.sqrt(_SHRINKAGE * total)
    sum_to_one = 1e3 * np.sqrt(total)
    design = np.vstack([predictions * root[:, None], shrink * np.eye(k), np.full((1, k), sum_to_one)])
    # Only the Gram matrix matters, and it is small.
    triangle, target = _reduced(design, np.concatenate([truth * root, shrink * prior, [sum_to_one]]))
    weights = nnls(triangle, target)[0]
    weights[weights < _LEAST_WEIGHT * weights.sum()] = 0
    return weights / weights.sum()


def _reduced(design: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    q, r = np.linalg.qr(design)
    return r, q.T @ target


def fit_members(
    candidates: Iterable[tuple[Candidate, float]],
    table: np.ndarray, weights: np.ndarray, bounds: np.ndarray, seed: int, told: Told = silent,
) -> list[Member]:  # fmt: skip
    """Fit candidates, each with its weight, to all that is observed; arguments as of `choose`."""
    pairs = [(candidate, weight) for candidate, weight in candidates if weight > 0]
    spaces = sorted({candidate.space for candidate, _ in pairs})
    margins = {space: fit_margins(table, space, weights, bounds) for space in spaces}

    def fit(job: tuple[Candidate, Model | None]) -> Model:
        candidate, start = job
        latent = margins[candidate.space].latent(table)
        return BY_NAME[candidate.family].fit(latent, weights, start, seed, candidate.setting)

    with one_blas_thread():
        needed = dict.fromkeys(
            Candidate(GAUSSIAN.name, c.space, c.start) for c, _ in pairs if c.start is not None
        ) | dict.fromkeys(c for c, _ in pairs if c.start is None)
        later = [c for c, _ in pairs if c.start is not None]
        total = len(needed) + len(later)

        def tell(n: int) -> None:
            told("fitting candidates to all cells", n, total)

        models = dict(zip(needed, _side_by_side(fit, [(c, None) for c in needed], tell), strict=True))
        jobs = [(c, models[Candidate(GAUSSIAN.name, c.space, c.start)]) for c in later]  # type: ignore[arg-type]
        models |= dict(zip(later, _side_by_side(fit, jobs, lambda n: tell(len(needed) + n)), strict=True))
    return [Member(c, weight, margins[c.space], models[c]) for c, weight in pairs]


def _side_by_side(function: Callable[[Any], Any], jobs: Sequence[Any], told: Callable[[int], None]) -> list[Any]:
    """Results of independent jobs, in their order, on as many threads as dmf may use; `told` hears how many are done."""
    threads, results = min(thread_count(), len(jobs)), []
    with ThreadPoolExecutor(threads) if threads > 1 else nullcontext() as pool:
        for result in map(function, jobs) if pool is None else pool.map(function, jobs):
            results.append(result)
            told(len(results))
    return results
