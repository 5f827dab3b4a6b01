"""What is expected of a row, or column, before any of its entries is seen: the mean of the fitted ones, or what features say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, from_host, host_dtype, namespace, to_host
from dmf.errors import ArgumentError, ShapeError
from dmf.io.features import Feature, FeatureTable, read_features
from dmf.models import LowRank
from dmf.observations.design import Design
from dmf.solvers.features import regression

FEATURES = ("row_features", "column_features")
_ROUNDS = 30  # of estimating how much each feature matters


@dataclass(frozen=True, eq=False)
class Prior:
    """Mean and spread of the balanced factors, and in a last column of the offsets, of rows or of columns.

    Attributes
    ----------
    coefficients : array, shape (1 + p, w) or, with offsets, (1 + p, w + 1)
        What rows are without features, and the change by each column of the design.
    spread : array, shape (w,) or (w + 1,)
        Standard deviation of the fitted ones around their means.
    features : tuple of Feature
        How features become the p columns of a design.
    """

    coefficients: Array
    spread: Array
    features: tuple[Feature, ...] = ()

    def means(self, columns: Array | None, count: int) -> Array:
        """Means (count, w or w + 1) for columns (count, p) of a design; None: there are no features."""
        xp = namespace(self.coefficients)
        base = xp.broadcast_to(self.coefficients[:1, :], (count, self.coefficients.shape[1]))
        return base if columns is None else base + columns @ self.coefficients[1:, :]

    def array(self) -> np.ndarray:
        """Coefficients, and below them the spread, on the host."""
        return np.concatenate([to_host(self.coefficients), to_host(self.spread)[None, :]])

    def moved(self, to: Callable[[Array], Array]) -> Prior:
        """The same with each array ``to(array)`` in its place."""
        return Prior(to(self.coefficients), to(self.spread), self.features)


def fitted(model: LowRank, side: int) -> Array:
    """The balanced factors of rows (side 0) or columns and, in a last column, their offsets where the model has some."""
    left, right = model.halves()
    xp = namespace(left)
    rows = left if side == 0 else xp.matrix_transpose(right)
    if model.offsets is None:
        return rows
    own = model.offsets.row if side == 0 else model.offsets.col
    return xp.concat([rows, own[:, None]], axis=1)


def prior_of(
    model: LowRank, side: int, design: Design | None = None, seen: np.ndarray | None = None, features: tuple = ()
) -> Prior:
    """Prior that the fitted rows or columns show, by regression on their design.

    Parameters
    ----------
    model : LowRank
    side : {0, 1}
        Rows or columns.
    design : Design, optional
        Of all of them.
    seen : int array, optional
        Those that entries were seen of; all unless given.
    features : tuple of Feature
        From which the design was made.
    """
    rows = fitted(model, side)
    xp = namespace(rows)
    if seen is not None:
        places = from_host(seen, rows)
        rows = xp.take(rows, places, axis=0)
        design = None if design is None else design.restricted(seen)
    mean = xp.mean(rows, axis=0)
    if design is None:
        return Prior(mean[None, :], xp.sqrt(xp.mean((rows - mean) ** 2, axis=0)))
    numbers, columns = (to_host(array).astype(np.float64) for array in (rows, design.columns))
    middle, centre = np.mean(numbers, axis=0), np.mean(columns, axis=0)
    numbers, columns = numbers - middle, columns - centre
    gram, moments = columns.T @ columns, columns.T @ numbers
    least = 1e-12 * np.max(np.mean(numbers**2, axis=0), initial=1e-300)
    spread = np.maximum(np.mean(numbers**2, axis=0), least)
    relevance = np.ones(len(design.groups))
    for _ in range(_ROUNDS):
        coefficients, relevance = regression(moments, gram, design.groups, relevance, spread, spread)
        spread = np.maximum(np.mean((numbers - columns @ coefficients) ** 2, axis=0), least)
    found = np.concatenate([(middle - centre @ coefficients)[None, :], coefficients])
    dtype = host_dtype(rows)
    return Prior(from_host(found.astype(dtype), rows), from_host(np.sqrt(spread).astype(dtype), rows), features)


def expected_outside(model: LowRank, known: Sequence[Design | None], outside: Sequence[np.ndarray]) -> LowRank:
    """The model whose rows and columns `outside`, of which no entry was seen, are what is expected of them."""
    halves, offsets = [], []
    for side in (0, 1):
        rows, places = fitted(model, side), outside[side]
        xp = namespace(rows)
        if places.size:
            seen = np.delete(np.arange(model.shape[side]), places)
            design = known[side]
            prior = prior_of(model, side, design, seen)
            columns = None if design is None else design.restricted(places).columns
            numbers = to_host(rows).copy()
            numbers[places] = to_host(prior.means(columns, places.size))
            rows = from_host(numbers, rows)
        halves.append(rows if model.offsets is None else rows[:, :-1])
        offsets.append(rows[:, -1])
    xp = namespace(halves[0])
    own = None if model.offsets is None else type(model.offsets)(model.offsets.mean, *offsets)
    return LowRank.of_factors(halves[0], xp.matrix_transpose(halves[1]), own)


def columns_of(prior: Prior | None, data: Any, side: int, count: int | None, like: Array) -> Array:
    """Columns of the design for features of new rows, or columns, in their order.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If the recovery was fitted without such features, one of them is not there, or they are not for `count` rows.
    """
    name = FEATURES[side]
    if prior is None:
        raise ArgumentError(
            f"features are given, but the recovery was fitted without {name}. Complete with {name}, or leave features out.",
            argument="features",
            value=type(data).__name__,
            limit=None,
        )
    table = read_features(data, "features")
    missing = [feature.name for feature in prior.features if feature.name not in table.columns]
    if missing:
        raise ArgumentError(
            f"features lack {missing[0]!r}, but the recovery was fitted with {name} of that name; given are "
            f"{', '.join(list(table.columns)[:5])}. Pass all of them; what is not known may be NaN or None.",
            argument="features",
            value=tuple(table.columns),
            limit=tuple(feature.name for feature in prior.features),
        )
    if count is not None and table.size != count:
        raise ShapeError(
            f"features are those of {table.size}, but observations have {count} new ones. Pass a row of them for each.",
            argument="features",
            value=table.size,
            limit=count,
        )
    return from_host(encoded(prior.features, table).astype(host_dtype(like)), like)


def read_feature_records(records: Any) -> tuple[Feature, ...]:
    """Features from what a model file holds of them; ValueError, TypeError or KeyError if that is none."""
    features = []
    for record in records:
        centre, scale = tuple(map(float, record["centre"])), float(record["scale"])
        feature = Feature(record["name"], tuple(record["levels"]), centre, scale)
        if not all(isinstance(text, str) for text in (feature.name, *feature.levels)):
            raise ValueError("names are texts")
        if len(centre) != max(len(feature.levels), 1) or not np.isfinite(centre).all() or not 0 < scale < np.inf:
            raise ValueError("numbers do not fit")
        features.append(feature)
    if not features or len({feature.name for feature in features}) < len(features):
        raise ValueError("they are none, or of one name")
    return tuple(features)


def encoded(features: Sequence[Feature], table: FeatureTable) -> np.ndarray:
    """Columns of a design, shape (n, p), float64.

    Raises
    ------
    ArgumentError
        If a feature holds texts that held numbers, or the other way round.
    """
    parts = []
    for feature in features:
        cells = table.columns[feature.name]
        if bool(feature.levels) != (cells.dtype == object):
            if not feature.levels or not np.isnan(cells).all():
                raise ArgumentError(
                    f"the feature {feature.name!r} holds {'texts' if cells.dtype == object else 'numbers'}, but "
                    f"{'a category' if feature.levels else 'numbers'} when the recovery was fitted. Pass the same kind.",
                    argument="features",
                    value=feature.name,
                )
            cells = np.full(len(cells), None, object)
        parts.append(feature.encoded(cells))
    return np.concatenate(parts, axis=1)
