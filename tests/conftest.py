import os
from pathlib import Path

# Matrices here are small, and tests run side by side: BLAS threads would wait for one another. Read when NumPy is loaded, here
# and in the programs that tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings

# Kernels are compiled in the first example, so examples have no deadline.
settings.register_profile("dmf", deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("thorough", settings.get_profile("dmf"), max_examples=150)
settings.register_profile("unshrunk", settings.get_profile("dmf"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("dmf")


def pytest_collection_modifyitems(items):
    """Suites that run over array libraries have the name of the library in their ids."""
    for item in items:
        if "cupy" in getattr(getattr(item, "callspec", None), "id", "").split("-"):
            item.add_marker(pytest.mark.gpu)


def pytest_ignore_collect(collection_path, config):
    """Where the slow tests are left out they are not imported either."""
    return True if collection_path.name == "slow" and "not slow" in config.option.markexpr else None


@pytest.fixture(autouse=True)
def small_problems_stay_on_the_device(request, monkeypatch):
    """Tests of a device solve small problems there, which users' calls move to the host."""
    if request.node.get_closest_marker("gpu"):
        monkeypatch.setattr("dmf.completion.placement.HOST_ENTRIES", 0)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def reference_folder():
    """Trajectories of an independent implementation, kept outside the repository."""
    folder = Path(os.environ.get("DMF_REFERENCE", Path(__file__).parents[2] / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip(f"no reference trajectories: the folder {folder} is absent (set DMF_REFERENCE)")
    return folder
