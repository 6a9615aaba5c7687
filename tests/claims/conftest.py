"""Fixtures for claims about a checkpoint of the user's own."""

import os
from pathlib import Path

import pytest

from empirical.checkpoints import Lacks
from reports.randomness import seed_for

FEWEST_QUESTIONS = 10
"""With fewer, not even a unanimous sign test reaches the level that these claims declare."""
SECONDS = 3600
"""Time limit of each of these tests: some seconds a question on one core for a model of a billion parameters."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("checkpoint"):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A claim that speaks of what the model lacks is not run."""
    try:
        return (yield)
    except Lacks as lacking:
        pytest.skip(f"model has no {lacking}")


@pytest.fixture(scope="session")
def checkpoint(request):
    """The model, tokenizer and text behind --checkpoint; not run without it."""
    option = request.config.getoption
    if option("--checkpoint") is None:
        pytest.skip("needs --checkpoint DIR (a Hugging Face directory with safetensors)")
    import torch

    from empirical.checkpoints import load, look

    if "PYTEST_XDIST_WORKER" not in os.environ:  # alone, it may use the cores; mostly there are two threads to each
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    source = look(option("--checkpoint"), device=option("--device"), dtype=option("--dtype"))
    text = None if option("--text") is None else Path(option("--text")).read_text("utf-8")
    return load(source, text=text, seed=seed_for(option("--suite-seed"), "checkpoint"))


@pytest.fixture(scope="session")
def questions(request, checkpoint):
    """The questions behind --questions; not run without them, or on a model that predicts no next token."""
    path = request.config.getoption("--questions")
    if path is None:
        pytest.skip("needs --questions FILE (JSON lines with the fields question, choices, answer)")
    if not checkpoint.source.predicts:
        pytest.skip("model has no next-token distribution: it is an encoder")
    from empirical.questions import read_questions

    read = read_questions(path)
    if len(read) < FEWEST_QUESTIONS:
        pytest.skip(f"needs at least {FEWEST_QUESTIONS} questions, {path} has {len(read)}")
    return read
