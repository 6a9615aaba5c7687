"""Fixtures for claims about a checkpoint of the user's own, and for those about the times of kernels."""

import os
from functools import cache
from pathlib import Path

import pytest

from benchmarks.records import Absent, RecordError, to_judge_by
from empirical.checkpoints import Lacks
from reports.randomness import seed_for

FEWEST_QUESTIONS = 10
"""With fewer, not even a unanimous sign test reaches the level that these claims declare."""
SECONDS = 3600
"""Time limit of each of these tests: some seconds a question on one core for a model of a billion parameters, or the
times of a kernel in all its cases, of which the first that asks for them waits for all."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("checkpoint") or "bench" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """A claim that speaks of what the model lacks, or of what was not timed, is not run."""
    try:
        return (yield)
    except Lacks as lacking:
        pytest.skip(f"model has no {lacking}")
    except Absent as absent:
        pytest.skip(str(absent))


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


@pytest.fixture(scope="session")
def times(request, tmp_path_factory):
    """Name of an operation to its record: of --benchmarks, or measured by the first process that asks, on a GPU."""
    torch = pytest.importorskip("torch", reason="needs torch")
    kept, seed = request.config.getoption("--benchmarks"), request.config.getoption("--suite-seed")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if gpu is None and kept is None:
        pytest.skip(
            "needs a GPU: there `attest nightly`, or `python -m benchmarks --json DIR`; here or there "
            "`attest run --benchmarks DIR` judges what is kept in DIR"
        )
    pytest.importorskip("triton", reason="needs triton")
    from benchmarks.measure import code_of, names, once

    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    @cache
    def record(name):
        if name not in names():
            raise LookupError(f"no operation {name!r} in benchmarks; there are {', '.join(names())}")
        if kept is not None:
            found = to_judge_by(kept, gpu, name, code_of(name))
        else:
            found = once(name, shared / "benchmarks", torch.device("cuda"), seed)
        if not found.gate["passed"]:
            raise RecordError(f"the gate of {name} is red: {'; '.join(found.gate['failures'])}")
        if found.doubts:
            pytest.skip(f"the clock could not be trusted: {'; '.join(found.doubts)}; measure while nothing else runs")
        return found

    return record


@pytest.fixture
def bench(evidence, times):
    """`times`, and the check's numbers are those of the machine where they were measured."""

    def record(name):
        found = times(name)
        evidence.measured_in(found.environment, found.started)
        return found

    return record
