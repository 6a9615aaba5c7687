"""Options and fixtures for every test of the repository."""

import os
from pathlib import Path

import pytest

# One thread per process: the tests run side by side, and sums must not depend on how many threads share them.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

pytest_plugins = ["reports.plugin", "pytester"]
MEMORY = pytest.StashKey[str]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config):
    """Look at a checkpoint before anything runs: what is wrong with it is said at once, and what it will take."""
    directory = config.getoption("--checkpoint")
    if directory is None or hasattr(config, "workerinput"):
        return
    from empirical.checkpoints import look
    from empirical.questions import read_questions
    from reports.reporter import CHECKPOINT

    text, questions = config.getoption("--text"), config.getoption("--questions")
    try:
        source = look(directory, device=config.getoption("--device"), dtype=config.getoption("--dtype"))
        if text is not None:
            Path(text).read_text("utf-8")
        if questions is not None:
            read_questions(questions)
    except (OSError, ValueError, ImportError) as error:
        raise pytest.UsageError(str(error)) from error
    config.option.title = config.option.title or f"Attest: {source.name}"
    config.option.out = config.option.out or f"reports/out/{source.name.replace('/', '--')}"
    config.stash[CHECKPOINT] = f"{source}, reading {text or 'the help texts of Python'}"
    config.stash[MEMORY] = source.memory()


def pytest_report_header(config):
    memory = config.stash.get(MEMORY, None)
    return memory and f"checkpoint: {memory}"
