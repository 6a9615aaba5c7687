"""From a bench to its record, and the command, with a clock that a test sets."""

import json
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from benchmarks import __main__ as command  # noqa: E402
from benchmarks import clock, device, measure, records  # noqa: E402
from benchmarks.changes import changes  # noqa: E402
from benchmarks.device import Ceilings  # noqa: E402
from benchmarks.operation import Bench, Case, Cost, Unsupported  # noqa: E402
from benchmarks.ratios import Timed  # noqa: E402
from tests.benchmarks.planted import record, rounds  # noqa: E402

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Length(Case):
    queries: int
    wide: bool = False


def add(inputs):
    return {"sum": inputs["x"] + inputs["y"]}


def unsupported(inputs):
    raise Unsupported("no sum of this width")


BENCH = Bench(
    name="sum",
    make=lambda case, generator: {name: torch.randn(case.queries, generator=generator) for name in ("x", "y")},
    reference=lambda inputs: {"sum": inputs["x"].double() + inputs["y"].double()},
    plain=add,
    fast=add,
    cases=[Length(3)],
    speed=[Length(1024), Length(2048), Length(2048, wide=True)],
    cost=lambda case: Cost(1e9 * case.queries, 6.0 * case.queries),
    baselines={"twice": lambda inputs: add(inputs) and add(inputs), "none": unsupported},
    controls={"difference": lambda inputs: {"sum": inputs["x"] - inputs["y"]}},
)


@pytest.fixture
def gpu(monkeypatch):
    """A machine on which each contender takes as many milliseconds as its name has letters."""
    asked = []

    def time_all(contenders, inputs, count=clock.ROUNDS):
        asked.append(count)
        return {name: rounds(len(name), count, seed=at) for at, name in enumerate(contenders)}

    monkeypatch.setattr(clock, "time_all", time_all)
    monkeypatch.setattr(device, "ceilings", lambda seed: Ceilings(8e14, 4e12))
    monkeypatch.setattr(device, "state", lambda: {"driver": "580", "throttling": ["power cap"]})
    monkeypatch.setattr(clock, "trustworthy", lambda function, inputs: [])
    return asked


def test_a_record_holds_every_round_of_every_contender(gpu, capsys):
    found = measure.measure(BENCH, CPU, rounds=11)
    assert [row.case for row in found.rows] == ["queries=1024", "queries=2048", "queries=2048 wide"]
    assert set(gpu) == {11}
    row = found.rows[0]
    assert {name: len(one.rounds) for name, one in row.times.items()} == {"fast": 11, "twice": 11}
    assert row.absent == {"none": "no sum of this width"}
    assert (row.flops, row.fields) == (1e9 * 1024, {"queries": 1024, "wide": False})
    assert found.gate["refused"] == {"difference": 1}
    assert found.environment["suite_seed"] == 0
    printed = capsys.readouterr().out
    assert "clocks held by: power cap" in printed
    assert "twice" in printed


def test_only_cases_that_were_asked_for_are_timed(gpu):
    found = measure.measure(BENCH, CPU, only="wide")
    assert ([row.case for row in found.rows], found.only) == (["queries=2048 wide"], "wide")
    with pytest.raises(ValueError, match=r"no timed case's label contains 'narrow'; first of them: queries=1024"):
        measure.measure(BENCH, CPU, only="narrow")


def test_a_red_gate_gives_no_numbers(gpu):
    found = measure.measure(replace(BENCH, fast=lambda inputs: {"sum": torch.nan * inputs["x"]}), CPU)
    assert not found.passed
    assert found.rows == ()
    assert gpu == []
    assert found.gate["closest"]["error"] is None  # NaN


def test_a_clock_that_does_not_tie_gives_no_numbers(gpu, monkeypatch):
    monkeypatch.undo()

    def time_all(contenders, inputs, count=clock.ROUNDS):
        taken = {"A": 1, "A again": 1.1, "A twice": 2, "A on the first": 1}
        return {name: rounds(taken[name], seed=at) for at, name in enumerate(contenders)}

    monkeypatch.setattr(clock, "time_all", time_all)
    found = measure.measure(BENCH, CPU)
    assert not found.passed
    assert found.rows == ()
    assert "the same kernel twice does not tie" in found.doubts[0]


def test_a_clock_that_does_not_see_twice_the_work_is_doubted(monkeypatch):
    monkeypatch.setattr(clock, "time_all", lambda contenders, inputs: {name: Timed(np.ones(9)) for name in contenders})
    assert "twice the work is not seen" in clock.trustworthy(add, [{}])[0]


@pytest.mark.parametrize(("remembered", "doubts"), [(1.0, 0), (0.9, 1)])
def test_a_clock_is_doubted_where_an_input_that_comes_every_time_is_faster(monkeypatch, remembered, doubts):
    taken = {"A": 1.0, "A again": 1.0, "A twice": 2.0, "A on the first": remembered}
    monkeypatch.setattr(
        clock, "time_all", lambda contenders, inputs: {name: Timed(np.full(9, taken[name])) for name in contenders}
    )
    found = clock.trustworthy(add, [{}, {}, {}])
    assert ["comes every time takes less time than by turns" in line for line in found] == [True] * doubts


def test_every_operation_is_found_by_its_bench_and_none_is_listed_by_hand(capsys):
    found = measure.names()
    assert "flash_sigmoid" in found
    assert not {"gate", "clock", "records", "__main__"} & set(found)
    assert command.main(["--list"]) == 0
    assert capsys.readouterr().out.split() == found


