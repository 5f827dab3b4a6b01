"""The deep linear block as a torch.nn.Module: the same numbers, gradients, starts and training as dmf's own, in any model."""

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf.nonlinear import (
    SGD,
    DeepLinearBlock,
    Network,
    block_gradient,
    compress,
    perceptron,
    spectral_start,
    train,
    with_block,
)

from helpers import code_blocks, examples, seeds
from nonlinear_cases import biased, samples

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'dmf[torch]'")

from dmf.nonlinear import torch_layers  # noqa: E402
from dmf.nonlinear.torch_layers import TorchDeepLinearBlock  # noqa: E402

torch.set_num_threads(1)  # the arrays are small, and the threads of many tests would wait for each other


def close(mine, theirs, tolerance=1e-12):
    theirs = theirs.detach().numpy() if isinstance(theirs, torch.Tensor) else theirs
    np.testing.assert_allclose(theirs, mine, rtol=0, atol=tolerance * (1 + np.abs(mine).max()))


@given(
    seed=seeds,
    sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    outer_scale=st.sampled_from([0.0, 0.5, 3.0]),
    biased=st.booleans(),
)
def test_outputs_and_gradients_equal_ours(seed, sizes, outer_scale, biased):
    """Of the inputs, every factor and the bias, by automatic differentiation; of any depth and widths."""
    rng = np.random.default_rng(seed)
    weights = tuple(rng.standard_normal((above, below)) for below, above in zip(sizes, sizes[1:], strict=False))
    layer = DeepLinearBlock(weights, rng.standard_normal(sizes[-1]) if biased else None, outer_scale)
    block = TorchDeepLinearBlock(layer)
    inputs, gradient = rng.standard_normal((5, sizes[0])), rng.standard_normal((5, sizes[-1]))
    expected, cache = layer.forward(inputs)
    at = torch.tensor(inputs, requires_grad=True)
    outputs = block(at)
    close(expected, outputs)
    outputs.backward(torch.from_numpy(gradient.copy()))
    below, gradients = layer.backward(cache, gradient.copy())
    for theirs, ours in zip([at, *block.factors, *[block.bias][:biased]], [below, *gradients], strict=True):
        close(ours, theirs.grad)
    close(layer.merged().weight, block.weight)
    close(expected, block.merge()(at))
    again = block.to_layer()
    assert again.outer_scale == outer_scale
    assert (block.in_features, block.out_features) == layer.sizes
    with torch.no_grad():
        for tensor in block.parameters():
            tensor.add_(1)
    for ours, back in zip(layer.parameters, again.parameters, strict=True):
        np.testing.assert_array_equal(ours, back)  # nothing is shared


def twins(seed, depth=3, outer_scale=2.0):
    """A network of ours with a block (not orthogonal, whose compression is not unique), samples, the model and its loss."""
    network = biased(
        with_block(perceptron((6, 7, 5, 3), "tanh", seed=seed), depth, scale=0.8, outer_scale=outer_scale), seed
    )
    data = samples(seed)
    rng = np.random.default_rng(seed)
    arrays = [a + 0.3 * rng.standard_normal(a.shape) * (a.ndim > 1) for a in network.parameters]
    network = Network(network.with_parameters(arrays).layers)
    first, _, block, _, last = network.layers
    linears = []
    for layer in (first, last):
        linear = torch.nn.Linear(*layer.sizes, dtype=torch.float64)
        linear.load_state_dict({"weight": torch.tensor(layer.weight), "bias": torch.tensor(layer.bias)})
        linears.append(linear)
    model = torch.nn.Sequential(linears[0], torch.nn.Tanh(), TorchDeepLinearBlock(block), torch.nn.Tanh(), linears[1])
    inputs, labels = torch.tensor(data.inputs), torch.tensor(data.targets)
    return network, data, model, lambda: torch.nn.functional.cross_entropy(model(inputs), labels)


