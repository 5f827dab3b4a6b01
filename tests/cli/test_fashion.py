"""dmf reproduce fashion-mnist: three networks, two pictures, all numbers."""

import json

import numpy as np
import pytest

from cli.program import as_json, error_line

PNG = b"\x89PNG\r\n\x1a\n"
pytest.importorskip("sklearn", reason="the digits come with scikit-learn")


def test_digits(dmf_program, tmp_path):
    report = as_json(dmf_program("reproduce", "fashion-mnist", "--small", "--json"))
    assert report["settings"]["images"] == "digits"
    rows = report["table"]
    assert [row["network"] for row in rows] == ["perceptron", "deep linear block", "compressed block"]
    assert all(row["accuracy"] > 0.95 and row["status"] == "budget spent" for row in rows)
    assert rows[1]["parameters"] > rows[0]["parameters"] > rows[2]["parameters"]
    for name in ("fashion-mnist.png", "fashion-mnist-updates.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
    curves = json.loads((tmp_path / "fashion-mnist.json").read_text())["curves"]
    assert [curve["accuracy"][-1] for curve in curves] == [row["accuracy"] for row in rows]
    assert all(np.diff(curve["seconds"]).min() > 0 for curve in curves)
    # Updates are of low dimension: of 48 in each factor of the block, ten carry nearly everything.
    spectra = np.array(curves[1]["update_singular_values"])[-1, 1:4]
    assert (spectra[:, 10:] ** 2).sum() < 0.05 * (spectra**2).sum()


def test_a_folder_without_images(dmf_program, tmp_path):
    line = error_line(dmf_program("reproduce", "fashion-mnist", "--data", tmp_path, code=1))
    assert "cannot find train-images-idx3-ubyte" in line
    assert list(tmp_path.iterdir()) == []


def test_data_for_another_experiment(dmf_program, tmp_path):
    done = dmf_program("reproduce", "depth", "--data", tmp_path, code=2)
    assert "only for the experiments movielens, fashion-mnist, adaptation" in done.stderr
