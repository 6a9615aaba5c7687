"""A process of its own for what compiles kernels: where tests run without a GPU, kernels are the interpreter's."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_apart(script, *arguments):
    """What a Python script prints, without Triton's interpreter; arguments reach it as JSON."""
    compiling = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", script, *map(json.dumps, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=compiling)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout
