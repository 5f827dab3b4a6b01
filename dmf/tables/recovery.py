"""`TableRecovery`: a completed table, what was found, and what follows from it: new rows, intervals, probabilities, draws."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dmf.arrays.checks import check_option, random_generator
from dmf.errors import ArgumentError
from dmf.tables.frames import Frame, read_frame
from dmf.tables.kinds import Column
from dmf.tables.stack import Candidate, HeldOut, Member, combined, fit_members

_FEWEST = 20  # cells of a column held out; with fewer, its intervals follow from those of all columns
_LEAST_SPREAD = 0.1  # of a conditional standard deviation, in held-out errors of the column


@dataclass(frozen=True)
class Units:
    """Columns for models: which table column each stands for, and what it is shifted and scaled by.

    Attributes
    ----------
    groups : array of int, shape (D,)
        Number of the column of the table.
    center, scale : arrays, shape (D,)
        The center is NaN where no value was known.
    bounds : array, shape (2, D)
        Of standardised values; infinite where there is none.
    """

    groups: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    bounds: np.ndarray

    def encoded(self, columns: Sequence[Column], values: np.ndarray) -> np.ndarray:
        """Standardised columns for models, shape (n, D)."""
        parts = [column.encoded(values[:, j]) for j, column in enumerate(columns)]
        return (np.column_stack(parts) - self.center) / self.scale

    def cells(self, j: int, means: np.ndarray, variances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Means and variances of the model columns of column `j`, in its own units."""
        own = self.groups == j
        return means[:, own] * self.scale[own] + self.center[own], variances[:, own] * self.scale[own] ** 2


