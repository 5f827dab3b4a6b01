"""A wrong line in each part that came from a related system: the tests of that part have to fail.

The package is copied, one place of it changed, and the tests run on the copy; unchanged, they have to pass.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import dmf

ROOT = Path(__file__).parents[2]
MUTANTS = {  # part: (file, its tests, what stands there, what is put there)
    "kernels of convolutions: components above a share of the largest": (
        "nonlinear/convolutions.py",
        "unit/nonlinear/test_convolutions.py",
        "visible_rank(values, (unfolding.shape[0], unfolding.shape[1]))[0]",
        "int(np.sum(values > 0.3 * values[0]))",
    ),
    "codec: steps that know nothing of the noise": (
        "recovery/codec.py",
        "unit/recovery/test_codec.py",
        "_Side(mine, noise * np.sqrt(",
        "_Side(mine, np.sqrt(",
    ),
    "oblique projections: of the snapshots alone": (
        "models/projections.py",
        "unit/models/test_projections.py",
        "product = xp.matrix_transpose(g) @ x",
        "product = xp.matrix_transpose(x) @ x",
    ),
    "biorthogonal layers: the encoder bends as the decoder does": (
        "nonlinear/autoencoders.py",
        "unit/nonlinear/test_autoencoders.py",
        "x = _bent(before, -1)",
        "x = _bent(before, 1)",
    ),
    "blocks of components: a start in other frames": (
        "models/initialize.py",
        "paper/test_theory_components.py",
        "balanced_network(u, 0 * s + 1, vt, depth)",
        "balanced_network(u[::-1, :], 0 * s + 1, vt, depth)",
    ),
    "tables together: shared where they should not": (
        "completion/together.py",
        "unit/completion/test_together.py",
        'errors["apart"] < errors["together"]',
        'errors["apart"] > errors["together"]',
    ),
    "tied layers: the gradient of one of them": (
        "solvers/bench.py",
        "unit/solvers/test_tied.py",
        "sum(gradients[2:-1], gradients[1])",
        "gradients[1]",
    ),
    "updates: no component of their own for new columns": (
        "recovery/updates.py",
        "unit/recovery/test_updates.py",
        "        if number(s[0]) <= edge:\n",
        "        if number(s[0]) > edge:\n",
    ),
    "outliers: what fits is doubted": (
        "solvers/robust.py",
        "unit/completion/test_outliers.py",
        "1 / (1 + xp.exp(-xp.clip(",
        "1 / (1 + xp.exp(xp.clip(",
    ),
    "singular vectors: turned the other way": (
        "theory/singular_vectors.py",
        "paper/test_theory_singular_vectors.py",
        "turns = [-(h * s",
        "turns = [(h * s",
    ),
    "distances: points beside the hyperboloid": (
        "completion/distances.py",
        "unit/completion/test_distances.py",
        "height = np.sqrt(1 + np.sum(",
        "height = np.sqrt(2 + np.sum(",
    ),
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A folder with a copy of the package."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(Path(dmf.__file__).parent, folder / "dmf")  # with the compiled kernels
    return folder


def outcome(copy, tests):
    """Exit code of the tests on the copy: 0 passed, 1 failed; all else is no answer."""
    environment = os.environ | {"PYTHONPATH": str(copy)}
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=unshrunk"]
    command = [sys.executable, "-P", "-m", "pytest", *options, str(ROOT / "tests" / tests)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200)
    if done.returncode == 5:
        pytest.skip("its tests need a package that is not installed")
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode


@pytest.mark.campaign
@pytest.mark.parametrize("part", MUTANTS)
def test_a_wrong_line_is_noticed(part, copy):
    file, tests, right, wrong = MUTANTS[part]
    assert outcome(copy, tests) == 0
    path = copy / "dmf" / file
    source = path.read_text()
    assert source.count(right) == 1
    path.write_text(source.replace(right, wrong))
    try:
        assert outcome(copy, tests) == 1
    finally:
        path.write_text(source)
