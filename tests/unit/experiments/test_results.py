"""Targets of the paper, and published numbers beside ours."""

import math

import numpy as np
import pytest

from dmf.errors import ArgumentError
from dmf.experiments.catalogue import EXPERIMENTS
from dmf.experiments.everything import reproduce_all
from dmf.experiments.problems import paper_target
from dmf.experiments.results import Claim, Experiment


def test_targets_take_their_triplets_from_the_top_or_evenly():
    gaussian = np.linalg.svd(np.random.default_rng(3).standard_normal((20, 20)))[1]
    for spectrum, chosen in (("top", range(5)), ("even", range(0, 10, 2))):
        values = np.linalg.svd(paper_target(20, 5, 3, spectrum))[1]
        np.testing.assert_allclose(values[:5], gaussian[list(chosen)], rtol=1e-12)
        assert values[5] < 1e-13 * values[0]
    np.testing.assert_array_equal(paper_target(20, 5, 3), paper_target(20, 5, 3, "top"))
    with pytest.raises(ArgumentError) as caught:
        paper_target(20, 5, 3, "bottom")
    assert caught.value.argument == "spectrum"


@pytest.mark.parametrize(
    ("ours", "in_kind", "verdict"),
    [
        (109, False, "agrees"),
        (92, False, "agrees"),
        (112, False, "differs"),
        (90, False, "differs"),
        (math.nan, False, "not reached"),
        (1.1, True, "same in kind"),
        (0.9, True, "the other way round"),
    ],
)
def test_verdicts(ours, in_kind, verdict):
    claim = Claim("iterations", 100.0, ours, 0.1, in_kind)
    assert claim.verdict == verdict
    assert claim.row()["ratio"] == pytest.approx(ours / 100, nan_ok=True)


def over_seeds(monkeypatch, tmp_path, numbers, published=100.0):
    """Rows of an experiment without curves whose claim has these numbers, one a seed."""

    def experiment(small, seed, progress, checkpoint):
        found = Experiment("made up", "Made up", "error", {}, small)
        found.claim("iterations", published, numbers[seed])
        return found

    monkeypatch.setitem(EXPERIMENTS, "made up", experiment)
    monkeypatch.setattr("dmf.experiments.everything.draw", lambda result, path: None)
    (row,) = reproduce_all(tmp_path, seeds=range(len(numbers)), names=("made up",))["table"]
    return row


@pytest.mark.parametrize(
    ("numbers", "median", "verdict"),
    [
        ([99.0, 104.0, 130.0], 104.0, "agrees"),
        ([99.0, 120.0, 130.0], 120.0, "within the seeds' spread"),
        ([120.0, 130.0, 140.0], 130.0, "differs"),
        ([99.0, math.nan, 101.0], 100.0, "agrees, 2 of 3 seeds reached it"),
        ([math.nan, math.nan], math.nan, "not reached"),
    ],
)
def test_claims_over_seeds(monkeypatch, tmp_path, numbers, median, verdict):
    row = over_seeds(monkeypatch, tmp_path, numbers)
    assert row["ours"] == pytest.approx(median, nan_ok=True)
    assert row["verdict"] == verdict
