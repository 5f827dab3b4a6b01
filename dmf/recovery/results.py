"""A recovered matrix: how it is read and filled in; saving and loading it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from dmf.arrays.backend import (
    Array,
    as_array,
    check_device,
    free_memory,
    from_host,
    host_dtype,
    library,
    move,
    namespace,
    to_host,
)
from dmf.arrays.checks import check_choice, check_kind
from dmf.errors import ArgumentError, ObservationError, ShapeError
from dmf.models import DeepLinearNetwork, LowRank
from dmf.models.drift import Drift
from dmf.models.offsets import Offsets
from dmf.observations import Observations, SampledEntries
from dmf.observations.checks import check_times
from dmf.recovery.messages import describe
from dmf.recovery.model_files import are_names, read_model, write_model
from dmf.recovery.names import as_name, check_order, positions_of
from dmf.recovery.priors import Prior
from dmf.recovery.values import Found, HeldOut, Outliers, Plan, RankingMeasures, StageRun, Weighting
from dmf.solvers.clipping import as_recorded
from dmf.solvers.outcomes import Outcome
from dmf.solvers.runs import History


@dataclass(frozen=True, eq=False)
class Recovery:
    """A recovered matrix, and what is known of how it was recovered.

    Attributes
    ----------
    model : LowRank
        Its singular value decomposition, and global mean, row and column offsets where the model has them.
    found : Found
        Rank, noise level, and whether the recovery is exact.
    outcome : Outcome
        Why the work ended.
    history : History
        Of all runs, one after the other; the column "run" counts them.
    settings : Plan
        What was asked for.
    heldout : HeldOut or None
        Errors on entries that a first fit did not see.
    runs : tuple of StageRun
        Every run of a solver that was made.
    observations : Observations or None
        What it was fitted to; not saved in model files.
    row_ids, col_ids : tuple of str, or None
        Names of rows and columns, if the data had any.
    weighting : Weighting or None
        How counts were weighed; None unless the model is one of implicit feedback.
    ranking : RankingMeasures or None
        Of implicit feedback: how well a first fit ranks counts that it did not see.
    outliers : Outliers or None
        Entries that were taken for corrupted and left out; None where none were looked for.
    priors : (Prior or None, Prior or None)
        What features say of new rows, and of new columns; None where there are none, or they have no part in the model.
    drift : Drift or None
        How rows and columns rise and fall with time; None where entries had no times, or these tell nothing.
    """

    model: LowRank
    found: Found
    outcome: Outcome
    history: History
    settings: Plan = field(default_factory=Plan)
    heldout: HeldOut | None = None
    runs: tuple[StageRun, ...] = ()
    observations: Observations | None = None
    row_ids: tuple[str, ...] | None = None
    col_ids: tuple[str, ...] | None = None
    weighting: Weighting | None = None
    ranking: RankingMeasures | None = None
    outliers: Outliers | None = None
    priors: tuple[Prior | None, Prior | None] = (None, None)
    drift: Drift | None = None

    @property
    def success(self) -> bool:
        """Whether the work came to its end."""
        return self.outcome.success

    @property
    def message(self) -> str:
        """What was found, or why the work ended before, in a sentence."""
        return describe(
            self.found, self.outcome, self.runs, (self.row_ids, self.col_ids), self.weighting, self.outliers, self.drift
        )

    @property
    def nit(self) -> int:
        """Iterations of all runs together."""
        return int(self.history.iteration[-1])

    @property
    def offsets(self) -> Offsets | None:
        """Global mean, row and column offsets; None where the model has none."""
        return self.model.offsets

    @property
    def network(self) -> DeepLinearNetwork:
        """The low-rank part as a balanced network of three layers, as in the paper; ``model.network(depth)`` gives others."""
        return self.model.network()

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Least and largest value of a prediction; those beyond are moved there."""
        return self.settings.bounds

    @property
    def shape(self) -> tuple[int, int]:
        """(d1, d2) of the recovered matrix."""
        return self.model.shape

    def factors(self) -> tuple[Array, Array]:
        """The recovered matrix, offsets included and before bounds, as a product of arrays (d1, w) and (w, d2)."""
        return self.model.factors()

    def bounded(self, values: Array) -> Array:
        """`values`, of any shape, moved into the bounds and, where values were clipped, into their range."""
        for bounds in (self.found.clipped, self.bounds):
            values = values if bounds is None else namespace(values).clip(values, *bounds)
        return values

    def predicted(self, values: Array) -> Array:
        """What is predicted of values of the model, of any shape: within the bounds, and expected where values were clipped."""
        clipped = self.found.clipped
        return self.bounded(values if clipped is None else as_recorded(values, clipped, self.found.noise))

    def product(self) -> Array:
        """The recovered matrix, shape (d1, d2), offsets included and within the bounds."""
        self._check_memory()
        return self.predicted(self.model.product())

    def predict(self, rows: Array, cols: Array, times: Any = None) -> Array:
        """Entries of the recovered matrix, offsets included and within the bounds.

        Parameters
        ----------
        rows, cols : integer arrays, shape (m,)
        times : array, shape (m,), optional
            When, in the unit of the data's times; without, effects of time count as 0, their mean.

        Returns
        -------
        array, shape (m,)

        Raises
        ------
        ShapeError, DTypeError, ObservationError
            If positions or times are none, or lie outside the matrix.
        """
        rows, cols = as_array(rows, "rows"), as_array(cols, "cols")
        values = self.model.entries(rows, cols)
        return self.predicted(values if times is None else self.drifted(values, rows, cols, times))

    def drifted(self, values: Array, rows: Array, cols: Array, times: Any) -> Array:
        """Values of the model at positions (m,) with what is added to them at times (m,)."""
        times = check_times(times, values.shape[0])
        if self.drift is None:
            return values
        effects = self.drift.at(to_host(rows), to_host(cols), times)
        return values + from_host(effects.astype(host_dtype(values)), values)

    def predict_named(
        self, row_ids: Sequence[str], col_ids: Sequence[str], times: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Entries for rows and columns given by name (by position counted from 0, where the data had no names).

        A row or column that was not in the data has no factor and no offset: its prediction is the mean plus the offset
        of the other side, and NaN where the model has no offsets.

        Parameters
        ----------
        row_ids, col_ids : sequences of str or numbers, of one length
            100, 100.0 and "100" are one name, "007" is another than "7".
        times : array, shape (m,), optional
            As in `predict`.

        Returns
        -------
        values : NumPy array, shape (m,)
        known : bool array, shape (m,)
            False for pairs with an unknown row or column.

        Raises
        ------
        ShapeError, DTypeError
            If there are not as many row as column names, and as many times.
        ArgumentError
            If one name is given where a sequence is meant.
        ObservationError
            If no row and no column was in the data.
        """
        for argument, names in (("row_ids", row_ids), ("col_ids", col_ids)):
            if isinstance(names, (str, bytes, int, float, np.generic)):
                raise ArgumentError(
                    f"{argument} is {names!r}, but it is a sequence of names. Pass [{names!r}].",
                    argument=argument,
                    value=names,
                )
        if len(row_ids) != len(col_ids):
            raise ShapeError(
                f"there are {len(row_ids)} row_ids and {len(col_ids)} col_ids, but each pair of them names an entry. Pass as "
                "many of one as of the other.",
                argument="row_ids, col_ids",
                value=(len(row_ids), len(col_ids)),
            )
        rows = positions_of(row_ids, self.row_ids, self.shape[0])
        cols = positions_of(col_ids, self.col_ids, self.shape[1])
        values, known = self.predict_at(rows, cols, times)
        if known.size and rows.max() < 0 and cols.max() < 0:
            names = "positions from 0" if self.row_ids is None else f"such as {self.row_ids[0]!r}"
            raise ObservationError(
                f"none of {known.size} pairs has a row or a column that was in the data (the first: {row_ids[0]!r}, "
                f"{col_ids[0]!r}). Rows have names, {names}.",
                argument="row_ids, col_ids",
                value=(row_ids[0], col_ids[0]),
            )
        return values, known

    def predict_at(self, rows: np.ndarray, cols: np.ndarray, times: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """What `predict_named` returns, for positions (m,) on the host; -1: the row or column was not in the data."""
        known = (rows >= 0) & (cols >= 0)
        times = None if times is None else check_times(times, known.size)[known]
        values = np.full(known.size, np.nan, to_host(self.model.s).dtype)
        values[known] = to_host(self.predict(self._index(rows[known]), self._index(cols[known]), times))
        if self.offsets is not None:
            row_offsets = np.append(to_host(self.offsets.row), 0)  # position -1 finds the 0
            col_offsets = np.append(to_host(self.offsets.col), 0)
            expected = self.offsets.mean + row_offsets[rows[~known]] + col_offsets[cols[~known]]
            values[~known] = self.predicted(expected.astype(values.dtype))
        return values, known

    def _index(self, index: np.ndarray) -> Array:
        return from_host(index, self.model.s)

    def filled(self, observations: Observations | None = None) -> Array:
        """The whole matrix: observed entries kept, the others predicted, within the bounds.

        Parameters
        ----------
        observations : Observations, optional
            Needed for a recovery that was loaded from a file, as files do not hold the data.

        Returns
        -------
        array, shape (d1, d2), or what the data were: a data frame or a DataArray
            An entry that was observed several times is the mean of these observations. Data frames keep index, columns and
            dtypes; whole numbers are rounded.
        """
        if self.weighting is not None:
            raise ArgumentError(
                "the recovery is one of implicit feedback, whose scores are no counts to fill in. Use product() or predict(rows, "
                "cols) for scores, and dmf.recovery.ranking for the best columns of rows.",
                argument="recovery",
            )
        if observations is None:
            observations = self.observations
        if observations is None:
            raise ArgumentError(
                "observations are missing: a loaded model holds no data. Pass filled(observations=...), or use product() "
                "for predictions everywhere.",
                argument="observations",
            )
        check_kind(
            "observations", observations, Observations, "Pass for example SampledEntries.from_dense(array with NaN)."
        )
        if observations.shape != self.shape:
            raise ShapeError(
                f"observations are of a {observations.shape} matrix, but the model is of a {self.shape} one.",
                argument="observations",
                value=observations.shape,
                limit=self.shape,
            )
        if observations is not self.observations:
            check_order(observations.form, (self.row_ids, self.col_ids), "observations")
        return observations.restored(self.product())

    def named(self) -> Recovery:
        """The same recovery with the names of rows and columns that its data have."""
        form = None if self.observations is None else self.observations.form
        return self if form is None else replace(self, row_ids=form.row_ids, col_ids=form.col_ids)

    def _check_memory(self) -> None:
        like = self.model.s
        needed = self.shape[0] * self.shape[1] * host_dtype(like).itemsize
        available = free_memory(like)
        if available is not None and needed > available:
            where = "the device" if library(like) == "cupy" else "this machine"
            raise ArgumentError(
                f"the whole {self.shape[0]} x {self.shape[1]} matrix takes {needed / 1e9:.1f} GB, but {where} has "
                f"{available / 1e9:.1f} GB. Use predict(rows, cols) for the entries you need.",
                argument="shape",
                value=needed,
                limit=available,
            )

    def to_device(self, device: str) -> Recovery:
        """The same recovery on another device.

        Parameters
        ----------
        device : str
            "cpu" for NumPy arrays, "cuda" or "cuda:N" for CuPy arrays.

        Returns
        -------
        Recovery
            Its observations are moved, too. Calls that compute on a CUDA device other than the current one belong into
            ``with cupy.cuda.Device(N):``.

        Raises
        ------
        ArgumentError
            If there is no such device.
        MissingPackageError
            If CuPy is needed and not installed, or finds no device.
        BackendError
            If it has observations by an operator that cannot be moved.
        """
        observations = None if self.observations is None else self.observations.to_device(device)
        return self.moved(lambda array: move(array, device), observations)

    def moved(self, to: Callable[[Array], Array], observations: Observations | None) -> Recovery:
        """The same recovery, of these observations, with each array ``to(array)`` in its place."""
        heldout = self.heldout
        if heldout is not None and heldout.residuals is not None:
            heldout = replace(heldout, residuals=to(heldout.residuals))
        rows, cols = (None if prior is None else prior.moved(to) for prior in self.priors)
        return replace(
            self, model=self.model.moved(to), observations=observations, heldout=heldout, priors=(rows, cols)
        )

    def save(self, path: str | os.PathLike, precision: str = "full") -> None:
        """Write all but the data and the held-out residuals to a model file (npz with a JSON header).

        Parameters
        ----------
        path : path
        precision : {"full", "posterior"}
            "posterior": a small file, often a tenth as large, of which `load` makes the model up to a fraction of what noise
            leaves unknown; of the history its end. For recoveries that hold noisy entries; needs ``dmf[codec]``.

        Raises
        ------
        FileError
            If it cannot be written; a file that was there before is then untouched.
        ArgumentError, MissingPackageError
            If precision is "posterior", and there is no noise, no entry, or no package constriction.

        References
        ----------
        .. [1] Bamler, arXiv 2201.01741 (the entropy coder); Townsend et al., ICLR 2019 (coding given latent variables).
        """
        check_choice("precision", precision, ("full", "posterior"))
        write_model(path, {f.name: getattr(self, f.name) for f in fields(self)}, precision)

    def update(self, observations: SampledEntries) -> Recovery:
        """The recovery with more entries known, perhaps of more rows and columns, without fitting all of it again.

        New rows and columns are folded in, components that the new entries show are added, and a few sweeps of variational Bayes
        over all entries follow, offsets included; components that the data no longer support go. Where a fit of everything takes
        few sweeps, as with much noise and many entries, an update takes a third to a half of its time, of ratings an eighth.

        Parameters
        ----------
        observations : SampledEntries, shape (d1 + more, d2 + more)
            The new entries, in positions of the larger matrix: old rows and columns come first. A position that was known
            counts once more.

        Returns
        -------
        Recovery
            Of the larger matrix, with all entries as its observations; without held-out errors, and without names on a side that
            has grown.

        Raises
        ------
        ArgumentError, ShapeError, DTypeError, ObservationError
            If this recovery holds no entries, or the new ones do not fit it, such as rows that are named in another order.

        References
        ----------
        .. [1] Wang et al., ECCV 2022 (arXiv 2204.04662) (fit the residual by a new module, then compress the whole).
        """
        from dmf.recovery.updates import updated

        return updated(self, observations)

    def with_ids(self, row_ids: Sequence[str] | None, col_ids: Sequence[str] | None) -> Recovery:
        """The same recovery with names for rows and columns.

        Raises
        ------
        ArgumentError
            If names are neither strings, numbers nor bytes, not all different, or not one for each row or column.
        """
        names = [None if ids is None else tuple(map(as_name, ids)) for ids in (row_ids, col_ids)]
        for argument, ids, size in zip(("row_ids", "col_ids"), names, self.shape, strict=True):
            if ids is not None and not are_names(ids, size):
                raise ArgumentError(
                    f"{argument} holds {len(ids)} names, but {size} different strings are needed. Pass one for each.",
                    argument=argument,
                    value=len(ids),
                    limit=size,
                )
        return replace(self, row_ids=names[0], col_ids=names[1])


def load(path: str | os.PathLike, device: str = "cpu") -> Recovery:
    """Read a model file that `Recovery.save` wrote.

    Nothing in the file is trusted: no pickle, and every field is checked for presence, type, shape and finite numbers.

    Parameters
    ----------
    path : path
    device : str
        "cpu" for NumPy arrays, "cuda" or "cuda:N" for CuPy arrays.

    Returns
    -------
    Recovery
        Without observations.

    Raises
    ------
    FileError
        If the file cannot be read, is truncated, or is not a valid model.
    ArgumentError, MissingPackageError
        If there is no such device, or CuPy is missing.
    """
    check_device(device)
    return Recovery(**read_model(path)).to_device(device)
