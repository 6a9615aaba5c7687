"""Records of benchmarks: what is kept is what is read, and nothing else is accepted."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import records
from benchmarks.records import Absent, RecordError
from benchmarks.shape import misfit
from tests.benchmarks.planted import DEVICE, GREEN, LENGTHS, record, rounds, row

RED = GREEN | {"passed": False, "failures": ["queries=64: o errs by nan, allowed 0.002"]}


@pytest.fixture
def kept(tmp_path):
    path = records.path_of(tmp_path, DEVICE, "sum")
    records.save(record(), path)
    return path


def change(path, place, value):
    """Put a value at a place such as ("rows", 0, "times") of a file."""
    given = json.loads(path.read_text())
    at = given
    for part in place[:-1]:
        at = at[part]
    if value is KeyError:
        del at[place[-1]]
    else:
        at[place[-1]] = value
    path.write_text(json.dumps(given))


def test_what_is_kept_is_what_is_read(kept):
    found, given = records.load(kept), record()
    assert found.series().keys() == given.series().keys()
    assert replace(found, rows=()) == replace(given, rows=())
    for one, other in zip(found.rows, given.rows, strict=True):
        assert (one.case, one.fields, one.absent) == (other.case, other.fields, other.absent)
        for name in other.times:
            np.testing.assert_allclose(one.times[name].rounds, other.times[name].rounds, rtol=1e-4)


def test_keeping_what_was_read_changes_no_byte(kept):
    before = kept.read_bytes()
    records.save(records.load(kept), kept)
    assert kept.read_bytes() == before


def test_a_file_is_of_one_device_and_one_operation(kept):
    assert kept.parts[-2:] == ("nvidia-h200", "sum.json")
    assert records.slug("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"


def test_the_ratio_of_any_two_contenders_comes_with_its_interval(kept):
    found = records.load(kept)
    case = found.rows[0].case
    slower = found.ratio(case, "SDPA/flash", "fast")
    assert slower.low < slower.median < slower.high
    assert slower.median == pytest.approx(1.25, rel=0.02)
    assert found.ratio(case, "fast", "fast").high == 1


def test_a_contender_that_was_not_timed_is_absent_with_its_reason():
    given = record([replace(row(1024, {}), absent={"SDPA/cudnn": "no kernel for this width"})])
    with pytest.raises(Absent, match=r"needs a time of 'SDPA/cudnn' at .*: no kernel for this width"):
        given.ratio(given.rows[0].case, "SDPA/cudnn", "fast")
    with pytest.raises(Absent, match=r"'softmax twin'.*the contenders are fast"):
        given.ratio(given.rows[0].case, "softmax twin", "fast")
    with pytest.raises(Absent, match="no timed case 'queries=1'"):
        given.ratio("queries=1", "fast", "fast")
    with pytest.raises(Absent, match="no timed case with width=7"):
        given.select(width=7)


def test_cases_are_told_apart_by_the_fields_that_the_length_does_not_determine():
    series = record().series()
    assert list(series) == ["width=64", "width=64 causal", "width=128", "width=128 causal"]
    for rows in series.values():
        assert tuple(row.fields["queries"] for row in rows) == LENGTHS


def test_an_axis_that_no_case_has_is_named():
    with pytest.raises(RecordError, match=r"no field 'context'.*set BENCH\.axis"):
        record(axis="context").series()


def test_the_roof_is_the_copy_where_little_is_computed():
    given = record()
    assert given.roof(given.rows[0]) == 8e14
    little = replace(given.rows[0], flops=1e6, bytes=1e6)
    assert given.roof(little) == 4e12


def test_a_red_gate_is_kept_without_numbers(tmp_path):
    path = tmp_path / "sum.json"
    records.save(record([], gate=RED, ceilings=None, state=None), path)
    found = records.load(path)
    assert not found.passed
    assert found.gate["failures"] == RED["failures"]
    assert not record(doubts=("the same kernel twice does not tie",)).passed


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("name",), KeyError, "at the top: no 'name'"),
        (("surprise",), 1, "unknown 'surprise'"),
        (("schema",), True, "at schema: expected int, found 'True'"),
        (("environment", "device"), None, "at environment/device: expected str"),
        (("gate", "refused", "last tile dropped"), "two", "expected int, found 'two'"),
        (("rows", 1, "flops"), "many", "at rows/1/flops"),
        (("rows", 0, "times", "fast", "rounds"), [], "rounds must be positive times"),
        (("rows", 0, "times", "fast", "rounds", 3), -1.0, "rounds must be positive times"),
        (("rows", 0, "times", "fast", "rounds", 3), "1", "at rows/0/times/fast/rounds/3"),
        (("rows", 0, "times", "fast", "median"), 0.5, "the median is not that of the rounds"),
        (("gate", "passed"), False, "times without a green gate"),
        (("doubts",), ["it drifts"], "times without a green gate, a sound clock"),
        (("ceilings",), None, "times without a green gate, a sound clock and ceilings"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_place_and_remedy(kept, place, value, message):
    change(kept, place, value)
    with pytest.raises(RecordError) as refused:
        records.load(kept)
    assert message in str(refused.value)
    assert "measure again with `python -m benchmarks sum" in str(refused.value)


def test_contenders_must_have_met_the_same_rounds(kept):
    first = {"fast": rounds(1), "SDPA/flash": rounds(1, count=19)}
    records.save(record([replace(record().rows[0], times=first)]), kept)
    with pytest.raises(RecordError, match="different numbers of rounds"):
        records.load(kept)


def test_a_missing_a_cut_and_a_newer_file_are_told_apart(kept):
    with pytest.raises(RecordError, match=r"none\.json: No such file"):
        records.load(kept.with_name("none.json"))
    change(kept, ("schema",), 2)
    with pytest.raises(RecordError, match="has schema 2, this Attest reads up to 1: update"):
        records.load(kept)
    kept.write_text(kept.read_text()[:100])
    with pytest.raises(RecordError, match=r"is no JSON .*restore it from git"):
        records.load(kept)


def test_a_machine_judges_by_records_of_its_own_device_and_code_alone(kept, tmp_path):
    assert records.to_judge_by(tmp_path, DEVICE, "sum", "1234").name == "sum"
    with pytest.raises(RecordError, match="only of nvidia-h200; this machine's GPU is NVIDIA H100"):
        records.to_judge_by(tmp_path, "NVIDIA H100", "sum", "1234")
    with pytest.raises(RecordError, match="a record of product of no device"):
        records.to_judge_by(tmp_path, DEVICE, "product", "1234")
    with pytest.raises(RecordError, match="was measured with other code"):
        records.to_judge_by(tmp_path, DEVICE, "sum", "5678")
    moved = records.path_of(tmp_path, "NVIDIA H100", "sum")
    moved.parent.mkdir()
    kept.rename(moved)
    with pytest.raises(RecordError, match="is of sum on NVIDIA H200, not sum on this machine's NVIDIA H100"):
        records.to_judge_by(tmp_path, "NVIDIA H100", "sum", "1234")


def test_every_committed_record_can_be_read_drawn_and_lies_where_it_belongs():
    for path, one in records.kept():
        assert path == records.path_of(records.FOLDER, one.device, one.name)
        assert one.passed
        assert one.series()


def test_a_shape_of_alternatives_explains_the_one_that_fits_furthest():
    shape = ({"a": {"b": int}}, type(None))
    assert misfit(None, shape) is None
    assert misfit({"a": {"b": "x"}}, shape) == "at a/b: expected int, found 'x'"
    assert misfit([1], [str]) == "at 0: expected str, found '1'"
    assert misfit(3, [str]) == "at the top: expected a list, found '3'"
    assert misfit(3, {"a": int}) == "at the top: expected an object, found '3'"
