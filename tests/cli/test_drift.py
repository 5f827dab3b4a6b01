"""dmf complete and dmf predict with a column of times, in this process."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

import dmf
from dmf_cli.commands import program


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Entries whose rows rise and fall over 1,000 seconds, some lines without a value, and a model of them."""
    path, rng = tmp_path_factory.mktemp("drift"), np.random.default_rng(0)
    rows, cols = np.divmod(rng.choice(80 * 60, 2_400, replace=False), 60)
    times = rng.uniform(0, 1_000, rows.size)
    truth = np.sin(times / 100 + rng.uniform(0, 6, 80)[rows]) + rng.standard_normal(80)[rows]
    values = truth + 0.2 * rng.standard_normal(rows.size)
    lines = [f"u{i},f{j},{v:.4f},{t:.3f}" for i, j, v, t in zip(rows, cols, values, times, strict=True)]
    for k in range(100):
        lines[k] = lines[k].replace(f"{values[k]:.4f}", "")
    (path / "r.csv").write_text("\n".join(["user,film,stars,when", *lines]))
    (path / "truth.json").write_text(json.dumps(truth[:100].tolist()))
    done = run(
        "complete", path / "r.csv", "--time", "when", "--offsets", "-o", path / "full.csv", "--model", path / "m.npz"
    )
    assert "rows drift with time" in done.output and "time in 'when'" in done.output
    return path


def run(*arguments, code=0):
    done = CliRunner().invoke(program, [str(a) for a in arguments])
    assert done.exit_code == code, done.output
    return done


def column(path, name, of=float):
    with path.open() as file:
        return [of(line[name]) for line in csv.DictReader(file)]


def test_lines_without_a_value_are_filled_and_predicted_for_their_times(folder):
    """An error far below that of the same model without times, by both ways to the same numbers, within intervals."""
    truth = np.array(json.loads((folder / "truth.json").read_text()))
    filled = np.array(column(folder / "full.csv", "stars"))[:100]
    told = run(
        "predict", folder / "m.npz", folder / "r.csv", "--time", "when", "--interval", "0.9", "-o", folder / "p.csv"
    )
    assert "the mean is predicted" not in told.output
    predicted, low, high = (np.array(column(folder / "p.csv", name))[:100] for name in ("prediction", "low", "high"))
    np.testing.assert_allclose(filled, predicted, atol=1e-4)
    told = run("predict", folder / "m.npz", folder / "r.csv", "-o", folder / "mean.csv")
    assert "without times of the pairs (--time) the mean is predicted" in told.output
    without = np.array(column(folder / "mean.csv", "prediction"))[:100]
    assert np.std(filled - truth) < 0.6 * np.std(without - truth)
    assert np.mean((low < truth) & (truth < high)) > 0.85


def test_the_report_says_which_rows_or_columns_drift(folder):
    drift = json.loads((folder / "m.json").read_text())["drift"]
    assert list(drift) == ["rows"] and 20 < drift["rows"]["scales"][0] < 1_000
    assert dmf.load(folder / "m.npz").drift.summary() == drift


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["predict", "m.npz", "r.csv", "--interval", "0.9", "-o", "x.csv"], 1, "on the command line --time"),
        (["predict", "m.npz", "--top", "3", "--time", "when", "-o", "x.csv"], 2, "--time is about PAIRS"),
        (["complete", "r.csv", "--time", "when", "--feedback", "implicit", "-o", "x.npz"], 1, "Leave time out"),
        (["complete", "r.csv", "--time", "when", "--format", "table", "-o", "x.npz"], 1, "times"),
        (["complete", "r.csv", "--time", "film", "-o", "x.npz"], 1, "the time (column 2) is"),
    ],
)
def test_where_times_have_no_place_the_way_out_is_told(folder, monkeypatch, arguments, code, told):
    monkeypatch.chdir(folder)
    assert told in run(*arguments, code=code).output
    assert not (folder / "x.npz").exists() and not (folder / "x.csv").exists()


def test_times_for_a_model_without_drift_are_told_to_change_nothing(folder, tmp_path):
    run("complete", folder / "r.csv", "-o", tmp_path / "m.npz")
    told = run("predict", tmp_path / "m.npz", folder / "r.csv", "--time", "when", "-o", tmp_path / "p.csv")
    assert "holds no drift" in told.output
