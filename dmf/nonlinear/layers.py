"""Layers of a nonlinear network, with forward and backward passes by hand.

A layer is a frozen dataclass that holds its arrays. A sample is a row: ``forward`` maps (n, d_in) to (n, d_out) and hands what
``backward`` needs to it as a cache, so that layers themselves never change. Weights are (d_out, d_in), as everywhere in dmf.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from dmf.arrays.backend import Array, as_array, device, floating, namespace, real_dtype
from dmf.arrays.checks import check_choice, check_option, layer_factors
from dmf.arrays.linalg import chain_product
from dmf.errors import DTypeError, ShapeError
from dmf.models import DeepLinearNetwork
from dmf.observations.checks import check_finite

_GELU_SLOPE, _GELU_CUBE = math.sqrt(2 / math.pi), 0.044715


class Layer(Protocol):
    """What `Network`, optimisers and `train` ask of a layer.

    A layer of another kind (an adapter) has these attributes and functions, and may hold more arrays, which stay as they are.
    """

    @property
    def sizes(self) -> tuple[int, int] | None:
        """(d_in, d_out); None if the layer takes any number and keeps it."""

    @property
    def parameters(self) -> tuple[Array, ...]:
        """Arrays that are trained."""

    @property
    def rates(self) -> tuple[float, ...]:
        """For each of the parameters, its step over the optimiser's; 0 keeps it."""

    def with_parameters(self, parameters: Sequence[Array]) -> Layer:
        """The layer with other arrays of the same shapes, unchecked."""

    def forward(self, inputs: Array) -> tuple[Array, Any]:
        """Outputs (n, d_out) for inputs (n, d_in), and the cache for `backward`."""

    def backward(self, cache: Any, gradient: Array, to_inputs: bool = True) -> tuple[Array | None, tuple[Array, ...]]:
        """Gradients with respect to the inputs (None unless `to_inputs`) and to each of the parameters, new arrays.

        `gradient` is that with respect to the outputs, (n, d_out); it may be overwritten.
        """

    def merged(self) -> Layer:
        """The same function with one plain weight, for inference."""


def rebuilt(layer: Any, **arrays: Any) -> Any:
    """Copy of a layer with other arrays of the same shapes. Not checked: training makes one for each step."""
    new = copy.copy(layer)
    for name, value in arrays.items():
        object.__setattr__(new, name, value)
    return new


def linear_backward(weight: Array, inputs: Array, gradient: Array, to_inputs: bool) -> tuple[Array | None, Array]:
    """Of ``outputs = inputs @ weight^T``: gradients with respect to the inputs (None unless `to_inputs`) and to the weight."""
    xp = namespace(weight, gradient)
    return gradient @ weight if to_inputs else None, xp.matrix_transpose(gradient) @ inputs


@dataclass(frozen=True, eq=False)
class Dense:
    """``outputs = inputs @ weight^T + bias``.

    Parameters
    ----------
    weight : array, shape (d_out, d_in)
        float32 or float64 (integers become float64), finite.
    bias : array, shape (d_out,), optional
        Of the library, device and dtype of the weight, finite. None: the layer has none.
    rate : float, >= 0
        The step of the weight over that of the optimiser; 0 keeps it as it is.

    Raises
    ------
    ShapeError, DTypeError, BackendError, ObservationError, ArgumentError
        If shapes do not fit, dtypes or libraries differ, or a number is NaN, infinite or out of range.
    """

    weight: Array
    bias: Array | None = None
    rate: float = 1.0

    def __post_init__(self) -> None:
        (weight,) = real_weights([self.weight])
        object.__setattr__(self, "weight", weight)
        object.__setattr__(self, "bias", checked_bias(self.bias, weight))
        object.__setattr__(self, "rate", float(check_option("rate", self.rate)))

    @property
    def sizes(self) -> tuple[int, int]:
        """(d_in, d_out)."""
        return self.weight.shape[1], self.weight.shape[0]

    @property
    def parameters(self) -> tuple[Array, ...]:
        """(weight, bias), or (weight,)."""
        return (self.weight,) if self.bias is None else (self.weight, self.bias)

    @property
    def rates(self) -> tuple[float, ...]:
        """`rate` for the weight, 1 for the bias."""
        return (self.rate,) if self.bias is None else (self.rate, 1.0)

    def with_parameters(self, parameters: Sequence[Array]) -> Dense:
        """The layer with another weight and bias of the same shapes, unchecked."""
        return rebuilt(self, **dict(zip(("weight", "bias"), parameters, strict=False)))

    def forward(self, inputs: Array) -> tuple[Array, Array]:
        """Outputs, and the inputs as cache."""
        outputs = inputs @ namespace(self.weight).matrix_transpose(self.weight)
        if self.bias is not None:
            outputs += self.bias
        return outputs, inputs

    def backward(self, cache: Array, gradient: Array, to_inputs: bool = True) -> tuple[Array | None, tuple[Array, ...]]:
        """Gradients with respect to the inputs, and to each of the parameters."""
        below, weight = linear_backward(self.weight, cache, gradient, to_inputs)
        if self.bias is None:
            return below, (weight,)
        return below, (weight, namespace(gradient).sum(gradient, axis=0))

    def merged(self) -> Dense:
        """The layer itself."""
        return self


