"""dmf together and dmf update, within the test process."""

import csv

import numpy as np
import pytest

import dmf


def write_entries(path, table, mask, rows=None):
    rows = range(len(table)) if rows is None else rows
    lines = [f"r{i},c{j},{table[k, j]}" for k, i in enumerate(rows) for j in range(table.shape[1]) if mask[k, j]]
    path.write_text("\n".join(["row,column,value", *lines]) + "\n")


def test_tables_that_share_frames_are_completed_by_name(dmf_program, tmp_path, rng):
    left, right = rng.standard_normal((30, 2)), rng.standard_normal((25, 2))
    tables = [left @ rng.standard_normal((2, 2)) @ right.T for _ in range(4)]
    for k, table in enumerate(tables):
        order = rng.permutation(30)  # names count, not places
        write_entries(tmp_path / f"t{k}.csv", table[order], rng.random(table.shape) < 0.3, order)
    done = dmf_program("together", *(f"t{k}.csv" for k in range(4)), "--rank", 2, "-o", "out")
    assert "completed together" in done.stdout
    for k, table in enumerate(tables):
        header, *rows = csv.reader((tmp_path / "out" / f"t{k}.csv").read_text().splitlines())
        for row in rows:
            expected = [table[int(row[0][1:]), int(name[1:])] for name in header[1:]]
            np.testing.assert_allclose([float(cell) for cell in row[1:]], expected, atol=1e-6)


@pytest.mark.parametrize("arguments", [("t0.csv",), ("t0.csv", "t0.csv")])
def test_one_table_or_the_same_twice_is_refused(arguments, dmf_program, tmp_path, rng):
    write_entries(tmp_path / "t0.csv", np.ones((3, 3)), np.ones((3, 3), bool))
    code = 1 if len(arguments) == 1 else 2
    done = dmf_program("together", *arguments, "--rank", 1, "-o", "out", code=code)
    assert "tables" in done.stderr or "both" in done.stderr


def test_a_model_takes_new_entries_and_rows(dmf_program, tmp_path, rng):
    table = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30)) + 0.05 * rng.standard_normal((40, 30))
    mask = rng.random(table.shape) < 0.6
    write_entries(tmp_path / "old.csv", table[:35], mask[:35])
    write_entries(tmp_path / "new.csv", table[35:], mask[35:], range(35, 40))
    dmf_program("complete", "old.csv", "--no-offsets", "-o", "m.npz", "--holdout", 0)
    dmf_program("update", "m.npz", "new.csv", "--seen", "old.csv", "-o", "u.npz")
    updated = dmf.load(tmp_path / "u.npz")
    assert updated.shape == (40, 30)
    found = updated.predict_named(["r39"] * 30, [f"c{j}" for j in range(30)])[0]
    np.testing.assert_allclose(found, table[39], atol=0.3)
    done = dmf_program("update", "m.npz", "old.csv", "--seen", "new.csv", "-o", "v.npz", code=1)
    assert "does not know" in done.stderr
    assert not (tmp_path / "v.npz").exists()
