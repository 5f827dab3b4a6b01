"""dmf distances, within the test process."""

import csv

import numpy as np
from click.testing import CliRunner

from dmf_cli.commands import program


def test_pairs_of_names_become_a_whole_table(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 2))
    lines = [
        f"p{i},p{j},{np.linalg.norm(x[i] - x[j])}" for i in range(12) for j in range(i) if rng.random() < 0.8 or j < 3
    ]
    (tmp_path / "d.csv").write_text("\n".join(["from,to,distance", *lines]))
    out = tmp_path / "all.csv"
    done = CliRunner().invoke(
        program, ["distances", str(tmp_path / "d.csv"), "-o", str(out), "--points", str(tmp_path / "x.csv")]
    )
    assert done.exit_code == 0, done.output
    header, *rows = csv.reader(out.read_text().splitlines())
    order = [int(name[1:]) for name in header[1:]]
    found = np.array([[float(cell) for cell in row[1:]] for row in rows])
    np.testing.assert_allclose(found, np.linalg.norm(x[order][:, None] - x[order], axis=2), atol=1e-6)
    assert [row[0] for row in rows] == header[1:]
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 13


def test_negative_distances_are_told_in_one_line(tmp_path):
    (tmp_path / "d.csv").write_text("a,b,distance\np,q,-1\nq,r,2\n")
    done = CliRunner().invoke(program, ["distances", str(tmp_path / "d.csv"), "-o", str(tmp_path / "o.csv")])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    assert not (tmp_path / "o.csv").exists()
