"""Fixtures for claims about a checkpoint of the user's own."""

import pytest

FEWEST_QUESTIONS = 10
"""With fewer, not even a unanimous sign test reaches the level that these claims declare."""
SECONDS = 3600
"""Time limit of each of these tests: some seconds a question on one core for a model of a billion parameters."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "checkpoint" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SECONDS))


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

    read = read_questions(path)
    if len(read) < FEWEST_QUESTIONS:
        pytest.skip(f"needs at least {FEWEST_QUESTIONS} questions, {path} has {len(read)}")
    return read
