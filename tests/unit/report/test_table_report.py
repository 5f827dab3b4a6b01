"""Reports on completed tables."""

import numpy as np
import pandas as pd

import dmf
from dmf.report import write_table_report


def test_a_report_shows_columns_and_models(tmp_path):
    rng = np.random.default_rng(0)
    x = np.where(rng.random(60) < 0.3, np.nan, rng.standard_normal(60))
    colours = np.array(["red", "green", "blue"], object)[rng.integers(0, 3, 60)]
    frame = pd.DataFrame({"income": np.exp(x), "constant": 1.0, "colour": colours, "age": -x + rng.random(60)})
    recovery = dmf.complete_table(frame)
    write_table_report(tmp_path / "report.html", recovery)
    text = (tmp_path / "report.html").read_text()
    assert text.count("<img") == 4 and "<script" not in text
    assert str(recovery.members[0].candidate) in text.replace("&#x27;", "'")
    write_table_report(tmp_path / "report.png", recovery)
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