@pytest.mark.parametrize("name", measure.names())
def test_every_bench_has_its_own_name_its_axis_and_labels_that_differ(name):
    pytest.importorskip("triton", reason="needs triton")
    bench = measure.bench_of(name)
    assert bench.name == name
    assert bench.speed
    labels = [case.label for case in bench.speed]
    assert len(set(labels)) == len(labels)
    wrong = [case.label for case in bench.speed if not isinstance(getattr(case, bench.axis, None), int)]
    assert not wrong, f"{name}: no length '{bench.axis}' in {wrong[0]}; set BENCH.axis to the field that is its length"


def test_the_hash_of_the_code_follows_kernels_but_not_their_docstrings(tmp_path, monkeypatch):
    for folder, file, text in [("", "sum", "from benchmarks.kernels import sum\n"), ("kernels", "sum", "")]:
        (tmp_path / "benchmarks" / folder).mkdir(exist_ok=True, parents=True)
        (tmp_path / "benchmarks" / folder / f"{file}.py").write_text(text)
    for file in ("clock", "gate"):
        (tmp_path / "benchmarks" / f"{file}.py").write_text("")
    monkeypatch.setattr(measure, "FOLDER", tmp_path / "benchmarks")
    kernel = tmp_path / "benchmarks" / "kernels" / "sum.py"
    found = []
    for text in ('"""A."""\nx = 1\n', '"""Measured: 3 ms."""\nx = 1\n', '"""A."""\nx = 2\n'):
        kernel.write_text(text)
        found.append(measure.code_of("sum"))
    assert found[0] == found[1] != found[2]


def test_the_command_keeps_records_and_says_how_they_differ_from_the_last(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(command, "names", lambda: ["sum", "broken"])
    monkeypatch.setattr(command, "bench_of", {"sum": BENCH}.__getitem__)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    real = measure.measure
    monkeypatch.setattr(command, "measure", lambda bench, where, **options: real(bench, CPU, **options))
    assert command.main(["sum", "--json", str(tmp_path)]) == 0
    path = tmp_path / "cpu" / "sum.json"
    assert json.loads(path.read_text())["gate"]["passed"]
    assert command.main(["sum", "--json", str(tmp_path)]) == 0
    assert "time against the record of" in capsys.readouterr().out
    assert command.main([]) == 1  # all: one of them fails, and does not hide the other
    printed = capsys.readouterr().out
    assert "broken: FAILED" in printed
    assert "sum: gate passed" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sun"], "no operation 'sun'; there are "),
        (["flash_sigmoid", "--gate", "--json", "x"], "--gate measures nothing to keep"),
        (["--plot", "--json", "nowhere"], "measure with --json nowhere"),
    ],
)
def test_a_wrong_question_is_answered_with_two(arguments, message, capsys):
    assert command.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["flash_sigmoid"], ["flash_sigmoid", "--gate"]])
def test_without_a_gpu_no_reference_passes_for_a_kernel(arguments, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert command.main(arguments) == 2
    assert "TRITON_INTERPRET=1 python -m benchmarks --gate" in capsys.readouterr().err


def test_without_a_gpu_the_device_cannot_be_described(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.main() == 2
    assert "no GPU here" in capsys.readouterr().err


def test_changes_are_told_by_case_and_what_cannot_be_read_is_said(tmp_path):
    path = tmp_path / "sum.json"
    assert changes(path, record()) == []
    records.save(record(), path)
    [line] = changes(path, record(code="other"))
    assert "time against the record of 2026-11-25, of other code: 1.000 of it in the mean of 12 cases" in line
    path.write_text("{")
    assert "could not be read" in changes(path, record())[0]


def test_reasons_for_slower_clocks_are_words():
    assert device.reasons(0) == []
    assert device.reasons(0x4 | 0x40) == ["power cap", "too warm (hardware)"]
    assert device.reasons(1 << 20) == ["reason 0x100000"]
    nvml = pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    named = [getattr(nvml, name) for name in dir(nvml) if name.startswith("nvmlClocksEventReason")]
    assert {bit for bit in named if bit and bit & (bit - 1) == 0} == set(device.REASONS)


def test_what_nvml_says_of_this_very_gpu_is_read_and_what_it_refuses_is_named(monkeypatch):
    nvml = pytest.importorskip("pynvml", reason="needs nvidia-ml-py")
    asked = []
    answers = {
        "nvmlInit": None, "nvmlSystemGetDriverVersion": "580.1", "nvmlDeviceGetHandleByUUID": 7,
        "nvmlDeviceGetClockInfo": 1980, "nvmlDeviceGetEnforcedPowerLimit": 700_000, "nvmlDeviceGetTemperature": 61,
        "nvmlDeviceGetCurrentClocksThrottleReasons": 0x20,
    }  # fmt: skip
    for name, answer in answers.items():
        monkeypatch.setattr(nvml, name, lambda *given, answer=answer: asked.append(given) or answer)

    def refuse(gpu):
        raise nvml.NVMLError(nvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(nvml, "nvmlDeviceGetPowerUsage", refuse)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda: SimpleNamespace(uuid="a-b"))
    found = device.state()
    assert ("GPU-a-b",) in asked
    assert found["throttling"] == ["too warm (software)"]
    assert (found["driver"], found["power_limit"], found["sm_clock"]) == ("580.1", 700, 1980)
    assert found["unreadable"].startswith("power: ")
    monkeypatch.setattr(nvml, "nvmlInit", lambda: refuse(0))
    assert list(device.state()) == ["unreadable"]


def test_a_state_is_a_line():
    found = {"sm_clock": 1980, "power": 650.4, "temperature": 61, "throttling": []}
    assert device.in_words(found) == "sm clock 1980 MHz, power 650 W, temperature 61 C, clocks held by: nothing"
    assert device.in_words({"unreadable": "no NVML"}) == "not readable: no NVML"
