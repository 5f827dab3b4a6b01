"""Kernels are compiled once, whatever the number of processes that need them."""

import subprocess
import sys

import pytest

KERNEL = """
from dmf.kernels.jit import jit

@jit()
def twice(x):
    return 2 * x
"""
CALL = """
import kernel
print("ready", flush=True)
input()
kernel.twice(1.0)
print(sum(kernel.twice.stats.cache_misses.values()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked on Windows")
def test_of_two_processes_that_need_a_kernel_at_once_one_compiles_it(tmp_path):
    (tmp_path / "kernel.py").write_text(KERNEL)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": tmp_path}
    processes = [subprocess.Popen([sys.executable, "-c", CALL], **pipes) for _ in range(2)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 2
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert sorted(process.communicate()[0] for process in processes) == ["0\n", "1\n"]
