"""Pictures of updates and of adaptation where there is little to draw."""

import numpy as np
import pytest

from dmf.experiments.adaptation_pictures import plot_adaptation
from dmf.nonlinear import SGD, UpdateDiagnostics, perceptron, train
from dmf.nonlinear.pictures import plot_updates

from nonlinear_cases import samples

pytest.importorskip("matplotlib")
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(("iterations", "step_size"), [(0, 0.1), (2, 1e-300)])
def test_updates_that_are_not_there(tmp_path, iterations, step_size):
    """Only iteration 0, or steps too small to move anything: an empty picture rather than an error or a warning."""
    data, network = samples(0), perceptron((6, 4, 3))
    diagnostics = UpdateDiagnostics(network, data, rank=2, count=4)
    run = train(network, data, SGD(step_size), iterations=iterations, callback=diagnostics)
    assert not run.history["update_singular_values"].any()
    plot_updates(tmp_path / "updates.png", "updates", diagnostics.names, run.history)
    assert (tmp_path / "updates.png").read_bytes().startswith(PNG)


@pytest.mark.parametrize("adapters", [0, 6])
def test_any_number_of_adapters(tmp_path, adapters):
    rng = np.random.default_rng(0)
    curves = {f"adapter {k}": rng.random((3, 4)) for k in range(adapters)} | {"all weights": rng.random((1, 4))}
    plot_adaptation(tmp_path / "adaptation.png", "adaptation", (2, 4, 8), [("16 samples", curves)])
    assert (tmp_path / "adaptation.png").read_bytes().startswith(PNG)
