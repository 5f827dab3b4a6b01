"""Arrays of JAX and PyTorch in the memory of the host: whole calls find what they find on NumPy arrays, and return their kind."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from low_rank_cases import low_rank_case

import dmf
from dmf.arrays.backend import to_host


def jax_array():
    jax = pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
    jax.config.update("jax_enable_x64", True)
    return jax.numpy.asarray


def torch_array():
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install 'dmf[torch]'")
    return lambda host: torch.asarray(np.array(host))


@pytest.fixture(scope="module", params=[jax_array, torch_array], ids=["jax", "torch"])
def move(request):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, as they are imported
        return request.param()


@pytest.fixture(scope="module")
def case():
    return low_rank_case(0, (24, 20), rank=2, oversampling=3.0)


def table(case, noise=0.0):
    seen = np.full(case.matrix.shape, np.nan)
    seen[case.rows, case.cols] = case.values + noise * np.random.default_rng(0).standard_normal(case.values.size)
    return seen


def assert_alike(recovery, other, move):
    """The second on arrays of the library, in the dtype of the first."""
    product = other.product()
    assert type(product) is type(move(np.ones(1))) and to_host(product).dtype == recovery.product().dtype
    np.testing.assert_allclose(to_host(product), recovery.product(), atol=1e-9 * np.max(np.abs(recovery.product())))
    assert [getattr(other.found, name) for name in ("rank", "exact", "offsets")] == [
        getattr(recovery.found, name) for name in ("rank", "exact", "offsets")
    ]


def test_complete(move, case):
    shapes = []
    seen = table(case, 0.1)
    options = {"rank": 2, "holdout": 0.2, "offsets": True}
    there = dmf.complete(move(seen), **options, callback=lambda at: shapes.append(type(at.model.u)))
    here = dmf.complete(seen, **options)
    assert_alike(here, there, move)
    assert set(shapes) == {type(move(seen))}
    assert there.heldout.rmse == here.heldout.rmse
    np.testing.assert_allclose(to_host(there.filled()), here.filled(), rtol=1e-9)
    index = np.array([3]), np.array([4])
    np.testing.assert_allclose(to_host(there.predict(*map(move, index))), here.predict(*index), rtol=1e-9)
    exact = dmf.complete(move(table(case)))
    assert exact.found.exact
    np.testing.assert_allclose(to_host(exact.product()), case.matrix, atol=1e-10)


def test_factorize_and_sense(move, case, rng):
    assert_alike(dmf.factorize(case.matrix), dmf.factorize(move(case.matrix)), move)
    assert to_host(dmf.factorize(move(case.matrix.astype(np.float32)), 2).product()).dtype == np.float32
    operator, matrix = rng.standard_normal((100, 12, 8)), rng.standard_normal((12, 1)) @ rng.standard_normal((1, 8))
    values = np.tensordot(operator, matrix, 2)
    assert_alike(dmf.sense(operator, values), dmf.sense(move(operator), move(values)), move)
    a, b = operator[:, :, 0], operator[:, 0, :]
    values = np.einsum("id,de,ie->i", a, matrix, b)
    pairs = [dmf.RankOneMeasurements(to(a), to(b), to(values)) for to in (np.asarray, move)]
    assert_alike(*map(dmf.sense, pairs), move)


def test_an_operator_that_only_knows_its_own_arrays(move, rng):
    """It cannot be moved, and is computed with as it is."""
    operator, matrix = move(rng.standard_normal((40, 12))), np.outer(rng.standard_normal(4), rng.standard_normal(3))

    class Own:
        shape = (4, 3)

        def forward(self, matrix):
            return operator @ matrix.reshape(-1)

        def adjoint(self, weights):
            return (weights @ operator).reshape(4, 3)

    recovery = dmf.sense(Own(), operator @ move(matrix.ravel()), 1)
    assert type(recovery.product()) is type(operator) and recovery.found.exact
    np.testing.assert_allclose(to_host(recovery.product()), matrix, atol=1e-9)


@pytest.mark.parametrize("kind", ["full", "entries"])
def test_gradient_descent(move, case, kind):
    def trained(to):
        if kind == "full":
            observations = dmf.FullMatrix(to(case.matrix))
            begin = dmf.orthogonal_network((24, 20), 3, 0.3, like=to(case.matrix))
        else:
            observations = dmf.SampledEntries.from_dense(to(table(case)))
            begin = dmf.spectral_network(observations, 2)
        return dmf.gradient_descent(observations, begin, 0.1, iterations=5)

    here, there = trained(np.asarray), trained(move)
    np.testing.assert_allclose(there.history.loss, here.history.loss, rtol=1e-9)
    assert type(there.network.product()) is type(move(np.ones(1)))


def test_jax_without_float64_is_refused():
    pytest.importorskip("jax", reason="JAX is not installed: pip install jax")
    code = """
import jax.numpy, dmf
try:
    dmf.complete(jax.numpy.ones((3, 3)))
except dmf.errors.BackendError as error:
    assert "jax_enable_x64" in str(error)
else:
    raise SystemExit("no error")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
