"""The compressed start of Yaras et al.: the subspaces that the gradient at the start of a wide network spans."""

from __future__ import annotations

from dmf.arrays.backend import namespace
from dmf.models import DeepLinearNetwork
from dmf.observations import Observations
from dmf.theory.compression import exact_compression


def compressed_start(
    observations: Observations, network: DeepLinearNetwork, rank: int, seed: int = 0
) -> DeepLinearNetwork:
    """Compress a wide start into the 2r-dimensional subspaces of its gradient, for partial and indirect observations.

    The product of the start is ``V_{L+1,1} C_L ... C_1 V_{1,1}^T``: a core, which is the wide network on the subspaces in which
    it would move if the gradient at the start kept its singular subspaces, between two outer factors. Train it with a small
    ``outer_scale``, such as 0.1: the core learns as the wide network does, and the outer factors turn slowly to what the
    surrogate missed. With everything observed and ``outer_scale=0`` the core is exact (`exact_compression`).

    Parameters
    ----------
    observations : Observations
        What is known of the (d1, d2) matrix.
    network : DeepLinearNetwork
        The wide start, of L layers that are multiples of (semi-)orthogonal matrices; for the sizes see `invariant_subspaces`.
    rank : int, 1 <= rank < min(sizes) / 2
        r, an upper bound on the rank of the matrix.
    seed : int
        Of the randomised singular value decomposition.

    Returns
    -------
    DeepLinearNetwork
        L + 2 layers: V_{1,1}^T (k_0, d2), C_1, ..., C_L, and V_{L+1,1} (d1, k_L); of square layers all k are 2r and all C_l are
        eps_l I.

    Raises
    ------
    ArgumentError, RankError, ShapeError, DTypeError, BackendError
        As `invariant_subspaces`.

    Notes
    -----
    The gradient is that of a start that vanishes, ``-A^T(y)``; the authors take it at the start itself, which differs by the
    size of its product, eps^L.

    References
    ----------
    .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), section 3.
    """
    u, s, vt = observations.surrogate_svd(rank, seed)
    compression = exact_compression((u * s) @ vt, network, rank)
    right, *_, left = compression.subspaces.active
    xp = namespace(left)
    return DeepLinearNetwork([xp.matrix_transpose(right), *compression.network.weights, left])
