"""Kinds of columns: what a table holds, as numbers that models take, and the way back to the same dtypes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.errors import ArgumentError, DTypeError
from dmf.io.words import MOST_LEVELS

KINDS = ("real", "count", "boolean", "ordinal", "nominal")
_LEAST_PROBABILITY = 1e-6


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name : str or int
    kind : str
        "real"; "count": whole numbers; "boolean", "ordinal", "nominal": one of `levels`.
    levels : tuple
        In order, if the kind has one; empty for real and count.
    """

    name: Any
    kind: str
    levels: tuple[Any, ...] = ()

    @property
    def width(self) -> int:
        """Number of columns that stand for it in models: one for each level of a nominal column of more than two, else one."""
        return min(len(self.levels), MOST_LEVELS) if self.one_hot else 1

    @property
    def one_hot(self) -> bool:
        """Whether each level has a column of its own in models."""
        return self.kind == "nominal" and len(self.levels) > 2

    def encoded(self, values: np.ndarray) -> np.ndarray:
        """Columns for models, shape (n, width), of numbers or of codes of levels; NaN where nothing is known."""
        if not self.one_hot:
            return values[:, None]
        hot = (values[:, None] == np.arange(self.width)).astype(float)
        hot[np.isnan(values)] = np.nan
        return hot

    def probabilities(self, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Of each level, shape (n, number of levels), from moments of the columns for models, shape (n, width).

        NaN of a column of which nothing is known.
        """
        count = len(self.levels)
        if np.isnan(means).any():
            return np.full((len(means), count), np.nan)
        result = np.zeros((len(means), count))
        if self.one_hot:
            result[:, : self.width] = np.clip(means, _LEAST_PROBABILITY, 1)
        elif count == 2 or np.all(variances == 0):
            codes = np.clip(means[:, 0], 0, max(count - 1, 0))
            below = np.minimum(codes.astype(int), max(count - 2, 0))
            rows = np.arange(len(means))
            result[rows, below] = 1 - (codes - below)
            result[rows, np.minimum(below + 1, count - 1)] += codes - below
        else:
            from scipy.special import ndtr  # here: the import takes a tenth of a second

            spread = np.sqrt(np.maximum(variances, 1e-12))
            steps = ndtr((np.arange(count - 1) + 0.5 - means) / spread)
            result = np.diff(steps, prepend=0, append=1, axis=1)
        return result / result.sum(axis=1, keepdims=True)

    def decoded(self, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
        """Numbers, or codes of the most probable levels, shape (n,); NaN of a column of which nothing is known."""
        if np.isnan(means).any():
            return np.full(len(means), np.nan)
        if self.levels:
            return np.argmax(self.probabilities(means, variances), axis=1).astype(float)
        return np.rint(means[:, 0]) if self.kind == "count" else means[:, 0]


def read_columns(
    names: Sequence[Any],
    series: Sequence[Any],
    found: Sequence[tuple[str, Sequence[Any] | None]],
    kinds: Mapping[Any, str],
) -> tuple[tuple[Column, ...], np.ndarray]:
    """Columns of a table, and its values as numbers or codes.

    Parameters
    ----------
    names : sequence
    series : sequence of arrays, shape (n,)
        Of numbers (NaN where missing), or of objects (None or NaN where missing).
    found : sequence of (kind, levels or None)
        What the dtypes say.
    kinds : mapping of names to kinds
        What the user says.

    Returns
    -------
    columns : tuple of Column
    values : array, shape (n, d), float64

    Raises
    ------
    ArgumentError
        If `kinds` names a column that is not there, or a kind that is none or does not fit.
    """
    unknown = [name for name in kinds if name not in names]
    if unknown:
        raise ArgumentError(
            f"kinds names {unknown[0]!r}, but the columns are {', '.join(map(str, names))}.",
            argument="kinds", value=unknown[0], limit=tuple(names),
        )  # fmt: skip
    columns, values = [], []
    for name, values_here, (kind, levels) in zip(names, series, found, strict=True):
        chosen = kinds.get(name, kind)
        if chosen not in KINDS:
            raise ArgumentError(
                f"kinds[{name!r}]={chosen!r}, but a kind is one of {', '.join(KINDS)}.",
                argument="kinds", value=chosen, limit=KINDS,
            )  # fmt: skip
        if chosen in ("real", "count"):
            columns.append(Column(name, chosen))
            values.append(_numbers(name, values_here, chosen))
        else:
            column = Column(name, chosen, tuple(levels) if levels is not None else _levels(name, values_here, chosen))
            columns.append(column)
            values.append(codes_of(column, values_here))
    return tuple(columns), np.column_stack(values) if values else np.empty((0, 0))


def _numbers(name: Any, values: np.ndarray, kind: str) -> np.ndarray:
    try:
        numbers = (
            np.array([math.nan if is_missing(v) else v for v in values], float) if values.dtype == object else values
        )
        numbers = np.asarray(numbers, float)
    except (TypeError, ValueError) as error:
        raise DTypeError(
            f"column {name!r} is to be {kind}, but holds something else ({error}). Leave it out of `kinds`, or call it nominal.",
            argument="kinds",
            value=name,
            limit=kind,
        ) from error
    if np.isinf(numbers).any():
        raise ArgumentError(
            f"column {name!r} holds an infinite value, but models take finite numbers. Replace it by NaN if it is missing.",
            argument="data",
            value=name,
            limit="finite",
        )
    return numbers


def is_missing(value: Any) -> bool:
    """Whether a cell of objects holds nothing: None, NaN or another missing marker, none of which equals itself."""
    if value is None:
        return True
    try:
        return not bool(value == value)
    except TypeError:  # pandas.NA
        return True


def _levels(name: Any, values: np.ndarray, kind: str) -> tuple[Any, ...]:
    """Distinct values: in order for ordinal and boolean columns, the most frequent first for nominal ones."""
    counts: dict[Any, int] = {}
    for value in values.tolist():
        if not is_missing(value):
            try:
                counts[value] = counts.get(value, 0) + 1
            except TypeError as error:
                raise DTypeError(
                    f"column {name!r} holds a {type(value).__name__}, but cells are numbers, text or truth values.",
                    argument="data", value=type(value).__name__, limit="numbers, text, truth values",
                ) from error  # fmt: skip
    try:
        levels = sorted(counts)
    except TypeError:
        levels = sorted(counts, key=lambda level: (type(level).__name__, str(level)))
    if kind == "boolean" and len(levels) > 2:
        raise ArgumentError(
            f"column {name!r} has {len(levels)} distinct values, but a boolean column has two. Call it ordinal or nominal.",
            argument="kinds", value=len(levels), limit=2,
        )  # fmt: skip
    return tuple(sorted(levels, key=lambda level: -counts[level]) if kind == "nominal" else levels)


def codes_of(column: Column, values: np.ndarray) -> np.ndarray:
    """Positions of values among the levels of a column, NaN where missing; a level not known counts as missing."""
    position = {level: k for k, level in enumerate(column.levels)}
    return np.array([math.nan if is_missing(v) else position.get(v, math.nan) for v in values.tolist()], float)
