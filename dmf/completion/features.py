"""Features of rows and columns: matched to the matrix by id or by position, and made columns of a design."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from dmf.arrays.backend import from_host, host_dtype, to_host
from dmf.arrays.checks import check_kind
from dmf.errors import ArgumentError, ShapeError
from dmf.io.features import Feature, FeatureTable, read_features
from dmf.observations import SampledEntries
from dmf.observations.design import Design
from dmf.recovery.names import positions_of
from dmf.recovery.priors import FEATURES, Prior, encoded, prior_of
from dmf.recovery.results import Recovery


def with_features(
    observations: Any, given: tuple[Any, Any], offsets: bool | str
) -> tuple[Any, tuple[tuple[Feature, ...], ...]]:
    """The entries with what is known of their rows and columns, and how it became columns of numbers.

    Parameters
    ----------
    observations : Entries
    given : (row features, column features)
        See `dmf.complete`; None where there are none.
    offsets : bool or "auto"

    Raises
    ------
    ArgumentError, ShapeError, DTypeError
        If features do not fit the matrix, tell nothing, or come without offsets or with entries on a cluster.
    """
    if all(data is None for data in given):
        told = observations.known != (None, None)  # by an earlier call, of which these are the observations
        return observations.knowing(None, None) if told else observations, ((), ())
    if offsets is False:
        raise ArgumentError(
            "offsets=False with features, which belong to the model with offsets. Leave one of them out.",
            argument="offsets",
            value=False,
            limit=(True, "auto"),
        )
    check_kind("data", observations, SampledEntries, "Pass entries in memory with features.")
    form, like = observations.form, observations.like
    names = (None, None) if form is None else (form.row_ids, form.col_ids)
    designs: list[Design | None] = [None, None]
    learned: list[tuple[Feature, ...]] = [(), ()]
    for side, data in enumerate(given):
        if data is None:
            continue
        argument, size = FEATURES[side], observations.shape[side]
        table = read_features(data, argument)
        places = _places(table, names[side], size, argument)
        features = tuple(f for name, cells in table.columns.items() if (f := Feature.of(name, cells)) is not None)
        if not features:
            raise ArgumentError(
                f"{argument} tell nothing: of {', '.join(list(table.columns)[:5])} all values are the same, or no two of them. "
                "Leave them out.",
                argument=argument,
                value=tuple(table.columns),
            )
        kept = places >= 0
        columns = np.zeros((size, sum(len(f.centre) for f in features)), host_dtype(like))
        columns[places[kept]] = encoded(features, table)[kept]
        designs[side] = Design(from_host(columns, like), tuple(len(f.centre) for f in features))
        learned[side] = features
    return observations.knowing(designs[0], designs[1]), tuple(learned)


def with_priors(recovery: Recovery, observations: Any, learned: tuple[tuple[Feature, ...], ...]) -> Recovery:
    """The recovery with what features say of rows and columns to come; without, where they have no part in the model."""
    known: list[Design | None] = [design if recovery.found.noise > 0 else None for design in observations.known]
    priors: list[Prior | None] = []
    for side, design in enumerate(known):
        if design is None:
            priors.append(None)
            continue
        design = design.moved(lambda array: from_host(to_host(array), recovery.model.s))
        seen = np.flatnonzero(to_host(observations.counts(side)))
        priors.append(prior_of(recovery.model, side, design, seen, learned[side]))
    return replace(recovery, priors=(priors[0], priors[1]))


def _places(table: FeatureTable, names: tuple[str, ...] | None, size: int, argument: str) -> np.ndarray:
    """Position in the matrix of each row of a table of features, -1 for what the matrix does not have."""
    if table.ids is not None:
        places = positions_of(table.ids, names, size)
        if (places < 0).all():
            there = f"0 to {size - 1}" if names is None else f"such as {names[0]!r}"
            raise ArgumentError(
                f"none of the {len(places)} ids of {argument} (the first: {table.ids[0]!r}) is in the data, whose names are "
                f"{there}. Pass the ids as the index of the frame (its first column, for libraries without one), or as keys.",
                argument=argument,
                value=table.ids[0],
                limit=there,
            )
        return places
    if table.size != size:
        raise ShapeError(
            f"{argument} has {table.size} rows, but the matrix {size} {argument.split('_')[0]}s. Pass one for each, or a frame "
            "or dict by id.",
            argument=argument,
            value=table.size,
            limit=size,
        )
    return np.arange(size)
