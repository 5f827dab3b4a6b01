"""What is imported: only what is needed, so that the first answer comes soon."""

import subprocess
import sys

HEAVY = "numba", "matplotlib", "pandas", "sklearn", "dask", "scipy.optimize", "scipy.special"


def test_modules_import_no_compiler_and_no_package_that_few_calls_need():
    code = f"""
import sys
import dmf.completion, dmf.io, dmf.models, dmf.observations, dmf.recovery, dmf.solvers, dmf.tables, dmf.theory, dmf_cli.model
found = [name for name in {HEAVY} if name in sys.modules]
assert not found, found
"""
    subprocess.run([sys.executable, "-c", code], check=True)