@given(seed=seeds, depth=st.integers(1, 4), rank=st.integers(1, 4))
@examples(8)
def test_starts_equal_ours(seed, depth, rank):
    """The gradient with respect to the end-to-end matrix and both compressed blocks, as products."""
    network, data, model, loss = twins(seed, depth)
    before = [p.detach().clone() for p in model.parameters()]
    close(block_gradient(network, data), model[2].end_to_end_gradient(loss))
    ours = spectral_start(network, rank, data, scale=0.7, outer_scale=0.1).layers[2]
    theirs = model[2].spectral_start(rank, loss, scale=0.7, outer_scale=0.1).to_layer()
    assert theirs.outer_scale == 0.1
    assert [w.shape for w in theirs.weights] == [w.shape for w in ours.weights]
    close(ours.merged().weight, theirs.merged().weight, 1e-9)
    np.testing.assert_array_equal(ours.bias, theirs.bias)
    close(compress(network, rank).layers[2].merged().weight, model[2].compress(rank).weight, 1e-9)
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@given(seed=seeds, outer_scale=st.sampled_from([0.0, 0.5, 4.0]))
@examples(6)
def test_training_follows_ours(seed, outer_scale):
    """PyTorch's descent with `parameter_groups` ends where ours does, outer scale included, the block inside a model."""
    network, data, model, loss = twins(seed, outer_scale=outer_scale)
    ours = train(network, data, SGD(0.05, 0.9), iterations=20).network
    rest = [p for k in (0, 4) for p in model[k].parameters()]
    optimizer = torch.optim.SGD([{"params": rest}, *model[2].parameter_groups(0.05)], lr=0.05, momentum=0.9)
    for _ in range(20):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    for mine, theirs in zip(ours.layers[2].parameters, model[2].to_layer().parameters, strict=True):
        close(mine, theirs, 1e-10)
    close(Network(ours.layers)(data.inputs), model(torch.tensor(data.inputs)), 1e-10)


def test_it_stands_in_a_transformer_and_a_convolutional_network(tmp_path):
    """In place of layers that PyTorch's own code reaches into; saved, copied, merged, and trained a step."""
    torch.manual_seed(0)
    encoder = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, dtype=torch.float64)
    encoder.linear1 = TorchDeepLinearBlock.orthogonal(encoder.linear1, depth=3, scale=0.8, seed=1)
    head = TorchDeepLinearBlock.orthogonal(torch.nn.Linear(72, 3, bias=False, dtype=torch.float64), depth=2)
    patches = torch.nn.Conv2d(1, 8, 4, stride=2, dtype=torch.float64)
    model = torch.nn.Sequential(patches, torch.nn.Flatten(2), Transposed(), encoder, torch.nn.Flatten(), head)
    images = torch.randn(10, 1, 8, 8, dtype=torch.float64)
    labels = torch.arange(10) % 3
    loss = lambda: torch.nn.functional.cross_entropy(model(images), labels)  # noqa: E731
    encoder.linear1 = encoder.linear1.spectral_start(4, loss)
    assert model[5].bias is None
    assert model[5].spectral_start(2, loss).bias is None
    assert [tuple(w.shape) for w in encoder.linear1.factors] == [(4, 8), (4, 4), (16, 4)]
    with torch.no_grad():
        fast = model.eval()(images)  # PyTorch's fused encoder, which reads weight and bias
    torch.testing.assert_close(fast, model.train()(images), rtol=0, atol=1e-10)
    first = loss()
    first.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 0.01 * parameter.grad
    assert loss() < first
    torch.save(model.state_dict(), tmp_path / "model.pt")
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[5].factors[0].zero_()
    other.load_state_dict(torch.load(tmp_path / "model.pt"))
    merged = copy.deepcopy(model)
    merged[3].linear1, merged[5] = merged[3].linear1.merge(), merged[5].merge()
    torch.testing.assert_close(other(images), model(images), rtol=0, atol=0)
    torch.testing.assert_close(merged(images), model(images), rtol=0, atol=1e-10)
    assert isinstance(merged[5], torch.nn.Linear) and merged[5].bias is None


class Transposed(torch.nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


def test_the_example_of_the_module(capsys):
    (example,) = code_blocks(torch_layers.__doc__)
    assert len(example.strip().splitlines()) < 20
    space = {"__name__": "__main__"}
    exec(compile(example, "torch_layers", "exec"), space)
    loss, value = capsys.readouterr().out.split()[:2]
    assert loss == "loss" and float(value) < 0.3
    assert isinstance(space["model"][0], torch.nn.Linear)


def block(**options):
    return TorchDeepLinearBlock.orthogonal(torch.nn.Linear(6, 4), **options)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: TorchDeepLinearBlock.orthogonal(torch.nn.ReLU()), dmf.errors.ArgumentError, "ReLU"),
        (lambda: TorchDeepLinearBlock.orthogonal(torch.nn.Linear(6, 4).half()), dmf.errors.DTypeError, "float16"),
        (lambda: block(depth=0), dmf.errors.ArgumentError, "depth=0"),
        (lambda: block(outer_scale=-1.0), dmf.errors.ArgumentError, "outer_scale=-1"),
        (lambda: block().compress(5), dmf.errors.RankError, "rank=5"),
        (lambda: block().spectral_start(5, lambda: torch.zeros(())), dmf.errors.ArgumentError, "does not depend"),
        (lambda: block().spectral_start(2, lambda: torch.ones(2, requires_grad=True).sum()), dmf.errors.ArgumentError, "loss()"),
    ],
)  # fmt: skip
def test_bad_arguments(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