@dataclass(frozen=True, eq=False)
class DeepLinearBlock:
    """``outputs = inputs @ (W_L ... W_1)^T + bias``: a deep linear network inside a nonlinear one.

    Original if all W_l are d x d; narrow or compressed if the layers between are of width r-hat. Which of the two is a matter of
    the start: see `with_block`, `compress` and `spectral_start`.

    Parameters
    ----------
    weights : sequence of arrays
        (W_1, ..., W_L), W_1 first, as of a `DeepLinearNetwork`.
    bias : array, shape (d_out,), optional
        None: the block has none.
    outer_scale : float, >= 0
        alpha: the steps of W_1 and W_L over those of the others (discrepant rates).

    Raises
    ------
    ArgumentError, ShapeError, DTypeError, BackendError, ObservationError
        As of a `DeepLinearNetwork`, or if the bias or the scale do not fit.

    References
    ----------
    .. [1] Kwon et al., AISTATS 2024 (arXiv 2311.05061), sections 2, 3 and the experiments with nonlinear networks.
    """

    weights: tuple[Array, ...]
    bias: Array | None = None
    outer_scale: float = 1.0

    def __post_init__(self) -> None:
        weights = real_weights(self.weights)
        object.__setattr__(self, "weights", weights)
        object.__setattr__(self, "bias", checked_bias(self.bias, weights[-1]))
        object.__setattr__(self, "outer_scale", float(check_option("outer_scale", self.outer_scale)))

    @property
    def depth(self) -> int:
        """L."""
        return len(self.weights)

    @property
    def sizes(self) -> tuple[int, int]:
        """(d_in, d_out)."""
        return self.weights[0].shape[1], self.weights[-1].shape[0]

    @property
    def parameters(self) -> tuple[Array, ...]:
        """(W_1, ..., W_L, bias), or (W_1, ..., W_L)."""
        return self.weights if self.bias is None else (*self.weights, self.bias)

    @property
    def rates(self) -> tuple[float, ...]:
        """`outer_scale` for W_1 and W_L, 1 for the others."""
        rates = layer_factors(self.depth, self.outer_scale).tolist()
        return tuple(rates) if self.bias is None else (*rates, 1.0)

    def with_parameters(self, parameters: Sequence[Array]) -> DeepLinearBlock:
        """The block with other weights and bias of the same shapes, unchecked."""
        weights, bias = tuple(parameters[: self.depth]), parameters[self.depth :]
        return rebuilt(self, weights=weights, bias=bias[0] if bias else None)

    def forward(self, inputs: Array) -> tuple[Array, list[Array]]:
        """Outputs, and the inputs of each W_l as cache."""
        xp = namespace(*self.weights)
        reached = [inputs]
        for weight in self.weights:
            reached.append(reached[-1] @ xp.matrix_transpose(weight))
        outputs = reached.pop()
        if self.bias is not None:
            outputs += self.bias
        return outputs, reached

    def backward(
        self, cache: list[Array], gradient: Array, to_inputs: bool = True
    ) -> tuple[Array | None, tuple[Array, ...]]:
        """Gradients with respect to the inputs, and to each of the parameters.

        Through the samples, layer by layer: with fewer samples than twice the width that is cheaper than through the products
        of weights, as `dmf.models.gradients` does it for a residual that is known as a matrix.
        """
        xp = namespace(gradient)
        gradients = [] if self.bias is None else [xp.sum(gradient, axis=0)]
        for layer in range(self.depth - 1, -1, -1):
            gradient, of_weight = linear_backward(self.weights[layer], cache[layer], gradient, to_inputs or layer > 0)
            gradients.insert(0, of_weight)
        return gradient, tuple(gradients)

    def merged(self) -> Dense:
        """One plain weight ``W_L ... W_1``, shape (d_out, d_in), and the bias."""
        return Dense(chain_product(self.weights[::-1]), self.bias)


