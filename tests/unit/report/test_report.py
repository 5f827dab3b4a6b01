"""Reports: one file that needs no other, or one picture; pictures of recoveries of every kind are drawn without a warning."""

import html
import re
from dataclasses import replace

import numpy as np
import pytest

import dmf
from dmf.errors import FileError
from dmf.report.page import write_report
from dmf.report.pictures import plot_rank_path

PNG = b"\x89PNG\r\n\x1a\n"


def entries(noise, mean=0.0):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((40, 2)) @ rng.standard_normal((2, 30)) + mean * (3 + rng.standard_normal((40, 1)))
    return dmf.SampledEntries.from_dense(
        np.where(rng.random(matrix.shape) < 0.5, matrix + noise * rng.standard_normal(matrix.shape), np.nan)
    )


@pytest.fixture(scope="module", params=["exact", "noisy", "offsets", "zero", "factorized"])
def recovery(request):
    match request.param:
        case "zero":
            return dmf.complete(entries(0).with_values(np.zeros(entries(0).n_measurements)))
        case "factorized":
            return dmf.factorize(np.outer(np.arange(5.0), np.ones(4)))
        case "offsets":
            return dmf.complete(entries(0.1, 1.0), offsets=True)
    return dmf.complete(entries(0.1 if request.param == "noisy" else 0))


def test_html_needs_no_other_file_and_no_script(recovery, tmp_path):
    path = tmp_path / "report.html"
    write_report(path, recovery, {"file": "<b>&.csv", "held-out RMSE": 0.123456})
    text = path.read_text()
    assert "&lt;b&gt;&amp;.csv" in text and "0.1235" in text
    assert "data:image/png;base64," in text
    assert not re.search(r"<script|https?:|<link", text)
    assert "versions" in text and html.escape(recovery.message) in text


def test_the_same_as_one_picture(tmp_path):
    recovery = dmf.complete(entries(0.1))
    write_report(tmp_path / "report.png", recovery, {})
    write_report(tmp_path / "short.png", replace(recovery, observations=None), {})
    assert (tmp_path / "report.png").read_bytes().startswith(PNG)
    assert (tmp_path / "short.png").read_bytes().startswith(PNG)


@pytest.mark.slow
def test_held_out_entries_add_coverage_and_a_rank_path_its_own_panel(tmp_path):
    path = tmp_path / "report.html"
    recovery = dmf.complete(entries(0.1), holdout=0.2, bounds=(-4, np.inf))
    write_report(path, recovery, {}, dmf.completion.rank_path(entries(0.1), 3))
    text = path.read_text()
    assert re.search(r"[89]\d\.\d% \+- [1-9]\.\d% of one half of the held-out entries lie in 90% intervals", text)
    assert f"residuals of {recovery.heldout.residuals.size} held-out entries" in text
    assert "rank path" in text and "-4 to inf" in text
    few = replace(recovery.heldout, residuals=recovery.heldout.residuals[:39])
    write_report(path, replace(recovery, heldout=few), {})
    assert "of one half of the held-out entries" not in path.read_text()  # too few for coverage


def test_a_noise_level_that_is_unknown(tmp_path):
    """NaN: not finite when the model file was written."""
    recovery = dmf.factorize(np.eye(3))
    recovery = replace(recovery, found=replace(recovery.found, exact=False, noise=np.nan))
    write_report(tmp_path / "r.html", recovery, {})
    assert "<td>noise</td><td>-</td>" in (tmp_path / "r.html").read_text()


def test_other_suffixes_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"its suffix is '.pdf', but a report is .html or .htm or .png"):
        write_report(tmp_path / "r.pdf", dmf.factorize(np.eye(3)), {})


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_picture_of_a_rank_path(noise, tmp_path):
    plot_rank_path(tmp_path / "rank.png", "ranks", dmf.completion.rank_path(entries(noise), 4))
    assert (tmp_path / "rank.png").read_bytes().startswith(PNG)
