"""Samples to train on, and checks of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dmf.arrays.backend import Array, as_array, floating, namespace
from dmf.errors import DTypeError, ObservationError, ShapeError
from dmf.observations.checks import check_finite


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and what a network should make of them.

    Parameters
    ----------
    inputs : array, shape (n, d)
        One sample in each row, n >= 1; float32 or float64 (integers become float64), finite.
    targets : array
        Labels, integers of shape (n,), at least 0; or numbers of shape (n, k), finite.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError
        If shapes do not fit, there is no sample, libraries differ, or a number is NaN, infinite or a negative label.
    """

    inputs: Array
    targets: Array

    def __post_init__(self) -> None:
        inputs, targets = checked_inputs(self.inputs), as_array(self.targets, "targets")
        xp = namespace(inputs, targets)
        labels = xp.isdtype(targets.dtype, "integral")
        if targets.ndim != (1 if labels else 2) or targets.shape[0] != inputs.shape[0]:
            raise ShapeError(
                f"targets have shape {tuple(targets.shape)} and dtype {targets.dtype}, but {inputs.shape[0]} inputs have "
                f"integer labels ({inputs.shape[0]},) or real targets ({inputs.shape[0]}, outputs). Convert labels to "
                "integers, or give each sample a row of targets.",
                argument="targets",
                value=tuple(targets.shape),
                limit=inputs.shape[0],
            )
        if labels:
            given, targets = targets, xp.astype(targets, xp.int64)
            least = int(xp.argmin(targets))
            if int(targets[least]) < 0:  # unsigned labels from 2**63 on are negative only now
                raise ObservationError(
                    f"targets hold the label {int(given[least])}, but labels run from 0 to 2**63 - 1. Number the classes from 0.",
                    argument="targets",
                    value=int(given[least]),
                    limit=(0, 2**63 - 1),
                )
        else:
            targets = floating(targets, "targets")
            if targets.dtype != inputs.dtype:
                raise DTypeError(
                    f"targets have dtype {targets.dtype} and inputs {inputs.dtype}, but one call computes in one dtype. "
                    "Convert one of them.",
                    argument="targets",
                    value=str(targets.dtype),
                    limit=str(inputs.dtype),
                )
            check_finite(targets, "targets", "Drop these samples.")
        object.__setattr__(self, "inputs", inputs)
        object.__setattr__(self, "targets", targets)

    def __len__(self) -> int:
        return self.inputs.shape[0]

    def take(self, index: Array) -> Samples:
        """Some of the samples, unchecked.

        Parameters
        ----------
        index : integer array, shape (m,)
            Positions, 0 <= index < n, in the library and on the device of the samples.
        """
        xp = namespace(self.inputs, index)
        new = object.__new__(Samples)
        object.__setattr__(new, "inputs", xp.take(self.inputs, index, axis=0))
        object.__setattr__(new, "targets", xp.take(self.targets, index, axis=0))
        return new


def checked_inputs(inputs: Any) -> Array:
    """Inputs as a finite matrix (n, d) with n >= 1; raises otherwise."""
    inputs = floating(as_array(inputs, "inputs"), "inputs")
    if inputs.ndim != 2 or min(inputs.shape) < 1:
        raise ShapeError(
            f"inputs have shape {tuple(inputs.shape)}, but they are a matrix with one sample in each row and at least one row. "
            "Flatten images to rows.",
            argument="inputs",
            value=tuple(inputs.shape),
            limit=("samples", "numbers"),
        )
    check_finite(inputs, "inputs", "Drop these samples, or fill the holes.")
    return inputs


def check_labels(targets: Array, outputs: int) -> None:
    """Raise unless targets are labels of a network with that many outputs."""
    xp = namespace(targets)
    if not xp.isdtype(targets.dtype, "integral"):
        raise DTypeError(
            f"targets have dtype {targets.dtype}, but classes are integers from 0. Pass labels.",
            argument="targets",
            value=str(targets.dtype),
            limit="integer",
        )
    most = int(xp.max(targets))
    if most >= outputs:
        raise ObservationError(
            f"targets hold the label {most}, but the network has {outputs} outputs: labels run from 0 to {outputs - 1}. "
            "Renumber the labels, or take a network with more outputs.",
            argument="targets",
            value=most,
            limit=(0, outputs - 1),
        )
