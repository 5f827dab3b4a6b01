"""Low-rank adapters as a torch.nn.Module, with the parameters of `dmf.nonlinear.LowRankAdapter`. Needs PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np

from dmf.arrays.backend import is_numpy
from dmf.arrays.checks import check_kind
from dmf.arrays.linalg import chain_product
from dmf.errors import ArgumentError, MissingPackageError, ShapeError
from dmf.nonlinear.adapters import LowRankAdapter, deep_lora_factors, lora_factors

try:
    import torch
except ImportError as error:
    raise MissingPackageError(
        "dmf.nonlinear.torch_adapter needs PyTorch, which is not installed. Install it with: pip install 'dmf[torch]'. "
        "dmf.nonlinear.lora and dmf.nonlinear.deep_lora do the same without it."
    ) from error


class TorchAdapter(torch.nn.Module):
    """``outputs = inputs @ (weight + W_k ... W_1)^T + bias`` in PyTorch; weight and bias are frozen.

    In place of a ``torch.nn.Linear``: ``model.head = TorchAdapter.lora(model.head, rank=8)``. The outer rate is a matter of the
    optimiser: pass it `parameter_groups`.

    Parameters
    ----------
    layer : LowRankAdapter
        Weight, bias and factors are copied; of NumPy, or of PyTorch on any device.
    """

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, layer: LowRankAdapter) -> None:
        super().__init__()
        self.outer_rate = layer.outer_rate
        self.register_buffer("weight", _tensor(layer.weight))
        self.register_buffer("bias", _tensor(layer.bias))
        trained = {id(array) for array in layer.parameters}
        self.factors = torch.nn.ParameterList(
            torch.nn.Parameter(_tensor(factor), requires_grad=id(factor) in trained) for factor in layer.factors
        )

    @classmethod
    def lora(cls, linear: torch.nn.Linear, rank: int, *, scale: float = 1.0, seed: int = 0) -> TorchAdapter:
        """Plain LoRA of a linear layer.

        Parameters
        ----------
        linear : torch.nn.Linear
            Without a bias, the adapter has one of zeros.
        rank : int, 1 <= rank <= min(in_features, out_features)
        scale : float, > 0
            See `dmf.nonlinear.lora_factors`.
        seed : int

        Raises
        ------
        RankError, ArgumentError, DTypeError
            If an argument is out of range, or the layer is no ``torch.nn.Linear`` of float32 or float64.
        """
        weight, bias = _weight_and_bias(linear)
        return cls(LowRankAdapter(weight, bias, lora_factors(weight, rank, scale=scale, seed=seed)))

    @classmethod
    def deep_lora(
        cls,
        linear: torch.nn.Linear,
        rank: int,
        gradient: torch.Tensor | None = None,
        *,
        depth: int = 3,
        scale: float = 0.1,
        outer_rate: float = 0.01,
    ) -> TorchAdapter:
        """Deep LoRA of a linear layer.

        Parameters
        ----------
        linear : torch.nn.Linear
            Without a bias, the adapter has one of zeros.
        rank : int, 1 <= rank <= min(in_features, out_features)
        gradient : tensor, shape (out_features, in_features), optional
            Of the loss with respect to the weight at the first batch; ``linear.weight.grad`` unless given, as
            ``loss.backward()`` leaves it.
        depth, scale, outer_rate
            See `dmf.nonlinear.deep_lora`.

        Raises
        ------
        RankError, ArgumentError, ShapeError, DTypeError
            If an argument is out of range, there is no gradient, or the layer is no ``torch.nn.Linear`` of float32 or float64.
        """
        weight, bias = _weight_and_bias(linear)
        gradient = linear.weight.grad if gradient is None else gradient
        if gradient is None:
            raise ArgumentError(
                "gradient=None and the weight has no gradient, but Deep LoRA starts in its singular vectors. Run "
                "loss.backward() on the first batch, or pass gradient=.",
                argument="gradient",
            )
        if gradient.shape != weight.shape:
            raise ShapeError(
                f"gradient has shape {tuple(gradient.shape)}, but the weight {tuple(weight.shape)}. Pass the gradient of the "
                "loss with respect to the weight.",
                argument="gradient",
                value=tuple(gradient.shape),
                limit=tuple(weight.shape),
            )
        factors = deep_lora_factors(gradient.detach(), rank, depth=depth, scale=scale)
        return cls(LowRankAdapter(weight, bias, factors, outer_rate))

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs (..., d_out) for inputs (..., d_in)."""
        reached = inputs
        for factor in self.factors:
            reached = torch.nn.functional.linear(reached, factor)
        return torch.nn.functional.linear(inputs, self.weight, self.bias) + reached

    def parameter_groups(self, step_size: float) -> list[dict[str, Any]]:
        """Groups of parameters for an optimiser of ``torch.optim``, with `outer_rate` times the step for the outer factors.

        Parameters
        ----------
        step_size : float, > 0
            Of the factors between; of all of them in plain LoRA.
        """
        outer, inner = [self.factors[0], self.factors[-1]], list(self.factors[1:-1])
        groups = [(outer, self.outer_rate * step_size), (inner, step_size)]
        return [{"params": params, "lr": rate} for params, rate in groups if params and rate > 0]

    def to_layer(self) -> LowRankAdapter:
        """The same as a layer of dmf, with NumPy arrays: copies."""
        weight, bias, *factors = (
            tensor.detach().cpu().numpy().copy() for tensor in (self.weight, self.bias, *self.factors)
        )
        return LowRankAdapter(weight, bias, tuple(factors), self.outer_rate)

    def merge(self) -> torch.nn.Linear:
        """A plain linear layer with the weight ``weight + W_k ... W_1``, for inference."""
        d_out, d_in = self.weight.shape
        linear = torch.nn.Linear(d_in, d_out, device=self.weight.device, dtype=self.weight.dtype)
        with torch.no_grad():
            linear.weight.copy_(self.weight + chain_product([*self.factors][::-1]))
            linear.bias.copy_(self.bias)
        return linear


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array)) if is_numpy(array) else array.detach().clone()


def _weight_and_bias(linear: Any) -> tuple[torch.Tensor, torch.Tensor]:
    check_kind("linear", linear, torch.nn.Linear, "Pass one of the model's layers of torch.nn.Linear.")
    weight = linear.weight.detach()
    return weight, weight.new_zeros(weight.shape[0]) if linear.bias is None else linear.bias.detach()
