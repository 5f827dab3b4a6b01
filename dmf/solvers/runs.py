"""What a solver returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dmf.models import LowRank
from dmf.solvers.outcomes import Outcome


class History(Mapping):
    """Numbers recorded along a run, one row for each recorded iteration; a mapping of column names to arrays.

    Parameters
    ----------
    columns : mapping of str to arrays, each with first dimension n
        At least those below; callbacks add more.

    Attributes
    ----------
    iteration : int array, shape (n,)
    loss : float64 array, shape (n,)
        Training loss, without weight decay.
    seconds : float64 array, shape (n,)
        Time spent in the solver so far; callbacks not counted.
    """

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self._columns = {name: np.asarray(column) for name, column in columns.items()}

    iteration = property(lambda self: self["iteration"])
    loss = property(lambda self: self["loss"])
    seconds = property(lambda self: self["seconds"])

    def __getitem__(self, name: str) -> np.ndarray:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)

    def __repr__(self) -> str:
        return f"History({len(self.iteration)} records of {', '.join(self)})"


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one solver.

    Attributes
    ----------
    solver : Any
        The solver with its options, a frozen dataclass.
    model : LowRank or DeepLinearNetwork
        What was fitted: ``product()`` gives the matrix, ``entries(rows, cols)`` some of it.
    outcome : Outcome
        Why the run ended.
    message : str
        The same in a sentence, with numbers and advice.
    findings : dict of str to float
        What the solver found besides: of low-rank solvers "rank" and "noise" (standard deviation).
    history : History
    state : Any
        The solver's last state, a dataclass or tuple of arrays and numbers without the data: enough to go on.
    """

    solver: Any
    model: Any
    outcome: Outcome
    message: str
    history: History
    findings: dict[str, float] = field(default_factory=dict)
    state: Any = field(default=None, repr=False)

    @property
    def success(self) -> bool:
        """Whether the solver did what it is there for."""
        return self.outcome.success

    @property
    def nit(self) -> int:
        """Number of iterations."""
        return int(self.history.iteration[-1])

    @property
    def network(self) -> Any:
        """The network that was trained; of a low-rank model, a balanced one of three layers without its offsets."""
        return self.model.network() if isinstance(self.model, LowRank) else self.model
