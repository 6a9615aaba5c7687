"""Fixtures for claims about a checkpoint of the user's own."""

import pytest


@pytest.fixture(scope="session")
def checkpoint(request):
    """The model and tokenizer behind --checkpoint; not run without it."""
    directory = request.config.getoption("--checkpoint")
    if directory is None:
        pytest.skip("needs --checkpoint DIR (a Hugging Face directory with safetensors)")
    from empirical.checkpoints import load

    return load(directory)


@pytest.fixture(scope="session")
def questions(request):
    """The questions behind --questions; not run without them."""
    path = request.config.getoption("--questions")
    if path is None:
        pytest.skip("needs --questions FILE (JSON lines with the fields question, choices, answer)")
    from empirical.checkpoints import read_questions

    return read_questions(path)
