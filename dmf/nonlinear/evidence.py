"""Evidence that the updates of nonlinear networks are low-dimensional, too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from dmf.arrays.backend import Array, namespace, to_host
from dmf.arrays.checks import positive_integer
from dmf.arrays.linalg import dense_svd
from dmf.errors import ShapeError
from dmf.nonlinear.network import Network, finite_gradients
from dmf.nonlinear.samples import Samples
from dmf.solvers import Snapshot
from dmf.theory import effective_rank, energy_outside


class UpdateDiagnostics:
    """Callback: singular values of the update of each weight, and its energy outside the subspace predicted at the start.

    For a weight that starts at W(0) with gradient G, and the top r singular vectors U, V of G, the law of parsimony predicts
    that ``D = W(t) - W(0)`` acts between the spans of [V, W(0)^T U] and of [U, W(0) V], both of dimension 2r. For orthogonal
    deep linear networks on a fully known matrix of rank r that is a theorem; here it is measured.

    Returns for each recorded iteration, for each weight matrix from input to output,

    - "update_singular_values" (m, count), descending; 0 beyond the size of a weight;
    - "update_effective_rank" (m,), of these values;
    - "energy_outside" (m,): share of ``||D||_F^2`` outside the predicted subspaces.

    Parameters
    ----------
    start : Network
        As training starts from it.
    samples : Samples
        Those over which the gradient is averaged.
    rank : int, >= 1
        r, such as the number of classes.
    loss : {"cross-entropy", "squared"}
    count : int, >= 1
        Number of singular values.

    Attributes
    ----------
    names : tuple of m str
        Of the weights: "W" and the number of the layer, with that of the factor where it has several.

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If a number is out of range, the samples do not fit the network, or the gradient overflows.

    References
    ----------
    .. [1] Yaras et al., arXiv 2306.01154, theorem 1; ICML 2024 (arXiv 2406.04112), section 2.
    """

    def __init__(
        self, start: Network, samples: Samples, *, rank: int, loss: str = "cross-entropy", count: int = 40
    ) -> None:
        rank, self._count = positive_integer(rank, "rank"), positive_integer(count, "count")
        gradients = finite_gradients(start, samples, loss)
        self._start = _matrices(start.parameters)
        self._spaces = [
            _predicted(weight, gradient, rank)
            for weight, gradient in zip(self._start, _matrices(gradients), strict=True)
        ]
        self.names = _names(start)

    def __call__(self, snapshot: Snapshot) -> Mapping[str, Any]:
        """Measures ``snapshot.network``."""
        arrays = _matrices(snapshot.network.parameters)
        if [w.shape for w in arrays] != [w.shape for w in self._start]:
            raise ShapeError(
                f"the network has weights of shapes {[tuple(w.shape) for w in arrays]}, but the start that the updates are "
                f"counted from has {[tuple(w.shape) for w in self._start]}. Pass UpdateDiagnostics the network that is trained.",
                argument="start",
                value=[tuple(w.shape) for w in arrays],
                limit=[tuple(w.shape) for w in self._start],
            )
        values = np.zeros((len(self._start), self._count))
        outside = np.zeros(len(self._start))
        for k, (weight, first) in enumerate(zip(arrays, self._start, strict=True)):
            update = weight - first
            spectrum = to_host(namespace(update).linalg.svdvals(update))[: self._count]
            values[k, : spectrum.size] = spectrum
            outside[k] = energy_outside(update, *self._spaces[k])
        return {
            "update_singular_values": values,
            "update_effective_rank": np.array([effective_rank(spectrum) for spectrum in values]),
            "energy_outside": outside,
        }


def _matrices(arrays: tuple[Array, ...]) -> list[Array]:
    return [array for array in arrays if array.ndim == 2]


def _predicted(weight: Array, gradient: Array, rank: int) -> tuple[Array, Array]:
    """Orthonormal bases of the predicted subspaces of outputs and inputs."""
    xp = namespace(weight, gradient)
    u, _, vt = dense_svd(gradient, min(rank, *weight.shape))
    v = xp.matrix_transpose(vt)
    left = xp.concat([u, weight @ v], axis=1)
    right = xp.concat([v, xp.matrix_transpose(weight) @ u], axis=1)
    return xp.linalg.qr(left).Q, xp.linalg.qr(right).Q


def _names(network: Network) -> tuple[str, ...]:
    names: list[str] = []
    with_weights = [layer for layer in network.layers if layer.parameters]
    for number, layer in enumerate(with_weights, start=1):
        count = len(_matrices(layer.parameters))
        factors = [f", factor {k}" for k in range(1, count + 1)] if count > 1 else [""] * count
        names += [f"W{number}{factor}" for factor in factors]
    return tuple(names)
