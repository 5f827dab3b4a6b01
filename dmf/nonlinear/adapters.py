"""Low-rank adapters: frozen weights of a trained network plus trained products of few-parameter factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dmf.arrays.backend import Array, namespace
from dmf.arrays.checks import check_option, positive_integer
from dmf.arrays.linalg import chain_product, dense_svd, gaussian, identity
from dmf.errors import ArgumentError, RankError, ShapeError
from dmf.nonlinear.layers import DeepLinearBlock, Dense, Layer, real_weights, rebuilt
from dmf.nonlinear.network import Network, check_network, finite_gradients
from dmf.nonlinear.samples import Samples


@dataclass(frozen=True, eq=False)
class LowRankAdapter:
    """``outputs = inputs @ (weight + W_k ... W_1)^T + bias``; weight and bias are frozen, the factors are trained.

    Plain LoRA has the factors (A, B), Deep LoRA (V^T, W_1, W_2, W_3, U) with square factors between. See `lora` and `deep_lora`.

    Parameters
    ----------
    weight : array, shape (d_out, d_in)
    bias : array, shape (d_out,), or None
    factors : sequence of arrays, shapes (r, d_in), (r, r), ..., (d_out, r)
        At least two, next to the input first. Library, device and dtype of the weight.
    outer_rate : float, >= 0
        gamma: the steps of the first and the last factor over those of the others; with 0 these two are frozen as well.

    Raises
    ------
    ShapeError, ArgumentError, DTypeError, BackendError, ObservationError
        If shapes do not fit, there is nothing to train, dtypes or libraries differ, or a number is NaN or infinite.

    References
    ----------
    .. [1] Hu et al., ICLR 2022 (arXiv 2106.09685), section 4.1: A and B.
    .. [2] Yaras et al., ICML 2024 (arXiv 2406.04112), section 4: the deep factors and gamma.
    """

    weight: Array
    bias: Array | None
    factors: tuple[Array, ...]
    outer_rate: float = 1.0

    def __post_init__(self) -> None:
        frozen = Dense(self.weight, self.bias)
        block = DeepLinearBlock(tuple(self.factors), frozen.bias, check_option("outer_rate", self.outer_rate))
        namespace(frozen.weight, *block.weights)
        if block.sizes != frozen.sizes:
            raise ShapeError(
                f"the factors give a matrix {block.sizes[::-1]}, but the weight has shape {tuple(frozen.weight.shape)}. Pass "
                "the factor next to the input first.",
                argument="factors",
                value=block.sizes[::-1],
                limit=tuple(frozen.weight.shape),
            )
        least = 3 if block.outer_scale == 0 else 2
        if block.depth < least:
            raise ArgumentError(
                f"{block.depth} factors with outer_rate={block.outer_scale:g}, but "
                f"{'with a rate of 0 only those between the outer two are trained' if least == 3 else 'a rank needs two'}. "
                f"Pass at least {least}.",
                argument="factors",
                value=block.depth,
                limit=least,
            )
        for name, value in (
            ("weight", frozen.weight), ("bias", frozen.bias), ("factors", block.weights), ("outer_rate", block.outer_scale),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def _block(self) -> DeepLinearBlock:
        block = object.__new__(DeepLinearBlock)  # not checked again: it is made in each step
        return rebuilt(block, weights=self.factors, bias=self.bias, outer_scale=self.outer_rate)

    @property
    def _trained(self) -> slice:
        return slice(1, len(self.factors) - 1) if self.outer_rate == 0 else slice(0, len(self.factors))

    @property
    def rank(self) -> int:
        """Upper bound r on the rank of the change of the weight."""
        return min(min(factor.shape) for factor in self.factors)

    @property
    def sizes(self) -> tuple[int, int]:
        """(d_in, d_out)."""
        return self.weight.shape[1], self.weight.shape[0]

    @property
    def parameters(self) -> tuple[Array, ...]:
        """The factors that are trained."""
        return self.factors[self._trained]

    @property
    def rates(self) -> tuple[float, ...]:
        """`outer_rate` for the first and the last factor, 1 for the others."""
        return self._block.rates[: len(self.factors)][self._trained]

    def with_parameters(self, parameters: Sequence[Array]) -> LowRankAdapter:
        """The layer with other trained factors of the same shapes, unchecked."""
        factors = list(self.factors)
        factors[self._trained] = parameters
        return rebuilt(self, factors=tuple(factors))

    def forward(self, inputs: Array) -> tuple[Array, list[Array]]:
        """Outputs, and the inputs of each factor as cache."""
        outputs, cache = self._block.forward(inputs)
        outputs += inputs @ namespace(self.weight).matrix_transpose(self.weight)
        return outputs, cache

    def backward(
        self, cache: list[Array], gradient: Array, to_inputs: bool = True
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """Gradients with respect to the inputs, and to each of the trained factors."""
        xp = namespace(gradient)
        trained = range(len(self.factors))[self._trained]
        gradients: list[Array] = []
        reached = gradient
        for k in range(len(self.factors) - 1, -1, -1):
            if k in trained:
                gradients.insert(0, xp.matrix_transpose(reached) @ cache[k])
            if to_inputs or k > trained[0]:
                reached = reached @ self.factors[k]
        return reached + gradient @ self.weight if to_inputs else None, tuple(gradients)

    def merged(self) -> Dense:
        """One plain weight ``weight + W_k ... W_1``, shape (d_out, d_in), and the bias."""
        return Dense(self.weight + chain_product(self.factors[::-1]), self.bias)


def lora_factors(weight: Array, rank: int, *, scale: float = 1.0, seed: int = 0) -> tuple[Array, Array]:
    """Factors (A, B) of plain LoRA at its start: A Gaussian, B zero, so that the weight is unchanged.

    Parameters
    ----------
    weight : array, shape (d_out, d_in)
    rank : int, 1 <= rank <= min(d_out, d_in)
    scale : float, > 0
        Rows of A have norm `scale` in the mean square: the variance of its entries is scale^2 / d_in.
    seed : int

    Returns
    -------
    A : array, shape (rank, d_in)
    B : array, shape (d_out, rank)

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range, or the weight is not a finite matrix.

    References
    ----------
    .. [1] Hu et al., ICLR 2022 (arXiv 2106.09685), section 4.1.
    """
    (weight,) = real_weights([weight])
    d_out, d_in = weight.shape
    _check_rank(rank, (d_out, d_in))
    scale = check_option("scale", scale, strictly=True)
    return gaussian((rank, d_in), seed, weight) * (scale / d_in**0.5), 0 * gaussian((d_out, rank), seed, weight)


def deep_lora_factors(gradient: Array, rank: int, *, depth: int = 3, scale: float = 0.1) -> tuple[Array, ...]:
    """Factors (V^T, W_1, ..., W_depth, U) of Deep LoRA at its start, from the gradient that the frozen weight sees.

    U and V are the top singular vectors of minus the gradient, the direction in which descent moves (from the gradient itself
    the product would have to cross zero, where a deep product is stuck), and the factors between are `scale` times the
    identity. Beyond the rank of the gradient, at most the number of samples, U and V go on with any orthonormal vectors.

    Parameters
    ----------
    gradient : array, shape (d_out, d_in)
        Of the loss with respect to the frozen weight, at the first batch.
    rank : int, 1 <= rank <= min(d_out, d_in)
    depth : int, >= 1
        Number of factors between U and V^T.
    scale : float, > 0
        The change of the weight starts as ``scale**depth U V^T``.

    Returns
    -------
    tuple of arrays
        Shapes (rank, d_in), `depth` times (rank, rank), (d_out, rank).

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, ObservationError
        If an argument is out of range, or the gradient is not a finite matrix.

    References
    ----------
    .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), sections 3.3 and 4.
    """
    (gradient,) = real_weights([gradient])
    _check_rank(rank, tuple(gradient.shape))
    depth = positive_integer(depth, "depth")
    scale = check_option("scale", scale, strictly=True)
    u, _, vt = dense_svd(-gradient, rank)
    return vt, *(scale * identity(rank, gradient) for _ in range(depth)), u


def lora(network: Network, rank: int, *, scale: float = 1.0, seed: int = 0) -> Network:
    """The network with a plain low-rank adapter B A on each `Dense` layer, and nothing else trained.

    Parameters
    ----------
    network : Network
        Its blocks and earlier adapters are merged first.
    rank : int, >= 1
        At most the smaller size of the largest layer; smaller layers get an adapter of their own full rank.
    scale : float, > 0
        See `lora_factors`.
    seed : int

    Returns
    -------
    Network
        It starts as the same function as `network`.

    Raises
    ------
    RankError, ArgumentError
        If an argument is out of range, or the network has no `Dense` layer.

    References
    ----------
    .. [1] Hu et al., ICLR 2022 (arXiv 2106.09685), section 4.1.
    """
    check_network(network)
    network = network.merged()
    ranks = _ranks(network, rank)
    layers: list[Layer] = []
    for place, layer in enumerate(network.layers):
        if isinstance(layer, Dense):
            factors = lora_factors(layer.weight, ranks[place], scale=scale, seed=seed + place)
            layer = LowRankAdapter(layer.weight, layer.bias, factors)
        layers.append(layer)
    return Network(layers)


def deep_lora(
    network: Network,
    rank: int,
    samples: Samples,
    *,
    depth: int = 3,
    scale: float = 0.1,
    outer_rate: float = 0.01,
    loss: str = "cross-entropy",
) -> Network:
    """The network with a deep low-rank adapter ``U W_depth ... W_1 V^T`` on each `Dense` layer, and nothing else trained.

    Parameters
    ----------
    network : Network
        Its blocks and earlier adapters are merged first.
    rank : int, >= 1
        At most the smaller size of the largest layer; smaller layers get an adapter of their own full rank.
    samples : Samples
        The first batch, whose gradient gives U and V.
    depth : int, >= 1
        Number of factors between U and V^T.
    scale : float, > 0
        See `deep_lora_factors`.
    outer_rate : float, >= 0
        gamma: the steps of U and V over those of the factors between; 0 freezes U and V.
    loss : {"cross-entropy", "squared"}

    Returns
    -------
    Network

    Raises
    ------
    RankError, ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        If an argument is out of range, the network has no `Dense` layer, the samples do not fit it, or the gradient overflows.

    References
    ----------
    .. [1] Yaras et al., ICML 2024 (arXiv 2406.04112), section 4.
    """
    check_network(network)
    network = network.merged()
    ranks = _ranks(network, rank)
    gradients = finite_gradients(network, samples, loss)
    layers: list[Layer] = []
    start = 0
    for place, layer in enumerate(network.layers):
        own, start = gradients[start : start + len(layer.parameters)], start + len(layer.parameters)
        if isinstance(layer, Dense):
            factors = deep_lora_factors(own[0], ranks[place], depth=depth, scale=scale)
            layer = LowRankAdapter(layer.weight, layer.bias, factors, outer_rate)
        layers.append(layer)
    return Network(layers)


def _ranks(network: Network, rank: int) -> dict[int, int]:
    """Rank of the adapter of each `Dense` layer, by the layer's place."""
    sizes = {place: layer.sizes for place, layer in enumerate(network.layers) if isinstance(layer, Dense)}
    if not sizes:
        raise ArgumentError(
            "network has no Dense layer, but adapters are put on these. Wrap weights in Dense.",
            argument="network",
            value=0,
            limit=1,
        )
    _check_rank(rank, max(sizes.values(), key=min))
    return {place: min(rank, *size) for place, size in sizes.items()}


def _check_rank(rank: int, shape: tuple[int, int]) -> None:
    if positive_integer(rank, "rank") > min(shape):
        raise RankError(
            f"rank={rank}, but a weight of {shape[0]} x {shape[1]} numbers has a rank of at most {min(shape)}. Pass rank <= "
            f"{min(shape)}.",
            argument="rank",
            value=rank,
            limit=min(shape),
        )
