"""Options and fixtures for every test of the repository."""

import os

# One thread per process: the tests run side by side, and sums must not depend on how many threads share them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

pytest_plugins = ["reports.plugin", "pytester"]


def pytest_addoption(parser):
    group = parser.getgroup("attest checkpoint", "claims about a checkpoint of your own")
    group.addoption("--checkpoint", metavar="DIR", help="a Hugging Face directory with safetensors and a tokenizer")
    group.addoption("--questions", metavar="FILE", help="JSON lines with the fields question, choices, answer")