@dataclass(frozen=True)
class Activation:
    """A function of each number.

    Parameters
    ----------
    name : {"relu", "tanh", "gelu", "silu"}
        GELU is ``x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))``, as the array API standard has no error function; SiLU is
        ``x / (1 + exp(-x))``.

    Raises
    ------
    ArgumentError
        For another name.

    References
    ----------
    .. [1] Hendrycks, Gimpel, arXiv 1606.08415, section 2 (GELU, SiLU).
    """

    name: str

    def __post_init__(self) -> None:
        check_choice("activation", self.name, ACTIVATIONS)

    sizes: ClassVar[None] = None
    parameters: ClassVar[tuple[Array, ...]] = ()
    rates: ClassVar[tuple[float, ...]] = ()

    def with_parameters(self, parameters: Sequence[Array]) -> Activation:
        """The layer itself."""
        return self

    def forward(self, inputs: Array) -> tuple[Array, Any]:
        """Outputs, and what the derivative is computed from."""
        return ACTIVATIONS[self.name][0](inputs)

    def backward(self, cache: Any, gradient: Array, to_inputs: bool = True) -> tuple[Array | None, tuple[()]]:
        """Gradient with respect to the inputs, and nothing."""
        return ACTIVATIONS[self.name][1](cache, gradient), ()

    def merged(self) -> Activation:
        """The layer itself."""
        return self


def _relu(x: Array) -> tuple[Array, Array]:
    outputs = namespace(x).maximum(x, _zero(x))
    return outputs, outputs


def _relu_backward(outputs: Array, gradient: Array) -> Array:
    return namespace(outputs).where(outputs > 0, gradient, _zero(outputs))


def _tanh(x: Array) -> tuple[Array, Array]:
    outputs = namespace(x).tanh(x)
    return outputs, outputs


def _tanh_backward(outputs: Array, gradient: Array) -> Array:
    return gradient * (1 - outputs * outputs)


def _gelu(x: Array) -> tuple[Array, tuple[Array, Array]]:
    bent = namespace(x).tanh(_GELU_SLOPE * (x + _GELU_CUBE * x * x * x))
    return 0.5 * x * (1 + bent), (x, bent)


def _gelu_backward(cache: tuple[Array, Array], gradient: Array) -> Array:
    x, bent = cache
    slope = _GELU_SLOPE * (1 + 3 * _GELU_CUBE * x * x)
    return gradient * (0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent) * slope)


def _silu(x: Array) -> tuple[Array, tuple[Array, Array]]:
    share = 0.5 * (1 + namespace(x).tanh(0.5 * x))  # the logistic function, without overflow
    return x * share, (x, share)


def _silu_backward(cache: tuple[Array, Array], gradient: Array) -> Array:
    x, share = cache
    return gradient * (share + x * share * (1 - share))


def _zero(like: Array) -> Array:
    return namespace(like).zeros((), dtype=like.dtype, device=device(like))


ACTIVATIONS: dict[str, tuple[Callable, Callable]] = {
    "relu": (_relu, _relu_backward),
    "tanh": (_tanh, _tanh_backward),
    "gelu": (_gelu, _gelu_backward),
    "silu": (_silu, _silu_backward),
}


def real_weights(weights: Sequence[Array]) -> tuple[Array, ...]:
    """Weights as a `DeepLinearNetwork` takes them, but no complex ones."""
    checked = DeepLinearNetwork(weights).weights
    real_dtype(checked[0], "weights")
    return checked


def checked_bias(bias: Array | None, weight: Array) -> Array | None:
    """`bias` if it fits the weight (d_out, d_in), or is None."""
    if bias is None:
        return None
    bias = floating(as_array(bias, "bias"), "bias")
    namespace(weight, bias)
    if tuple(bias.shape) != (weight.shape[0],):
        raise ShapeError(
            f"bias has shape {tuple(bias.shape)}, but a weight {tuple(weight.shape)} gives {weight.shape[0]} numbers. Pass a "
            f"vector of that length.",
            argument="bias",
            value=tuple(bias.shape),
            limit=(weight.shape[0],),
        )
    if bias.dtype != weight.dtype:
        raise DTypeError(
            f"bias has dtype {bias.dtype} and the weight {weight.dtype}, but a layer has one dtype. Convert one of them.",
            argument="bias",
            value=str(bias.dtype),
            limit=str(weight.dtype),
        )
    check_finite(bias, "bias", "Pass None for a layer without a bias.")
    return bias
