"""Counts such as clicks and plays: rank, weights and penalty chosen by how held-out counts rank, then all are fitted."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import namespace, number, to_host
from dmf.arrays.checks import check_kind, random_generator
from dmf.arrays.interrupts import remembered_interrupts
from dmf.completion.fit import FINAL, HOLD_OUT, Journal
from dmf.completion.state import Stage
from dmf.errors import ArgumentError
from dmf.models import LowRank
from dmf.observations import Entries, SampledEntries
from dmf.recovery.priors import FEATURES
from dmf.recovery.ranking import ranking_measures
from dmf.recovery.results import Recovery
from dmf.recovery.values import Found, Plan, Weighting, oversampling
from dmf.solvers.implicit import WholeMatrix, preferences, summed
from dmf.solvers.loop import Callback, run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import Run

_HELD_SHARE = 0.1  # share of the counts by which is chosen
_COUNTS_TO_CHOOSE_BY = 50  # counts; of fewer, too few are held out to choose by
_RIDGE_OF_FEW = 0.5  # then: little, so that not all factors die
_COUNTS_LOOKED_AT = 500_000  # counts that are looked at to choose: rows are drawn until there are as many
_MOST_TRIALS = 40
_FIRST_SWEEPS, _TRIAL_SWEEPS = 10, 5  # to choose by: from a random start, and from the best fit so far
_SWEEPS = 20
_ERRORS_FOR_MORE_RANK = 0.5  # standard errors by which a larger rank must rank better, as its sweeps take longer
_LIST_LENGTH = 10  # columns of each row that are looked at


@dataclass(frozen=True)
class _Choice:
    """What a fit depends on.

    Parameters
    ----------
    rank : int
    confidence : float
        Mean weight of the counts.
    power : float
    ridge : float
        For all rows, whatever share of them is fitted.
    """

    rank: int
    confidence: float
    power: float
    ridge: float

    def weighting(self, counts: SampledEntries) -> Weighting:
        """The same for counts as they are."""
        mean = number(namespace(counts.values).mean(counts.entries**self.power))
        return Weighting(self.confidence / mean, self.power, self.ridge)


_FIRST_CHOICE = _Choice(32, 2.0, 0.5, 2.0)
_MOVES: tuple[Callable[[_Choice, int], _Choice], ...] = (  # up (1) or down (-1)
    lambda at, way: replace(at, ridge=at.ridge * 2.0**way),
    lambda at, way: replace(at, confidence=at.confidence * 2.0**way, ridge=at.ridge * 2.0**way),
    lambda at, way: replace(at, rank=round(at.rank * 2.0**way)),
    lambda at, way: replace(at, confidence=at.confidence * 2.0**way),
    lambda at, way: replace(at, power=at.power + 0.5 * way),
)


def without_values(
    observations: Entries, offsets: bool | str, bounds: Any, outliers: bool, features: tuple[Any, Any]
) -> bool:
    """Whether a model of implicit feedback has offsets: never; raises if something is asked for that goes with values alone."""
    for name, value, given in (
        ("offsets", offsets, offsets is True),
        ("bounds", bounds, bounds is not None),
        ("weights", "given", observations.weights is not None),
        ("time", "given", observations.times is not None),
        ("outliers", outliers, outliers),
        *((name, "given", data is not None) for name, data in zip(FEATURES, features, strict=True)),
    ):
        if given:
            raise ArgumentError(
                f'{name}={value!r} with feedback="implicit", whose counts are no values to predict: they rank the columns of '
                f"each row, and how much they weigh is chosen. Leave {name} out.",
                argument=name,
                value=value,
                limit=None,
            )
    return False


def complete_implicit(journal: Journal, observations: Any, plan: Plan, callback: Callback | None) -> Recovery:
    """Factors that rank the columns of each row; see `dmf.complete`.

    Raises
    ------
    ArgumentError, ObservationError
        If the observations are no entries in memory, a count is negative, or all are 0.
    """
    check_kind("data", observations, SampledEntries, 'Pass counts in memory with feedback="implicit".')
    journal, ranking = replace(journal, callback=callback, fit=FINAL), None
    counts = summed(observations)
    with counts.threads(), remembered_interrupts():
        kept, held = counts.split(plan.holdout, plan.seed) if plan.holdout else (counts, None)
        journal.fit = FINAL if held is None else HOLD_OUT
        choice, ended = _chosen(kept, plan, journal)
        if ended is None and held is not None:
            ended = _fitted(kept, choice, _SWEEPS, Stage.IMPLICIT, plan, journal)
            ranking = ranking_measures(_recovery(ended, choice, kept, plan, journal), held, _LIST_LENGTH, kept)
            if not ended.outcome.broken_off:
                journal.fit = FINAL
                ended = None
        if ended is None:
            ended = _fitted(counts, choice, _SWEEPS, Stage.IMPLICIT, plan, journal)
        found = _recovery(ended, choice, counts, plan, journal)
        return replace(found, observations=observations, ranking=ranking)


def _chosen(counts: SampledEntries, plan: Plan, journal: Journal) -> tuple[_Choice, Run | None]:
    """What ranks held-out counts best, by changing one number after the other; and the run that somebody ended, if so."""
    part, share = _some_rows(counts, plan.seed)
    most = min(counts.shape) if plan.rank is None else plan.rank
    noise = sum(
        math.sqrt(part.n_measurements / size) for size in part.shape
    )  # largest singular value of a random pattern
    varied = part.largest > number(namespace(part.values).min(part.values))
    best = replace(
        _FIRST_CHOICE,
        rank=min(_FIRST_CHOICE.rank, most),
        power=_FIRST_CHOICE.power if varied else 0.0,
        ridge=_FIRST_CHOICE.ridge * noise / math.sqrt(share),
    )
    if part.n_measurements < _COUNTS_TO_CHOOSE_BY:
        return replace(best, ridge=_RIDGE_OF_FEW), None
    kept, held = part.split(_HELD_SHARE, plan.seed)
    scores: dict[_Choice, float] = {}
    model: LowRank | None = None
    ended: Run | None = None

    def improves(choice: _Choice) -> bool:
        """Whether a choice not tried before ranks better than the best; it is the best from then on."""
        nonlocal best, model, ended
        possible = 1 <= choice.rank <= most and 0 <= choice.power <= 1 and (varied or choice.power == 0)
        if choice in scores or not possible or len(scores) >= _MOST_TRIALS or ended is not None:
            return False
        of_part = replace(
            choice, ridge=choice.ridge * math.sqrt(share)
        )  # singular values grow with the root of the rows
        sweeps = _FIRST_SWEEPS if model is None else _TRIAL_SWEEPS
        done = _fitted(kept, of_part, sweeps, Stage.WEIGHTS, plan, journal, model)
        if done.outcome.broken_off:
            best, ended = choice, done
            return False
        found = _recovery(done, choice, kept, plan, journal)
        measures = ranking_measures(found, held, _LIST_LENGTH, kept)
        needed = _ERRORS_FOR_MORE_RANK * measures.ndcg_error if choice.rank > best.rank else 0.0
        scores[choice] = measures.ndcg
        if choice != best and not measures.ndcg > scores[best] + needed:
            return False
        best, model = choice, found.model
        return True

    improves(best)
    before = None
    while best != before:
        before = best
        for move in _MOVES:
            for way in (1, -1):
                moved = False
                while improves(move(best, way)):
                    moved = True
                if moved:
                    break
    return best, ended


def _some_rows(counts: SampledEntries, seed: int) -> tuple[SampledEntries, float]:
    """The counts in rows that are drawn until they have enough, and the share of the rows that these are."""
    if counts.n_measurements <= _COUNTS_LOOKED_AT:
        return counts, 1.0
    drawn = random_generator(seed).permutation(counts.shape[0])
    size = int(np.searchsorted(np.cumsum(to_host(counts.counts(0))[drawn]), _COUNTS_LOOKED_AT)) + 1
    return counts.restricted(np.sort(drawn[:size]), np.arange(counts.shape[1])), size / counts.shape[0]


def _fitted(
    counts: SampledEntries,
    choice: _Choice,
    sweeps: int,
    stage: Stage,
    plan: Plan,
    journal: Journal,
    start: LowRank | None = None,
) -> Run:
    weighting = choice.weighting(counts)
    done = run(
        WholeMatrix(choice.rank, choice.ridge, plan.seed),
        preferences(counts, weighting.confidence, weighting.power),
        start,
        iterations=min(sweeps, plan.iterations),
        callback=journal.watching(stage, _low_rank),
        checkpoint=journal.checkpoint,
    )
    journal.add(stage, done)
    return done


def _low_rank(network: Any) -> LowRank:
    left, right = network.factors()
    return LowRank.of_factors(left, right)


def _recovery(done: Run, choice: _Choice, counts: SampledEntries, plan: Plan, journal: Journal) -> Recovery:
    loss = done.history.loss
    found = Found(
        rank=choice.rank,
        noise=math.nan,
        exact=False,
        relative_residual=math.sqrt(loss[-1] / loss[0]),
        oversampling=oversampling(counts.n_measurements, counts.shape, choice.rank),
    )
    outcome = Outcome.SETTLED if done.outcome is Outcome.BUDGET and plan.iterations >= _SWEEPS else done.outcome
    return Recovery(
        _low_rank(done.network), found, outcome, journal.history(), plan, None, tuple(journal.runs), counts,
        weighting=choice.weighting(counts),
    )  # fmt: skip
