"""What is called exact: the measurements fit, and no other matrix of this rank near the one found fits them, too."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from low_rank_cases import low_rank_case

import dmf
from dmf.completion import determined
from dmf.completion.determined import undetermined
from dmf.models import LowRank
from dmf.solvers import Outcome

from helpers import LIBRARIES, examples, seeds


def seen_in(matrix, *blocks):
    """The entries of a matrix in these blocks, NaN elsewhere."""
    table = np.full(matrix.shape, np.nan)
    for block in blocks:
        table[block] = matrix[block]
    return table


def is_open(recovery):
    return recovery.outcome is Outcome.UNDETERMINED and not recovery.found.exact and not recovery.success


@examples(25)
@given(seed=seeds, d1=st.integers(3, 9), d2=st.integers(3, 9), rank=st.integers(1, 3), share=st.floats(0.3, 1))
def test_it_is_what_the_rank_of_the_derivative_says(seed, d1, d2, rank, share):
    """Against the null space of the derivative of the entries by the factors, written out, whichever rows it changes."""
    rng = np.random.default_rng(seed)
    left, right = rng.standard_normal((d1, rank)), rng.standard_normal((rank, d2))
    rows, cols = np.nonzero(rng.random((d1, d2)) < share)
    assume(rows.size)
    model = LowRank.of_factors(left, right)
    u, vt = model.u, model.vt
    derivative = np.zeros((rows.size, d1 + d2, rank))
    each = np.arange(rows.size)
    derivative[each, rows], derivative[each, d1 + cols] = vt.T[cols], u[rows]
    squares, vectors = np.linalg.eigh(np.tensordot(derivative, derivative, (0, 0)).reshape(2 * [(d1 + d2) * rank]))
    assume(not np.any((squares > 1e-12) & (squares < 1e-4)))  # nearly open
    loose = undetermined(dmf.SampledEntries(rows, cols, np.ones(rows.size), (d1, d2)), model)
    assert (np.sum(squares < 1e-12) > rank**2) == (sum(map(len, loose)) > 0)
    # Nothing changes between the other rows and columns.
    for vector in vectors[:, squares < 1e-12].T:
        p, q = np.split(vector.reshape(-1, rank), [d1])
        change = np.delete(np.delete(p @ vt + u @ q.T, loose[0], axis=0), loose[1], axis=1)
        assert np.all(np.abs(change) < 1e-4)


def test_blocks_with_nothing_between_them_are_not_exact():
    """Each block is determined, but not their ratio: two blocks of a matrix of rank 1, one of them in three rows."""
    matrix = low_rank_case(0, (20, 20), 1).matrix
    recovery = dmf.complete(seen_in(matrix, np.s_[:12, :14], np.s_[12:15, 14:]))
    assert is_open(recovery)
    assert recovery.found.undetermined == (tuple(range(12, 20)), tuple(range(14, 20)))  # and five rows without entries
    joined = dmf.complete(seen_in(matrix, np.s_[:12, :14], np.s_[:15, 14:])[:15])
    assert joined.found.exact and joined.found.undetermined == ((), ())
    np.testing.assert_allclose(joined.product(), matrix[:15], atol=1e-10)


def test_blocks_joined_by_too_few_entries_are_not_exact():
    """Blocks of rank 2 can be turned against each other by a matrix of 2 x 2: four entries between them settle it."""
    case = low_rank_case(1, (24, 24), 2)
    blocks = [np.s_[:14, :14], np.s_[14:, 14:]]
    between = [np.s_[0, 15], np.s_[1, 15], np.s_[0, 16], np.s_[1, 16]]
    loose = dmf.complete(seen_in(case.matrix, *blocks, between[0]), 2)
    assert is_open(loose) and loose.found.undetermined == (tuple(range(14, 24)),) * 2
    assert "10 rows (14, 15, 16, 17, 18, and 5 more)" in loose.message
    model = LowRank.of_factors(case.left, case.right.T)
    for joints in range(1, 5):
        entries = dmf.SampledEntries.from_dense(seen_in(case.matrix, *blocks, *between[:joints]))
        rows, cols = (index.tolist() for index in undetermined(entries, model))
        # Two entries settle column 15, which then stands apart from its block.
        block = [*range(14, 24)] if joints < 4 else []
        assert rows == block and cols == [j for j in block if j != 15 or joints == 1]


def test_what_is_not_proven_is_not_exact(monkeypatch):
    """Solutions of a few passes decide nothing of two bands of rank 2 that share one column."""
    place, half = np.arange(100), 50
    seen = np.abs(place[:, None] - place) <= 3
    seen[:half, half + 1 :] = seen[half:, :half] = False
    rows, cols = np.nonzero(seen)
    model = LowRank.of_factors(*(np.random.default_rng(0).standard_normal(shape) for shape in ((100, 2), (2, 100))))
    entries = dmf.SampledEntries(rows, cols, model.entries(rows, cols), (100, 100))
    assert any(map(len, undetermined(entries, model)))
    monkeypatch.setattr(determined, "STEPS", 2)
    assert any(map(len, undetermined(entries, model)))


@pytest.mark.parametrize("rank", [1, 2])
def test_a_rank_too_high_for_joined_blocks_is_not_exact(rank):
    matrix = low_rank_case(2, (20, 20), rank).matrix
    recovery = dmf.complete(seen_in(matrix, np.s_[:10, :10], np.s_[10:, 10:], np.s_[0, 15]))
    close = np.linalg.norm(recovery.product() - matrix) < 1e-6 * np.linalg.norm(matrix)
    assert close or is_open(recovery)


@pytest.mark.parametrize("move", LIBRARIES.values(), ids=LIBRARIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_with_fewer_entries_than_the_rank_are_named(move, dtype, tmp_path):
    """An entry that is there twice is one entry."""
    case = low_rank_case(3, (30, 25), 3, oversampling=3.5)
    kept = (case.rows != 4) & (case.cols != 20)
    rows, cols = np.append(case.rows[kept], [4, 4, 4, 0]), np.append(case.cols[kept], [24, 24, 3, 20])
    entries = dmf.SampledEntries(*map(move, (rows, cols, case.matrix[rows, cols].astype(dtype))), case.matrix.shape)
    recovery = dmf.complete(entries, 3)
    assert is_open(recovery) and recovery.found.undetermined == ((4,), (20,))
    named = recovery.with_ids([f"r{i}" for i in range(30)], [f"c{j}" for j in range(25)])
    assert "1 row (r4) and 1 column (c20)" in named.message
    named.to_device("cpu").save(tmp_path / "model.npz")
    assert dmf.load(tmp_path / "model.npz").found == recovery.found


def symmetric_measurements(kind, rng, matrix, count):
    if kind == "pairs of equal vectors":
        a = rng.standard_normal((count, len(matrix)))
        return dmf.RankOneMeasurements(a, a, np.einsum("id,de,ie->i", a, matrix, a))
    operator = rng.standard_normal((count, *matrix.shape))
    operator += np.swapaxes(operator, 1, 2)
    return dmf.LinearMeasurements(operator, np.einsum("mij,ij->m", operator, matrix))


@pytest.mark.parametrize("kind", ["pairs of equal vectors", "symmetric matrices"])
@pytest.mark.parametrize("truth", ["symmetric", "not"])
def test_measurements_that_see_the_symmetric_part_alone(kind, truth, rng):
    """It is what is returned, with its own rank, and it is not called exact: another matrix has the same symmetric part."""
    left = rng.standard_normal((12, 2 if truth == "symmetric" else 1))
    matrix = left @ left.T if truth == "symmetric" else left @ rng.standard_normal((1, 12))
    recovery = dmf.sense(symmetric_measurements(kind, rng, matrix, 150))
    np.testing.assert_allclose(recovery.product(), (matrix + matrix.T) / 2, atol=1e-9 * np.linalg.norm(matrix))
    np.testing.assert_allclose(recovery.product(), recovery.product().T, atol=1e-13 * np.linalg.norm(matrix))
    assert recovery.found.symmetric and is_open(recovery) and recovery.found.rank == 2
    assert "symmetric part" in recovery.message


def test_noise_does_not_hide_that_only_the_symmetric_part_is_seen(rng):
    left = rng.standard_normal((12, 2))
    exact = symmetric_measurements("symmetric matrices", rng, left @ left.T, 300)
    recovery = dmf.sense(exact.with_values(exact.values + 0.1 * rng.standard_normal(300)))
    assert recovery.found.symmetric and recovery.found.rank == 2 and recovery.outcome is Outcome.NOISE_SETTLED
    np.testing.assert_allclose(recovery.product(), recovery.product().T, atol=1e-12)


def test_of_measurements_of_all_kinds_the_determined_are_exact(rng):
    matrix = rng.standard_normal((12, 2)) @ rng.standard_normal((2, 12))
    a, b = rng.standard_normal((2, 150, 12))
    assert dmf.sense(dmf.RankOneMeasurements(a, b, np.einsum("id,de,ie->i", a, matrix, b))).found.exact
    blind = np.einsum("id,ie->ide", a, b)
    blind[:, :, 3] = 0  # nothing is seen of this column
    recovery = dmf.sense(blind, np.einsum("mij,ij->m", blind, matrix), 2)
    assert is_open(recovery) and recovery.found.undetermined == ((), (3,))
