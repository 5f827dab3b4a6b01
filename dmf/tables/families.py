"""The models that a table is tried on, behind one contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dmf.completion import complete
from dmf.solvers.outcomes import uninterrupted
from dmf.tables.gaussian import PENALTIES, Gaussians, gaussian_path
from dmf.tables.low_rank import RANKS, Factors, low_rank_path
from dmf.tables.mixtures import component_counts, fit_mixture

_MOST_COLUMNS = 200  # of a table to which a full covariance is fitted
_MOST_ROWS = 10  # times the columns: with more of them a full covariance is no worse than one of low rank
_WORTH_COMPLETING = 20_000  # cells of a table; on smaller ones `complete` takes longer than all the rest
_LEAST_NOISE = 1e-8  # variance, of columns of variance 1


class Model(Protocol):
    """A distribution of the rows of a table."""

    def moments(self, table: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Mean and variance of each cell given the observed ones of its row."""

    def draw(self, table: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The table with its holes filled by a draw."""

    def arrays(self) -> dict[str, np.ndarray]:
        """What a file holds of it."""

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Model:
        """The model that `arrays` came from."""


@dataclass(frozen=True)
class Family:
    """Models that differ by one number, the setting.

    Attributes
    ----------
    name : str
    setting : str
        What the number is.
    kind : type
        Of its models.
    settings : callable
        ``settings(rows, columns)`` are the ones worth trying, in the order of `path`.
    path : callable
        ``path(table, weights, start, seed, settings)`` yields (setting, model) for each of them; `start` is a Gaussian fitted to
        the table, if `separate`.
    separate : bool
        Whether each setting is a candidate of its own; else the best one of the path is.
    """

    name: str
    setting: str
    kind: type
    settings: Callable[[int, int], Sequence[float]]
    path: Callable[..., Iterator[tuple[float, Model]]]
    separate: bool = False

    def fit(self, table: np.ndarray, weights: np.ndarray, start: Model | None, seed: int, setting: float) -> Model:
        """The model of one setting."""
        tried = list(self.settings(len(table), table.shape[1]))
        tried = [setting] if self.separate else tried[: tried.index(setting) + 1]
        *_, (_, model) = self.path(table, weights, start, seed, tried)
        return model


def _gaussians(table, weights, start, seed, settings):
    return gaussian_path(table, weights, settings)


def _mixtures(table, weights, start, seed, settings):
    for setting in settings:
        yield setting, fit_mixture(table, weights, start, int(setting))


def _low_rank(table, weights, start, seed, settings):
    return low_rank_path(table, weights, settings)


def _completed(table, weights, start, seed, settings):
    """The matrix that `dmf.complete` finds, as a distribution of rows: its noise is the same in all columns."""
    counted = weights > 0
    table, share = table[counted], weights[counted] / weights[counted].sum()
    counts = None if np.all(weights == 1) else np.broadcast_to(share[:, None] * len(share), table.shape)
    recovery = uninterrupted(complete(table, weights=counts, offsets=False, seed=seed))
    left, right = recovery.factors()
    noise = recovery.found.noise**2
    mean = share @ left
    values, vectors = np.linalg.eigh((left - mean).T @ ((left - mean) * share[:, None]))
    loadings = np.column_stack([mean @ right, right.T @ (vectors * np.sqrt(np.maximum(values, 0)))])
    d, width = loadings.shape
    yield settings[0], Factors(loadings, np.zeros((d, width, width)), np.full(d, max(noise, _LEAST_NOISE)))


def _penalties(rows: int, columns: int) -> Sequence[float]:
    return PENALTIES if columns <= _MOST_COLUMNS else ()


def _components(rows: int, columns: int) -> Sequence[float]:
    return component_counts(rows) if columns <= _MOST_COLUMNS else ()


def _ranks(rows: int, columns: int) -> Sequence[float]:
    return tuple(rank for rank in RANKS if rank < min(rows, columns)) if _is_wide(rows, columns) else ()


def _rank_bounds(rows: int, columns: int) -> Sequence[float]:
    worth = _is_wide(rows, columns) and rows * columns >= _WORTH_COMPLETING
    return (float(min(rows, columns)),) if worth else ()


def _is_wide(rows: int, columns: int) -> bool:
    """Whether a low rank may say more than a full covariance."""
    return columns > _MOST_COLUMNS or rows <= _MOST_ROWS * columns


GAUSSIAN = Family("Gaussian", "rows of the prior", Gaussians, _penalties, _gaussians)
FAMILIES = (
    GAUSSIAN,
    Family("mixture of Gaussians", "components", Gaussians, _components, _mixtures, separate=True),
    Family("low rank", "rank", Factors, _ranks, _low_rank),
    Family("dmf.complete", "bound on the rank", Factors, _rank_bounds, _completed),
)
BY_NAME = {family.name: family for family in FAMILIES}
