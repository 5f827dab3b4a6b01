"""The E-step kernel computes what its reference twin does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dmf.kernels import gaussian_rows, reference_rows
from dmf.tables.gaussian import Patterns


@pytest.mark.parametrize("learn", [True, False])
@given(
    n=st.integers(0, 12),
    d=st.integers(1, 18),
    components=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.4, 1.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_kernel_equals_reference_twin(learn, n, d, components, share, seed):
    rng = np.random.default_rng(seed)
    table = np.where(rng.random((n, d)) < share, np.nan, rng.standard_normal((n, d)))
    patterns = Patterns.of(table)
    roots = rng.standard_normal((components, d, d + 2))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(d)
    arguments = (
        table, patterns.order, patterns.starts, patterns.index, patterns.missing, rng.random(n),
        rng.dirichlet(np.ones(components)), rng.standard_normal((components, d)), covariances, learn,
    )  # fmt: skip
    expected = reference_rows.gaussian_rows(*arguments)
    for actual, wanted in zip(gaussian_rows.gaussian_rows(*arguments), expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=1e-7, atol=1e-8)
