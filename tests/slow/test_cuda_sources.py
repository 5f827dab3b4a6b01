"""The CUDA sources compile."""

import shutil
import subprocess

import numpy as np
import pytest

from dmf.kernels import cuda
from dmf.kernels.ridge import LEAST

# Of nvcc the doubles, which need the most registers and shared memory; of NVRTC the others.
DOUBLES = [
    ("sampled.cu", np.float64, cuda.pass_constants(cuda.WIDEST, 8)),
    ("ridge.cu", np.float64, cuda.ridge_constants(64, LEAST)),
    ("descent.cu", np.float64, {}),
    ("network.cu", np.float64, {}),
]
SINGLES = [
    ("sampled.cu", np.float32, cuda.pass_constants(4, 4)),
    ("ridge.cu", np.float32, cuda.ridge_constants(12, LEAST)),
    ("descent.cu", np.float32, {}),
    ("network.cu", np.float32, {}),
]


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
@pytest.mark.parametrize(("name", "dtype", "constants"), DOUBLES)
def test_nvcc_compiles_the_sources(name, dtype, constants, tmp_path):
    """Without a warning; no kernel needs more than 48 KiB of shared memory or spills registers."""
    (tmp_path / name).write_text(cuda.source(name))
    flags = ["-cubin", "-arch=sm_90", "-Xptxas", "-warn-spills", *cuda.options(dtype, constants.items())]
    done = subprocess.run(["nvcc", *flags, name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr


@pytest.mark.parametrize(("name", "dtype", "constants"), SINGLES)
def test_nvrtc_compiles_the_sources(name, dtype, constants):
    """What CuPy compiles with; it needs no device."""
    nvrtc = pytest.importorskip("cupy_backends.cuda.libs.nvrtc", exc_type=ImportError)
    try:
        nvrtc.getVersion()
    except Exception as error:
        pytest.skip(f"no NVRTC: {error}")
    program = nvrtc.createProgram(cuda.source(name), name, (), ())
    try:
        nvrtc.compileProgram(program, ("--gpu-architecture=sm_90", *cuda.options(dtype, constants.items())))
    except nvrtc.NVRTCError:
        pytest.fail(nvrtc.getProgramLog(program))
    assert "warning" not in nvrtc.getProgramLog(program)
