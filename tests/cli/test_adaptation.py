"""dmf reproduce adaptation: the table, the picture, all numbers."""

import json

import numpy as np

from cli.program import as_json, error_line


def test_adaptation_small(dmf_program, tmp_path):
    """Every adapter learns the rotated images, better with more samples; the numbers are those of the table."""
    report = as_json(dmf_program("reproduce", "adaptation", "--small", "--json"))
    assert (tmp_path / "adaptation.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    numbers = json.loads((tmp_path / "adaptation.json").read_text())
    assert "runs" not in report
    assert numbers["table"] == report["table"]
    found = {(run["adapter"], run["samples"]): np.array(run["accuracies"]) for run in numbers["runs"]}
    adapters = [name for name, _ in found if "LoRA" in name][:4]
    assert len(set(adapters)) == 4
    for name in adapters:
        few, more = found[name, 16], found[name, 64]
        assert few.shape == more.shape == (2, 3)  # ranks, seeds
        assert more.mean() > few.mean() > found["nothing trained", 16].mean() + 0.05
    for row, run in zip(report["table"], numbers["runs"], strict=True):
        accuracies = np.array(run["accuracies"])
        assert row["all ranks"].startswith(f"{accuracies.mean():.3f} ± ")
        if run["tuning"]:
            means = [np.mean(tried["accuracies"]) for tried in run["tuning"]]
            assert means == sorted(means, reverse=True)
            assert row["optimiser"] == run["tuning"][0]["optimiser"]


def test_a_folder_without_images(dmf_program, tmp_path):
    line = error_line(dmf_program("reproduce", "adaptation", "--small", "--data", tmp_path, code=1))
    assert "cannot find train-images-idx3-ubyte" in line
    assert not (tmp_path / "adaptation.json").exists()
