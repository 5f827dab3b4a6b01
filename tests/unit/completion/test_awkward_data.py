"""Data that nobody would choose, through every door: a finite answer by the documented rule, or one clear error."""

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import dmf
from dmf_cli.commands import program

from helpers import examples, seeds

NAN = np.nan
CELLS = [NAN, NAN, 0.0, 1.0, 1.0, -3.5, 1e-300, 1e12, 7.0]
# Each with at least one observed entry.
TABLES = {
    "one entry": [[3.0]],
    "one observed entry": [[NAN, NAN], [NAN, -2.0], [NAN, NAN]],
    "zero": [[0.0, NAN], [0.0, 0.0]],
    "a single row": [[1.0, NAN, 3.0, 4.0, NAN]],
    "a single column": [[1.0], [NAN], [3.0]],
    "a row without entries": [[1.0, 2.0, NAN], [NAN, NAN, NAN], [2.0, NAN, 1.0], [3.0, 1.0, 0.5]],
    "a column without entries": [[1.0, NAN, 2.0], [3.0, NAN, NAN], [NAN, NAN, 1.0], [4.0, NAN, 2.5]],
    "constant columns": [[5.0, 1.0, 0.0], [5.0, NAN, 0.0], [NAN, 2.0, NAN], [5.0, 4.0, 0.0]],
    "nothing missing": [[1.0, 2.0], [3.0, 4.0]],
    "huge and tiny": [[1e9, 1e-9, NAN], [NAN, 1.0, 1e9], [1e-9, NAN, 1.0]],
}
FEW = ["one entry", "one observed entry", "a column without entries", "huge and tiny"]
few_tables = pytest.mark.parametrize("table", [TABLES[name] for name in FEW], ids=FEW)


def check_filled(filled, table):
    """Finite everywhere, and what was observed is kept."""
    seen = ~np.isnan(table)
    assert filled.shape == table.shape and np.isfinite(filled).all()
    np.testing.assert_array_equal(filled[seen], table[seen])


@pytest.mark.parametrize(
    ("name", "offsets"),
    [*((name, "auto") for name in TABLES), *((name, given) for name in FEW for given in (True, False))],
)
def test_complete(name, offsets):
    table = np.array(TABLES[name])
    recovery = dmf.complete(table, offsets=offsets)
    check_filled(recovery.filled(), table)
    assert np.isfinite(recovery.found.noise) and recovery.success


def test_a_table_too_small_for_a_rank_is_filled_with_what_its_rows_and_columns_share():
    """Not with zeros: offsets are judged on entries held out in turn where one tenth is too few."""
    additive = np.add.outer([10.0, 12.0, 15.0, 11.0], [0.0, 1.0, 3.0])
    table = additive.copy()
    table[1, 2] = NAN
    assert abs(dmf.complete(table).filled()[1, 2] - 15) < 1.5
    row = dmf.complete(np.array([[9.0, NAN, 11.0, 10.0]])).filled()
    assert 9 < row[0, 1] < 11
    noise = np.random.default_rng(0).standard_normal((6, 5))
    assert not dmf.complete(noise).found.offsets


@few_tables
def test_hold_outs(table):
    """Nothing is held out of a single entry; of two, one."""
    table = np.array(table)
    if np.sum(~np.isnan(table)) == 1:
        with pytest.raises(dmf.errors.ObservationError, match="Hold nothing out"):
            dmf.complete(table, holdout=0.1)
    else:
        recovery = dmf.complete(table, holdout=0.1)
        check_filled(recovery.filled(), table)
        assert recovery.heldout.count == 1 and np.isfinite(recovery.heldout.rmse)


@examples(3)
@given(seed=seeds, d1=st.integers(1, 7), d2=st.integers(1, 7), offsets=st.sampled_from(["auto", True, False]))
def test_any_small_table(seed, d1, d2, offsets):
    """Cells drawn from missing, equal, tiny and huge ones; with weights, too."""
    rng = np.random.default_rng(seed)
    table = rng.choice(CELLS, (d1, d2))
    table[rng.integers(d1), rng.integers(d2)] = 2.0
    check_filled(dmf.complete(table, offsets=offsets).filled(), table)
    check_filled(dmf.complete(table, offsets=offsets, weights=rng.choice([1e-3, 1.0, 50.0], (d1, d2))).filled(), table)


