"""Corrupted entries: found first, by a fit that doubts every entry, and left out of all that follows.

The search runs on the host. It hands on the entries that it trusts; once these are fitted, the others are told by how much they
are off, and those that an exact fit meets after all are entries again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, from_host, host_dtype, to_host
from dmf.arrays.checks import check_kind
from dmf.completion.fit import Journal, spectral_start
from dmf.completion.offsets import Rest, without_dominant_offsets
from dmf.completion.state import Facts, Stage, relative_residual, rounding_of
from dmf.completion.strategy import FIRST_BOUND, NOISE_OVERSAMPLING
from dmf.models import LowRank
from dmf.observations import SampledEntries
from dmf.recovery.results import Recovery
from dmf.recovery.values import Found, Outliers, Plan, oversampling
from dmf.solvers.clipping import as_recorded
from dmf.solvers.loop import run
from dmf.solvers.outcomes import Outcome
from dmf.solvers.robust import RobustBayes
from dmf.solvers.runs import Run

SEARCH = "search for outliers"  # the fit that its runs belong to
_TYPICAL = 0.9  # quantile of the sizes of entries, to which larger ones are cut for a start
_SPIKE = 0.4  # share of a component in one row or column: that is an outlier of its own rather than a pattern


@dataclass(frozen=True, eq=False)
class Search:
    """What a search for outliers has left.

    Parameters
    ----------
    given, kept : SampledEntries
        All entries, and those that are no outliers.
    outliers : bool array on the host, shape (m,)
    rest : Rest
        What was searched, on the host.
    run : Run
        The last one.
    """

    given: SampledEntries
    kept: SampledEntries
    outliers: np.ndarray
    rest: Rest
    run: Run

    def recovery(self, plan: Plan, journal: Journal) -> Recovery:
        """What is known where the search was broken off."""
        rank, mean_square = int(self.run.findings["rank"]), self.given.mean_square
        model = self.rest.whole(self.run.model.truncated(rank))
        found = Found(
            rank=rank,
            noise=float(self.run.findings["noise"]),
            exact=False,
            offsets=model.offsets is not None,
            relative_residual=relative_residual(float(self.run.history.loss[-1]), mean_square),
            oversampling=oversampling(self.kept.n_distinct, self.kept.shape, rank),
        )
        model = model.moved(lambda array: from_host(to_host(array), self.given.like))
        history, runs = journal.history(), tuple(journal.runs)
        return Recovery(model, found, self.run.outcome, history, plan, None, runs, self.kept)

    def told(self, recovery: Recovery) -> Recovery:
        """The recovery from the entries that were kept, with the outliers."""
        index = np.flatnonzero(self.outliers)
        at = [np.asarray(to_host(a))[index] for a in (self.given.rows, self.given.cols)]
        rows, cols = (from_host(a, self.given.like) for a in at)
        excess = to_host(self.given.entries)[index] - to_host(self._said(recovery, rows, cols, index))
        if recovery.found.exact:
            rest: Any = self.rest.entries
            met = np.abs(excess) <= rounding_of(self.kept, rest.chosen(~self.outliers).mean_square)
            mask = self.outliers.copy()
            mask[index[met]] = False
            at, excess = [a[~met] for a in at], excess[~met]
            recovery = _proven(replace(recovery, observations=self.given.chosen(~mask)), at)
        return replace(recovery, outliers=Outliers(at[0].astype(np.int64), at[1].astype(np.int64), excess))

    def _said(self, recovery: Recovery, rows: Array, cols: Array, index: np.ndarray) -> Array:
        """What the model says of entries, before bounds, which exact values may lie beyond."""
        times, found = self.given.times, recovery.found
        said = recovery.model.entries(rows, cols)
        said = said if times is None else recovery.drifted(said, rows, cols, times[index])
        return said if found.clipped is None else as_recorded(said, found.clipped, found.noise)


def _proven(recovery: Recovery, outliers: list[np.ndarray]) -> Recovery:
    """The recovery, which is exact only where each row and column with outliers fits more entries than its rank.

    As many as the rank are fitted by something, whichever of the entries are taken for outliers.
    """
    entries, found = recovery.observations, recovery.found
    assert isinstance(entries, SampledEntries)
    doubtful = []
    for side in (0, 1):
        met = np.unique(outliers[side])
        doubtful.append(met[to_host(entries.counts(side))[met] <= found.rank])
    if not any(index.size for index in doubtful):
        return recovery
    rows, cols = (
        tuple(np.union1d(known, index).astype(int).tolist())
        for known, index in zip(found.undetermined, doubtful, strict=True)
    )
    found = replace(found, exact=False, undetermined=(rows, cols))
    return replace(recovery, found=found, outcome=Outcome.UNDETERMINED)


def without_outliers(entries: SampledEntries, plan: Plan, journal: Journal) -> Search:
    """The entries but those that do not fit a matrix of low rank, to which the others do.

    Parameters
    ----------
    entries : SampledEntries
    plan : Plan
    journal : Journal
        Gets the runs.

    Raises
    ------
    ArgumentError
        If the entries are of a kind that is not here.
    """
    check_kind(
        "data", entries, SampledEntries, "Outliers are looked for in entries that are here: pass SampledEntries."
    )
    here: Any = entries.to_device("cpu")
    rest = Rest(here, 1.0) if plan.offsets is False else without_dominant_offsets(here, plan.seed)
    here = rest.entries

    def back(model: LowRank) -> LowRank:
        return rest.whole(model).moved(lambda array: from_host(to_host(array), entries.like))

    journal.fit = SEARCH
    facts = Facts(
        here.shape, here.n_distinct, here.n_measurements, 0.0, 0.0, 0.0, plan.rank, plan.iterations, plan.seed
    )
    width = min(FIRST_BOUND, *here.shape) if plan.rank is None else plan.rank
    done = _searched(here, width, plan, journal, back)
    while plan.rank is None and not done.outcome.broken_off and int(done.findings["rank"]) == width:
        wider = min(2 * width, *here.shape)
        if wider == width or not facts.determined(wider, NOISE_OVERSAMPLING):
            break
        width, done = wider, _searched(here, wider, plan, journal, back)
    while not done.outcome.broken_off and 0 < (patterns := _patterns(done)) < done.findings["rank"]:
        done = _searched(here, patterns, plan, journal, back)
    outliers = to_host(done.state.weights) < 0.5
    return Search(entries, entries.chosen(~outliers) if outliers.any() else entries, outliers, rest, done)


def _searched(
    entries: SampledEntries, width: int, plan: Plan, journal: Journal, back: Callable[[LowRank], LowRank]
) -> Run:
    """One run of the solver, from the leading singular vectors of the entries, large ones cut."""
    most = np.quantile(np.abs(entries.values), _TYPICAL).astype(host_dtype(entries.values))
    start = spectral_start(entries.with_values(np.clip(entries.values, -most, most)), width, plan.seed)
    done = run(
        RobustBayes(plan.seed),
        entries,
        start,
        iterations=plan.iterations,
        callback=journal.watching(Stage.OUTLIERS, back),
        checkpoint=journal.checkpoint,
    )
    journal.add(Stage.OUTLIERS, done)
    return done


def _patterns(done: Run) -> int:
    """Number of components of a run that are not for the most part in a single row or column."""
    model = done.model.truncated(max(int(done.findings["rank"]), 1))

    def spread(vectors: Array) -> np.ndarray:
        return np.max(to_host(vectors) ** 2, axis=0) <= _SPIKE

    return int(np.sum(spread(model.u) & spread(np.matrix_transpose(to_host(model.vt)))))
