"""Columns of one unit are told from columns of several."""

import numpy as np
import pytest

from dmf.tables.units import look_alike


@pytest.mark.parametrize("seed", range(5))
def test_matrices_of_one_unit_look_alike(seed):
    rng = np.random.default_rng(seed)
    low_rank = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 12))
    ratings = np.clip(np.round(3.5 + rng.standard_normal((40, 1)) + rng.standard_normal((1, 12))), 1, 5)
    kelvin = 280 + 8 * rng.standard_normal((40, 12)) + np.linspace(-30, 20, 12)
    for matrix in (low_rank, ratings, kelvin):
        assert look_alike(np.where(rng.random(matrix.shape) < 0.2, np.nan, matrix))[0]


def test_columns_of_different_units_do_not():
    rng = np.random.default_rng(0)
    spreads = rng.standard_normal((50, 4)) * [1, 300, 0.1, 5]
    alike, reason = look_alike(spreads)
    assert not alike and "spreads" in reason
    apart = rng.standard_normal((50, 3)) + np.array([0, 100, 5])
    alike, reason = look_alike(apart)
    assert not alike and "standard deviations apart" in reason


def test_constant_columns_say_nothing():
    assert look_alike(np.array([[1.0, 5, 2], [1.0, 5, 3]]))[0]