@pytest.mark.filterwarnings("ignore::UserWarning")  # empty columns are told, and those unlike the others
@examples(1)
@given(seed=seeds, d1=st.integers(1, 7), d2=st.integers(1, 7))
def test_any_small_table_through_the_estimators(seed, d1, d2):
    estimators = pytest.importorskip("dmf.estimators", reason="scikit-learn is not installed")
    rng = np.random.default_rng(seed)
    table = rng.choice(CELLS, (d1, d2))
    table[rng.integers(d1), rng.integers(d2)] = 2.0
    imputer = estimators.DeepMatrixCompletion()
    check_filled(imputer.fit_transform(table), table)
    check_filled(imputer.transform(table), table)
    check_filled(imputer.partial_fit(table).transform(table), table)
    model = estimators.DeepMatrixFactorization()
    assert np.isfinite(model.fit_transform(table)).all()


def test_repeated_pairs_are_measurements_of_one_entry():
    """Their mean is what the filled matrix holds; contradictory ones are noise and no error."""
    rows, cols = [0, 0, 0, 1, 1], [0, 0, 1, 0, 1]
    recovery = dmf.complete(dmf.SampledEntries(rows, cols, [1.0, 3.0, 2.0, 4.0, 4.0], (2, 2)))
    np.testing.assert_array_equal(recovery.filled(), [[2.0, 2.0], [4.0, 4.0]])


def test_frames():
    """Numbers of any kind pass; text is one clear error."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1.0, None, 3.0], "b": [1, 2, 3], "c": [True, False, True]})
    check_filled(dmf.complete(frame).filled().to_numpy(float), frame.to_numpy(float))
    with pytest.raises(dmf.errors.DTypeError, match="column 'd' holds 'x' in row 0"):
        dmf.complete(frame.assign(d=["x", "y", "z"]))


# The program, within this process: one start for many files.


def run(folder, content, *arguments):
    """Exit code, output and error of `dmf complete` on a text file."""
    path = folder / "data.csv"
    path.write_text(content)
    for old in folder.glob("out*"):
        old.unlink()
    return CliRunner().invoke(program, ["complete", str(path), *map(str, arguments)])


@few_tables
def test_the_program_on_tables(table, folder):
    """Filled by the rule, or an error that says why; never half a file."""
    table = np.array(table)
    content = "name," + ",".join(f"x{j}" for j in range(table.shape[1])) + "\n"
    content += "".join(
        f"r{i}," + ",".join("" if np.isnan(v) else repr(float(v)) for v in row) + "\n" for i, row in enumerate(table)
    )
    done = run(folder, content, "--format", "table", "-o", folder / "out.csv")
    if done.exit_code == 0:
        lines = (folder / "out.csv").read_text().splitlines()
        filled = np.array([[float(cell or "nan") for cell in line.split(",")[1:]] for line in lines[1:]])
        seen = ~np.isnan(table)
        np.testing.assert_array_equal(filled[seen], table[seen])
        known = seen.any(axis=1)[:, None] & seen.any(axis=0)
        assert np.isfinite(filled[known]).all()  # rows and columns without entries are no part of the matrix
    else:
        assert done.exit_code == 1 and done.stderr.splitlines()[-1].startswith("Error: ")
        assert "unexpected" not in done.stderr and not list(folder.glob("out*"))


def test_the_share_seen_is_one_of_positions(folder):
    """Entries that repeat make no matrix more than known."""
    done = run(folder, "a,x,1\na,x,3\na,x,2\na,y,1\nb,y,2\n", "-o", folder / "out.npz")
    assert "2 entries repeat a position" in done.output
    assert "5 entries of a 2 x 2 matrix (75.00% of its positions)" in done.output


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a,x,1\na,x,3\nb,y,2\n", ""),  # a repeated pair
        ("a,x,1\nb,x,2\nc,x,4\n", ""),  # one column
        ("a,x,2\na,y,2\nb,x,2\nb,y,2\n", ""),  # constant
        ("a,x,1\n", ""),  # a single entry
        ("a,x,1\nb,y,nan\n", ""),  # and a missing one
        ("a,x,one\nb,y,two\n", "no number"),
        ("a,x,1\nb,y,inf\n", "finite"),
        ("a,x,1\nb,,2\n", "empty"),
    ],
)
def test_the_program_on_entries(content, words, folder):
    done = run(folder, content, "--format", "entries", "-o", folder / "out.npz", "--json")
    if words:
        assert done.exit_code == 1 and words in done.stderr.splitlines()[-1], done.output
        assert not list(folder.glob("out*"))
    else:
        assert done.exit_code == 0, done.output
        assert np.isfinite(dmf.load(folder / "out.npz").product()).all()
