"""Blocks in networks: put in, started in the subspaces of the gradient, compressed."""

from __future__ import annotations

from dmf.arrays.backend import Array
from dmf.arrays.checks import positive_integer
from dmf.arrays.linalg import dense_svd
from dmf.errors import ArgumentError, RankError
from dmf.models import DeepLinearNetwork, balanced_network, orthogonal_network
from dmf.models.initialize import check_depth_and_scale
from dmf.nonlinear.layers import DeepLinearBlock, Dense, Layer
from dmf.nonlinear.network import Network, check_network, finite_gradients
from dmf.nonlinear.samples import Samples


def with_block(
    network: Network,
    depth: int = 3,
    *,
    scale: float = 1.0,
    width: int | None = None,
    outer_scale: float = 1.0,
    seed: int = 0,
) -> Network:
    """The network with an orthogonal deep linear block in place of the weight before the last one.

    Parameters
    ----------
    network : Network
        With at least two `Dense` layers; the last but one is replaced, and its bias kept.
    depth : int, >= 1
        Number L of factors.
    scale : float, > 0
        Every factor is `scale` times a random (semi-)orthogonal matrix.
    width : int, >= 1, optional
        Inner width: max(d_in, d_out) unless given, the original block; r-hat for a narrow one.
    outer_scale : float, >= 0
        Steps of the outer factors over those of the inner ones.
    seed : int

    Returns
    -------
    Network

    Raises
    ------
    ArgumentError
        If an argument is out of range, or the network has no two `Dense` layers.
    """
    check_network(network)
    places = [k for k, layer in enumerate(network.layers) if isinstance(layer, Dense)]
    if len(places) < 2:
        raise ArgumentError(
            f"network has {len(places)} Dense layers, but a block replaces the last but one. Pass a network with two or more.",
            argument="network",
            value=len(places),
            limit=2,
        )
    plain = network.layers[places[-2]]
    assert isinstance(plain, Dense)
    start = orthogonal_network(plain.weight.shape, depth, scale, width, seed=seed, like=plain.weight)
    return _replaced(network, places[-2], DeepLinearBlock(start.weights, plain.bias, outer_scale))


def compress(network: Network, rank: int, *, outer_scale: float | None = None) -> Network:
    """The network with its block compressed to the top singular subspaces of its end-to-end matrix.

    The best approximation of the block's matrix by one of that rank, its factors balanced. Of a fresh orthogonal block, whose
    singular values are all equal, only `rank` = d keeps the function; take `spectral_start` for smaller ones.

    Parameters
    ----------
    network : Network
        With one `DeepLinearBlock`.
    rank : int, 1 <= rank <= min(d_in, d_out)
        Width r-hat of the compressed factors.
    outer_scale : float, >= 0, optional
        Steps of the outer factors over those of the inner ones; as before unless given.

    Returns
    -------
    Network
        ``merged()`` turns it into one with plain weights.

    Raises
    ------
    RankError, ArgumentError
        If the rank is out of range, or the network has not one block.
    """
    place, block = _block(network)
    return _replaced(network, place, truncated_block(block, rank, outer_scale))


def spectral_start(
    network: Network,
    rank: int,
    samples: Samples,
    *,
    loss: str = "cross-entropy",
    scale: float = 1.0,
    outer_scale: float | None = None,
) -> Network:
    """The network with a compressed block that starts in the singular subspaces of the gradient seen at initialisation.

    With R the gradient of the loss with respect to the block's end-to-end matrix, at the block's own start, and U, V the top
    singular vectors of -R, the direction in which descent moves: W_L = scale U, inner factors scale I, W_1 = scale V^T.

    Parameters
    ----------
    network : Network
        With one `DeepLinearBlock`, at its start.
    rank : int, 1 <= rank <= min(d_in, d_out)
        Width r-hat of the compressed factors.
    samples : Samples
        Those over which the gradient is averaged.
    loss : {"cross-entropy", "squared"}
    scale : float, > 0
        Scale of each factor.
    outer_scale : float, >= 0, optional
        Steps of the outer factors over those of the inner ones; as before unless given.

    Returns
    -------
    Network

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If an argument is out of range, the network has not one block, the samples do not fit it, or the gradient overflows.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), section 3 and the experiments with nonlinear networks.
    .. [2] Yaras et al., ICML 2024 (arXiv 2406.04112), the compression for completion and adaptation.
    """
    place, block = _block(network)
    _check_rank(rank, block)
    gradient = block_gradient(network, samples, loss)
    return _replaced(network, place, spectral_block(block, rank, gradient, scale, outer_scale))


def block_gradient(network: Network, samples: Samples, loss: str = "cross-entropy") -> Array:
    """Gradient of the loss with respect to the end-to-end matrix of the network's block.

    Parameters
    ----------
    network : Network
        With one `DeepLinearBlock`.
    samples : Samples
    loss : {"cross-entropy", "squared"}

    Returns
    -------
    array, shape (d_out, d_in)

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If the network has not one block, the samples do not fit it, or the gradient overflows.
    """
    place, block = _block(network)
    plain = _replaced(network, place, block.merged())
    return finite_gradients(plain, samples, loss)[sum(len(layer.parameters) for layer in plain.layers[:place])]


def truncated_block(block: DeepLinearBlock, rank: int, outer_scale: float | None = None) -> DeepLinearBlock:
    """The block of `compress`: the best approximation of that rank, its factors balanced."""
    _check_rank(rank, block)
    return _narrowed(block, balanced_network(*dense_svd(block.merged().weight, rank), block.depth), outer_scale)


def spectral_block(
    block: DeepLinearBlock, rank: int, gradient: Array, scale: float = 1.0, outer_scale: float | None = None
) -> DeepLinearBlock:
    """The block of `spectral_start`, from the gradient with respect to the end-to-end matrix."""
    _check_rank(rank, block)
    check_depth_and_scale(block.depth, scale)
    u, s, vt = dense_svd(-gradient, rank)
    start = balanced_network(u, 0 * s + 1, vt, block.depth)
    return _narrowed(block, DeepLinearNetwork(float(scale) * w for w in start.weights), outer_scale)


def _block(network: Network) -> tuple[int, DeepLinearBlock]:
    check_network(network)
    found = [(k, layer) for k, layer in enumerate(network.layers) if isinstance(layer, DeepLinearBlock)]
    if len(found) != 1:
        raise ArgumentError(
            f"network has {len(found)} deep linear blocks, but one is needed. Put one in with with_block(network).",
            argument="network",
            value=len(found),
            limit=1,
        )
    return found[0]


def _check_rank(rank: int, block: DeepLinearBlock) -> None:
    if positive_integer(rank, "rank") > min(block.sizes):
        raise RankError(
            f"rank={rank}, but the block maps {block.sizes[0]} numbers to {block.sizes[1]}: its rank is at most "
            f"{min(block.sizes)}. Pass rank <= {min(block.sizes)}.",
            argument="rank",
            value=rank,
            limit=min(block.sizes),
        )


def _narrowed(block: DeepLinearBlock, start: DeepLinearNetwork, outer_scale: float | None) -> DeepLinearBlock:
    return DeepLinearBlock(start.weights, block.bias, block.outer_scale if outer_scale is None else outer_scale)


def _replaced(network: Network, place: int, layer: Layer) -> Network:
    return Network((*network.layers[:place], layer, *network.layers[place + 1 :]))