@dataclass(frozen=True)
class TableRecovery:
    """A completed table.

    Attributes
    ----------
    columns : tuple of Column
        Name, kind and levels of each.
    units : Units
    members : tuple of Member
        Candidates that were fitted, each with its weight: model, setting and space of margins.
    held_out : HeldOut
        Cells held out to weigh the candidates, and what these said.
    seed : int
    frame : Frame or None
        The table that was completed; not saved.
    row_weights : array, shape (n,), or None
        As passed.
    """

    columns: tuple[Column, ...]
    units: Units
    members: tuple[Member, ...]
    held_out: HeldOut
    seed: int
    frame: Frame | None = None
    row_weights: np.ndarray | None = None

    def by_place(self) -> TableRecovery:
        """The same model, of columns that go by their place, as those of an array, and not by name."""
        return replace(self, columns=tuple(replace(column, name=k) for k, column in enumerate(self.columns)))

    def filled(self, data: Any = None) -> Any:
        """The table with its holes filled: real and count columns by their means, others by their most probable level.

        Parameters
        ----------
        data : array or data frame, shape (n, d), optional
            New rows, with the columns that the model was fitted to; the table that was completed unless given.

        Returns
        -------
        array or data frame, shape (n, d)
            Of the type and dtypes of the input; what was there is kept.

        Raises
        ------
        ArgumentError
            If the recovery was loaded from a file, so that there is no table, and `data` is not given.
        ShapeError, DTypeError
            If `data` has other columns.
        """
        frame = self._frame(data)
        means, variances = self._moments(frame)
        decoded = [c.decoded(*self.units.cells(j, means, variances)) for j, c in enumerate(self.columns)]
        return frame.restored(np.column_stack(decoded))

    def predict_proba(self, column: Any, data: Any = None) -> np.ndarray:
        """Probability of each level of a boolean, ordinal or nominal column.

        Parameters
        ----------
        column : str or int
            Its name; a number for arrays.
        data : array or data frame, shape (n, d), optional
            As for `filled`.

        Returns
        -------
        array, shape (n, number of levels)
            In the order of the levels of the column. Cells that are known have probability 1.
        """
        j = self._position(column)
        if not self.columns[j].levels:
            raise ArgumentError(
                f"column {column!r} is {self.columns[j].kind}, but only boolean, ordinal and nominal ones have levels. Ask for "
                "intervals.",
                argument="column", value=column, limit=("boolean", "ordinal", "nominal"),
            )  # fmt: skip
        frame = self._frame(data)
        result = self.columns[j].probabilities(*self.units.cells(j, *self._moments(frame)))
        known = ~np.isnan(frame.values[:, j])
        result[known] = np.eye(result.shape[1])[frame.values[known, j].astype(int)]
        return result

    def intervals(self, coverage: float = 0.9, data: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Intervals for the missing cells, from errors on held-out ones (split conformal prediction).

        A cell lies within ``mean +- q s``, s its standard deviation given the rest of its row; q is a quantile, for each column,
        of errors on held-out cells in units of theirs. If cells are missing at random, a share `coverage` of them lies within,
        whatever the distribution; a little more, as fits to what is left know less than the one to all cells.

        Parameters
        ----------
        coverage : float, 0 < coverage < 1
        data : array or data frame, shape (n, d), optional
            As for `filled`.

        Returns
        -------
        low, high : arrays, shape (n, d)
            Known cells are their own interval. NaN in nominal columns; ordinal and boolean ones count their levels from 0.

        References
        ----------
        .. [1] Lei et al., JASA 2018 (split conformal prediction with local widths).
        """
        if not 0 < check_option("coverage", coverage) < 1:
            raise ArgumentError(
                f"coverage={coverage!r}, but it lies between 0 and 1.",
                argument="coverage",
                value=coverage,
                limit=(0, 1),
            )
        frame = self._frame(data)
        means, variances = self._moments(frame)
        low, high = np.array(frame.values), np.array(frame.values)
        quantiles, errors = self._quantiles(coverage)
        holes = np.isnan(frame.values)
        for j, column in enumerate(self.columns):
            if column.kind == "nominal":
                low[:, j] = high[:, j] = np.nan
                continue
            k = int(np.flatnonzero(self.units.groups == j)[0])
            half = quantiles[k] * np.sqrt(variances[:, k] + (_LEAST_SPREAD * errors[k]) ** 2)
            for ends, sign in ((low, -1), (high, 1)):
                value = np.clip(means[:, k] + sign * half, *self.units.bounds[:, k])
                ends[holes[:, j], j] = (value * self.units.scale[k] + self.units.center[k])[holes[:, j]]
        return low, high

    def column_errors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Errors on the held-out cells of each column.

        Returns
        -------
        errors : array, shape (d,)
            Root-mean-square errors in units of the columns: of levels, counted from 0, for boolean and ordinal ones, of
            indicators of levels for nominal ones. NaN where nothing was held out.
        relative : array, shape (d,)
            The same in standard deviations of the columns; the mean would have 1.
        counts : int array, shape (d,)
            Number of errors.
        """
        held = self.held_out
        group, off = self.units.groups[held.columns], held.truth - held.predictions
        counts = np.bincount(group, minlength=len(self.columns))
        with np.errstate(invalid="ignore"):
            errors, relative = (
                np.sqrt(np.bincount(group, size**2, len(counts)) / counts)
                for size in (off * self.units.scale[held.columns], off)
            )
        return errors, relative, counts

    def _quantiles(self, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Of each model column: quantile of the held-out errors in units of their spread, and root-mean-square error."""
        held, d = self.held_out, len(self.units.groups)
        off = held.truth - held.predictions
        overall = math.sqrt(np.mean(off**2)) if off.size else 0.0
        errors = np.full(d, overall)
        for k in range(d):
            own = held.columns == k
            if own.sum() >= _FEWEST:
                errors[k] = np.sqrt(np.mean(off[own] ** 2))
        scores = np.abs(off) / np.maximum(
            np.sqrt(held.variances + (_LEAST_SPREAD * errors[held.columns]) ** 2), np.finfo(float).tiny
        )
        result = np.full(d, _conformal(scores, coverage))
        for k in range(d):
            own = held.columns == k
            if own.sum() >= max(_FEWEST, 1 / (1 - coverage)):
                result[k] = _conformal(scores[own], coverage)
        return result, errors

    def sample(self, n: int, seed: int = 0) -> list[Any]:
        """Completed tables for multiple imputation: each hole filled by a draw, whose spread is what is not known.

        For each table the rows are drawn anew with replacement, one candidate is drawn by its weight and fitted to them, and
        the holes are drawn from its conditional distribution.

        Parameters
        ----------
        n : int, >= 1
            Number of tables.
        seed : int

        Returns
        -------
        list of arrays or data frames

        Notes
        -----
        Analyse each table, then combine by Rubin's rules: the mean of the n estimates; variance: the mean of their variances
        plus (1 + 1/n) times the variance of the estimates.

        References
        ----------
        .. [1] Rubin, Multiple Imputation for Nonresponse in Surveys, 1987.
        .. [2] Honaker, King, Blackwell, Journal of Statistical Software 2011 (bootstrap and EM).

        Examples
        --------
        The mean of a column, which is 0, and its standard error where mostly large values are missing:

        >>> import numpy as np
        >>> import dmf
        >>> rng = np.random.default_rng(0)
        >>> x = rng.standard_normal(100)
        >>> y = 2 * x + rng.standard_normal(100)
        >>> gone = rng.random(100) < 1 / (1 + np.exp(-3 * x))
        >>> table = np.column_stack([x, np.where(gone, np.nan, y)])
        >>> estimates, variances = [], []
        >>> for completed in dmf.complete_table(table).sample(10):
        ...     estimates.append(completed[:, 1].mean())
        ...     variances.append(completed[:, 1].var(ddof=1) / 100)
        >>> error = np.sqrt(np.mean(variances) + (1 + 1 / 10) * np.var(estimates, ddof=1))
        >>> bool(abs(np.mean(estimates)) < 2 * error < abs(np.nanmean(table[:, 1])))
        True
        """
        count = int(check_option("n", n, least=1, whole=True))
        generator = random_generator(seed)
        frame = self._frame(None)
        table = self.units.encoded(self.columns, frame.values)
        chances = np.ones(len(table)) if self.row_weights is None else self.row_weights
        chances = chances / chances.sum()
        size = int(np.count_nonzero(chances))
        results = []
        for _ in range(count):
            member = self.members[generator.choice(len(self.members), p=[m.weight for m in self.members])]
            times = generator.multinomial(size, chances).astype(float)
            refitted = self._refitted(member.candidate, table, times)
            means = refitted.draw(table, generator)
            cells = [self._drawn(j, means, generator) for j in range(len(self.columns))]
            results.append(frame.restored(np.column_stack(cells)))
        return results

    def _refitted(self, candidate: Candidate, table: np.ndarray, times: np.ndarray) -> Member:
        lost = np.isnan(table[times > 0]).all(axis=0) & ~np.isnan(table).all(axis=0)
        if lost.any():  # a column that is seen only in rows that were not drawn
            times = np.maximum(times, np.where(~np.isnan(table[:, lost]).all(axis=1), 1.0, 0.0))
        return fit_members([(candidate, 1.0)], table, times, self.units.bounds, self.seed)[0]

    def _drawn(self, j: int, means: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """Numbers or codes of one column, from drawn columns for models."""
        column = self.columns[j]
        values, variances = self.units.cells(j, means, np.zeros_like(means))
        if not column.levels or np.isnan(values).any():
            return column.decoded(values, variances)
        steps = np.cumsum(column.probabilities(values, variances), axis=1)
        return np.minimum(np.sum(generator.random((len(steps), 1)) > steps, axis=1), len(column.levels) - 1).astype(
            float
        )

    def save(self, path: str | os.PathLike) -> None:
        """Write the model to a file; `dmf.tables.load` reads it. The table itself is not part of it.

        Parameters
        ----------
        path : path

        Raises
        ------
        FileError
            If it cannot be written.
        """
        from dmf.tables.files import write_recovery

        write_recovery(path, self)

    def summary(self) -> str:
        """What was found, in a few lines."""
        kinds = [column.kind for column in self.columns]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        lines = [f"{len(kinds)} columns ({counts})"]
        if self.frame is not None:
            lines[0] = f"{len(self.frame.values):,} rows, {lines[0]}, {np.isnan(self.frame.values).mean():.1%} missing"
        off = self.held_out.truth - self.held_out.predictions
        if off.size:
            lines.append(
                f"held-out error {np.sqrt(np.mean(off**2)):.3g} standard deviations of a column, on {off.size:,} cells"
            )
        members = sorted(self.members, key=lambda m: -m.weight)
        return "\n".join([*lines, *(f"weight {m.weight:.2f}: {m.candidate}" for m in members)])

    def _frame(self, data: Any) -> Frame:
        if data is not None:
            return read_frame(data, columns=self.columns)
        if self.frame is None:
            raise ArgumentError(
                "the table that was completed is not part of a file. Pass the rows to fill.",
                argument="data", value=None, limit="table",
            )  # fmt: skip
        return self.frame

    def _moments(self, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
        return combined(self.members, self.units.encoded(self.columns, frame.values))

    def _position(self, name: Any) -> int:
        names = [column.name for column in self.columns]
        if name not in names:
            raise ArgumentError(
                f"column {name!r} is not among {', '.join(map(str, names))}.",
                argument="column", value=name, limit=tuple(names),
            )  # fmt: skip
        return names.index(name)

    def standardized(self) -> np.ndarray:
        """The filled table as models see it, shape (n, D): standardised columns, one for each level of a nominal one."""
        return self._moments(self._frame(None))[0]


def _conformal(scores: np.ndarray, coverage: float) -> float:
    """The order statistic below which a further score lies with this probability; the largest if there are too few."""
    if scores.size == 0:
        return 0.0
    return float(np.sort(scores)[min(math.ceil((scores.size + 1) * coverage), scores.size) - 1])
