"""The paper's experiments at their small size, as commands: tables, pictures, numbers."""

import json
from pathlib import Path

import numpy as np
import pytest

from dmf.experiments.catalogue import EXPERIMENTS

from cli.program import as_json

PNG = b"\x89PNG\r\n\x1a\n"


def test_demo(dmf_program, tmp_path):
    """The compressed network needs fewer iterations and parameters, and ends at no larger an error."""
    report = as_json(dmf_program("demo", "--json", "-o", "picture.png"))
    original, compressed = report["table"]
    assert original["outcome"] == compressed["outcome"] == "TOLERANCE"
    assert compressed["iterations"] < original["iterations"] / 2
    assert compressed["parameters"] == 2100 and original["parameters"] == 30_000
    assert compressed["error"] < 2e-5 and original["error"] < 2e-5
    assert (tmp_path / "picture.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    "experiment", ["completion", "depth", pytest.param("factorization", marks=pytest.mark.campaign)]
)
def test_published_numbers(experiment):
    """The published numbers of iterations within 10 %, those of original networks within 15."""
    claims = [claim for claim in EXPERIMENTS[experiment]().claims if "iterations" in claim.what]
    assert claims
    assert {claim.what: claim.verdict for claim in claims} == {claim.what: "agrees" for claim in claims}


@pytest.mark.parametrize(
    "experiment", ["power", "burer-monteiro", "initialisations", "compressed-start", "depth-and-width"]
)
def test_small_versions_show_the_same_in_kind(dmf_program, tmp_path, experiment):
    dmf_program("reproduce", experiment, "--small", "-o", tmp_path)
    assert (tmp_path / f"{experiment}.png").read_bytes().startswith(PNG)
    numbers = json.loads((tmp_path / f"{experiment}.json").read_text())
    assert all(claim["verdict"] == "same in kind" for claim in numbers["claims"] if claim["published"])
    if experiment == "compressed-start":
        found = {claim["what"]: claim["ours"] for claim in numbers["claims"]}
        assert found["iterations, compressed start at 0.1 over original"] < found["iterations, narrow over original"]
        assert (
            found["error at the end, compressed start at 0.1"] < 1e-4 < found["error at the end, compressed start at 0"]
        )
    if experiment == "depth-and-width":
        errors = {row["network"]: row["error"] for row in numbers["table"]}
        assert errors["depth 3, 30% seen"] < 1e-3 < errors["depth 2, 30% seen"]
    if experiment == "power":
        assert all(curve[side][-1] > 0.99 for curve in numbers["curves"] for side in ("left", "right"))


@pytest.mark.parametrize("experiment", ["completion", "sensing"])
def test_reproduce_small(dmf_program, tmp_path, experiment):
    """The paper's claim: with the compressed network no larger an error, from fewer parameters."""
    dmf_program("reproduce", experiment, "--small", "-o", tmp_path)
    assert (tmp_path / f"{experiment}.png").read_bytes().startswith(PNG)
    table = {row["network"]: row for row in json.loads((tmp_path / f"{experiment}.json").read_text())["table"]}
    assert table["compressed"]["error"] <= table["original"]["error"] * 1.01
    assert table["compressed"]["parameters"] < table["original"]["parameters"] / 2


@pytest.mark.parametrize("problem", ["factorization", "completion", "sensing"])
def test_dynamics(dmf_program, tmp_path, problem):
    """Large singular values first, near the predicted times; the compressed network ahead; eight pictures."""
    report = as_json(dmf_program("dynamics", "--problem", problem, "--size", 30, "--rank", 2, "-o", tmp_path, "--json"))
    assert len(report["pictures"]) == 8
    for picture in report["pictures"]:
        assert Path(picture).read_bytes().startswith(PNG)
    times = np.array([[row["predicted"], row["original"], row["compressed"]] for row in report["table"]])
    assert (np.diff(times, axis=0) > 0).all()
    assert (times[:, 2] <= times[:, 1]).all()
    np.testing.assert_allclose(times[:, 2], times[:, 0], rtol=0.25)
    numbers = json.loads((tmp_path / f"dynamics-{problem}.json").read_text())
    assert set(numbers["histories"]) == {"original", "compressed"}
    if problem == "factorization":
        assert report["ordering"].startswith("compressed <= original held")


@pytest.mark.parametrize("protocol", [(), ("--published",)], ids=["fair", "published"])
def test_digits(protocol, dmf_program, tmp_path):
    pytest.importorskip("sklearn", reason="the digits come with scikit-learn")
    report = as_json(dmf_program("reproduce", "fashion-mnist", "--small", "--json", *protocol))
    assert report["settings"]["images"] == "digits"
    assert report["settings"]["biases"] == (not protocol)
    rows = report["table"]
    assert [row["network"] for row in rows] == ["perceptron", "deep linear block", "compressed block"]
    assert all(row["accuracy"] > (0.9 if protocol else 0.95) and row["outcome"] == "BUDGET" for row in rows)
    assert rows[1]["parameters"] > rows[0]["parameters"] > rows[2]["parameters"]
    for name in ("fashion-mnist.png", "fashion-mnist-updates.png"):
        assert (tmp_path / name).read_bytes().startswith(PNG)
    curves = json.loads((tmp_path / "fashion-mnist.json").read_text())["curves"]
    assert [curve["accuracy"][-1] for curve in curves] == [row["accuracy"] for row in rows]
    assert all(np.diff(curve["seconds"]).min() > 0 for curve in curves)
    # Updates are of low dimension: of 48 in each factor of the block, ten carry nearly everything, in full batches twenty.
    spectra = np.array(curves[1]["update_singular_values"])[-1, 1:4]
    assert (spectra[:, 20 if protocol else 10 :] ** 2).sum() < 0.05 * (spectra**2).sum()


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
