"""Oblique projections for reduced-order models: the directions that snapshots take and that outputs feel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dmf.arrays.backend import Array, as_array, floating, namespace, to_host
from dmf.arrays.linalg import dense_svd
from dmf.errors import DTypeError, RankError, ShapeError
from dmf.observations.checks import check_finite, check_rank


@dataclass(frozen=True, eq=False)
class ObliqueProjection:
    """``x -> D E x`` with ``E D = I``: coordinates z = E x of a state x, and the state D z of coordinates.

    Attributes
    ----------
    decoder : array, shape (n, r)
        D.
    encoder : array, shape (r, n)
        E.
    values : array, shape (r,)
        Singular values of ``G^T X``, descending: how much each coordinate carries from snapshots to outputs.
    """

    decoder: Array
    encoder: Array
    values: Array

    def encode(self, states: Array) -> Array:
        """Coordinates, shape (r, m), of states in columns, shape (n, m)."""
        return self.encoder @ self._checked(states, "states", self.encoder.shape[1])

    def decode(self, coordinates: Array) -> Array:
        """States, shape (n, m), of coordinates in columns, shape (r, m)."""
        return self.decoder @ self._checked(coordinates, "coordinates", self.encoder.shape[0])

    def reduced(self, operator: Array) -> Array:
        """``E A D``, shape (r, r), of an operator A, shape (n, n): z' = E A D z stands for x' = A x."""
        n = self.encoder.shape[1]
        operator = self._checked(operator, "operator", n)
        if tuple(operator.shape) != (n, n):
            raise ShapeError(
                f"operator has shape {tuple(operator.shape)}, but it maps states of {n} numbers to such. Pass ({n}, {n}); "
                "what maps inputs to states goes into encode, and outputs C of states become C @ decoder.",
                argument="operator",
                value=tuple(operator.shape),
                limit=(n, n),
            )
        return self.encoder @ (operator @ self.decoder)

    def _checked(self, array: Array, argument: str, rows: int) -> Array:
        array = floating(as_array(array, argument), argument)
        namespace(array, self.encoder)
        if array.ndim not in (1, 2) or array.shape[0] != rows:
            raise ShapeError(
                f"{argument} have shape {tuple(array.shape)}, but each column holds {rows} numbers.",
                argument=argument,
                value=tuple(array.shape),
                limit=rows,
            )
        return array


def oblique_projection(snapshots: Array, gradients: Array, rank: int) -> ObliqueProjection:
    """Project states on the directions in which they move and on which outputs depend.

    The projection on principal components (POD) keeps what is large; in systems that are not normal, a small part of the state
    may grow and drive the outputs later. Gradients of outputs with respect to the state say which part that is. Where snapshots
    are impulse responses and gradients those of the adjoint system, this is balanced truncation by snapshots.

    Parameters
    ----------
    snapshots : array, shape (n, m)
        X, states in columns.
    gradients : array, shape (n, k)
        G, in columns: gradients of outputs, at the same and at later times, with respect to states.
    rank : int, 1 <= rank <= rank of ``G^T X``

    Returns
    -------
    ObliqueProjection
        With ``G^T X = U S V^T``: ``D = X V S^(-1/2)`` and ``E = S^(-1/2) U^T G^T``, of all projections of this rank the one with
        the least ``||G^T X - G^T D E X||_F``.

    Raises
    ------
    RankError, ShapeError, DTypeError, BackendError, ObservationError
        If there are fewer directions than `rank`, shapes or dtypes differ, or a number is not finite.

    References
    ----------
    .. [1] Otto, Macchio, Rowley, Nonlinear Dynamics 2023 (arXiv 2307.15288), and Otto, Padovan, Rowley, SIAM J. Sci. Comput. 44
       (2022): projections from snapshots and gradients.
    .. [2] Rowley, Int. J. Bifurcation Chaos 15 (2005) (balanced truncation by snapshots).
    """
    arrays = []
    for array, argument in ((snapshots, "snapshots"), (gradients, "gradients")):
        array = floating(as_array(array, argument), argument)
        if array.ndim != 2:
            raise ShapeError(
                f"{argument} have shape {tuple(array.shape)}, but they are a matrix with one of them in each column.",
                argument=argument,
                value=tuple(array.shape),
                limit=2,
            )
        check_finite(array, argument)
        arrays.append(array)
    x, g = arrays
    xp = namespace(x, g)
    if x.shape[0] != g.shape[0]:
        raise ShapeError(
            f"snapshots hold {x.shape[0]} numbers each and gradients {g.shape[0]}, but both are of the same states.",
            argument="gradients",
            value=g.shape[0],
            limit=x.shape[0],
        )
    if x.dtype != g.dtype:
        raise DTypeError(
            f"snapshots have dtype {x.dtype} and gradients {g.dtype}, but one call computes in one dtype. Convert one of them.",
            argument="gradients",
            value=str(g.dtype),
            limit=str(x.dtype),
        )
    product = xp.matrix_transpose(g) @ x
    rank = check_rank(rank, (min(product.shape[0], x.shape[0]), product.shape[1]))
    u, s, vt = dense_svd(product, rank)
    host = to_host(s).astype(float)
    # Of lengths of columns, as G^T X is known to the rounding errors of these.
    least = float(xp.finfo(s.dtype).eps) * float(np.prod([float(xp.linalg.vector_norm(a)) for a in arrays]))
    there = int(np.sum(host > least))
    if there < rank:
        raise RankError(
            f"rank={rank}, but snapshots and gradients share only {there} directions: further singular values of their product "
            f"are rounding errors. Pass rank <= {there}, or more snapshots and gradients.",
            argument="rank",
            value=rank,
            limit=there,
        )
    root = xp.sqrt(s)
    decoder, encoder = (
        (x @ xp.matrix_transpose(vt)) / root,
        (xp.matrix_transpose(u) @ xp.matrix_transpose(g)) / root[:, None],
    )
    # The small singular values leave E D = I to rounding errors over them; once more, to rounding.
    return ObliqueProjection(decoder, xp.linalg.solve(encoder @ decoder, encoder), s)
