"""results.json: its schema, files that cannot be used, interrupted writes, merging and comparing; the record."""

import copy
import json
import os
import shlex
import sys

import pytest

from reports import record, results
from reports.bibliography import papers
from reports.files import write_whole
from tests.reports import sample_results

TWO = '''
squares = claim("squares")

@squares.check("exact", controls={"cube": {"power": 3}})
def test_squares_are_non_negative(evidence, *, power=2):
    """Squares of a few numbers."""
    evidence.expect("square", (-2) ** power, at_least=0)
    evidence.counterexample("two", x="<script>alert(1)</script>")

means = claim("means")

@means.check("statistical", controls={"negative": {"shift": -10}})
def test_the_mean_is_positive(evidence, *, shift=0):
    """A mean."""
    evidence.mean_at_least("mean", [shift + 5, shift + 6, shift + 5, shift + 6], 0, alpha=1e-3)
'''


@pytest.fixture
def run(suite):
    """Results of a run, as read back."""
    suite.declare(TWO)
    suite.run()
    return results.load(suite.path / "reports" / "out" / "results.json")


def test_what_a_run_writes_has_the_shape_of_the_schema(run):
    assert [claim["verdict"] for claim in run["claims"]] == ["supported", "supported"]
    [paper] = run["papers"]
    assert paper == {
        "key": "somebody2024", "title": "Squares", "authors": ["Some Body"], "year": "2024",
        "venue": "Journal of Squares", "url": "",
    }  # fmt: skip
    environment = run["environments"][0]
    assert environment["packages"]["pytest"] == pytest.__version__
    assert environment["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_rerun_line_reruns_the_check(suite, run):
    check = run["claims"][0]["checks"][0]
    for one in (check, check["controls"][0]):
        program, *arguments = shlex.split(one["rerun"])
        assert program == "pytest"
        outcome = suite.run(*arguments).parseoutcomes()
        assert outcome.get("passed", 0) + outcome.get("xfailed", 0) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "`attest run` writes one"),
        ("", "is no JSON"),
        ('{"schema": 1, "title": "Att', "it may be cut off: run again"),
        ("[]", "is no results file of Attest"),
        ("{}", "is no results file of Attest"),
        ('{"schema": 99}', "schema 99, this Attest reads up to 1: update Attest"),
        ('{"schema": "one"}', "is no results file of Attest"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_reason_and_remedy(tmp_path, text, message):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(results.ResultsError, match=message):
        results.load(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("claims", 0, "verdict"), "proven"),
        (("claims", 0, "checks", 0, "outcome"), "green"),
        (("claims", 0, "checks", 0, "quantities", 0, "value"), "NaN"),
        (("claims", 0, "checks", 0, "cases"), -1),
        (("claims", 0, "extra"), 1),
        (("environments",), []),
    ],
)
def test_results_of_another_shape_are_refused_with_the_place(run, tmp_path, place, value):
    *path, last = place
    at = run
    for step in path:
        at = at[step]
    at[last] = value
    (tmp_path / "results.json").write_text(json.dumps(run))
    with pytest.raises(results.ResultsError, match="at " + "/".join(map(str, path or place))):
        results.load(tmp_path / "results.json")


def test_nan_is_not_written(run, tmp_path):
    run["seconds"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        results.save(tmp_path / "results.json", run)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch, moment):
    path = tmp_path / "page.html"
    write_whole(path, "old")

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, moment, interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def without(run, slug):
    """A shard in which the check of one claim was not run."""
    shard = copy.deepcopy(run)
    for claim in shard["claims"]:
        if claim["slug"] == slug:
            claim["checks"][0] |= {"outcome": "not run", "why": "needs a GPU"} | results.BLANK_EVIDENCE
            claim["checks"][0]["controls"][0]["outcome"] = "not run"
    return shard


def test_shards_merge_to_the_whole_and_keep_where_each_check_ran(run, suite):
    shards = [without(run, "squares"), without(run, "means")]
    shards[1]["environments"][0]["device"] = "NVIDIA H200"
    merged = results.merge(copy.deepcopy(shards), suite.path)
    results.validate(merged, "merged")
    assert [claim["verdict"] for claim in merged["claims"]] == ["supported", "supported"]
    devices = [merged["environments"][c["checks"][0]["environment"]]["device"] for c in merged["claims"]]
    assert devices == ["NVIDIA H200", "cpu"]


def test_merging_hides_no_failure(run, suite):
    failed = copy.deepcopy(run)
    failed["claims"][0]["checks"][0] |= {"outcome": "violated", "why": "square = -1"}
    for order in ([run, failed], [failed, run]):
        merged = results.merge(copy.deepcopy(order), suite.path)
        assert merged["claims"][0]["verdict"] is None
        assert any("square = -1" in problem for problem in merged["problems"])


def test_shards_of_different_code_and_no_shards_are_refused(run, suite):
    other = copy.deepcopy(run)
    other["claims"][0]["says"] = "Another statement."
    with pytest.raises(results.ResultsError, match="run them on the same commit"):
        results.merge([run, other], suite.path)
    with pytest.raises(results.ResultsError, match="nothing to merge"):
        results.merge([], suite.path)


def test_differences_name_changed_new_and_absent_claims(run):
    new = copy.deepcopy(run)
    new["claims"][0]["verdict"] = "refuted"
    new["claims"][1]["key"] = "somebody2024/medians"
    assert results.differences(run, run) == []
    assert results.differences(run, new) == [
        {"claim": "somebody2024/squares", "old": ["supported", "exact"], "new": ["refuted", "exact"]},
        {"claim": "somebody2024/means", "old": ["supported", "statistical"], "new": None},
        {"claim": "somebody2024/medians", "old": None, "new": ["supported", "statistical"]},
    ]


# -- the record --------------------------------------------------------------------------------------------------------


def test_the_record_comes_back_as_it_was_written(tmp_path):
    entries = {
        "a/b": {"verdict": "supported", "level": "proof", "measured": None},
        'c/"d\\': {
            "verdict": "supported",
            "level": "benchmark",
            "measured": {"device": 'H"200\\', "date": "2026-11-23"},
        },
        "e/f": {"verdict": "not run", "level": None, "measured": None},
    }
    path = tmp_path / "verdicts.toml"
    record.save(path, entries)
    assert record.load(path) == entries
    assert record.load(tmp_path / "absent.toml") == {}


@pytest.mark.parametrize(
    "text", ["[", '["a/b"]\nverdict = "true"\n', '["a/b"]\nverdict = "refuted"\nlevel = "sure"\n', "a = 1\n"]
)
def test_a_record_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path, text):
    path = tmp_path / "verdicts.toml"
    path.write_text(text)
    with pytest.raises(record.RecordError, match="attest accept"):
        record.load(path)


def test_accepting_keeps_what_was_not_run_and_drops_what_is_gone(run):
    gpu = {"verdict": "refuted", "level": "benchmark", "measured": {"device": "H200", "date": "2026-01-01"}}
    old = {"verdict": "supported", "level": "proof", "measured": None}
    entries = {"somebody2024/squares": gpu, "somebody2024/gone": old}
    shard = without(run, "squares")
    assert record.accept(entries, shard) == {
        "somebody2024/squares": gpu,
        "somebody2024/means": {"verdict": "supported", "level": "statistical", "measured": None},
    }
    shard["selection"]["complete"] = False
    assert "somebody2024/gone" in record.accept(entries, shard)
    assert record.accept({}, shard)["somebody2024/squares"]["verdict"] == "not run"


def test_what_was_measured_on_a_device_is_accepted_with_its_name_and_date(run):
    run["environments"][0]["device"] = "NVIDIA H200"
    entry = record.accept({}, run)["somebody2024/squares"]
    assert entry["measured"] == {"device": "NVIDIA H200", "date": run["started"][:10]}


@pytest.mark.parametrize("verdict", [None, "broken"])
def test_a_claim_without_a_sound_verdict_is_not_accepted(run, verdict):
    run["claims"][0]["verdict"] = verdict
    with pytest.raises(record.RecordError, match="mend these first: somebody2024/squares"):
        record.accept({}, run)


def test_bibliography_entries_are_read_as_plain_text(tmp_path):
    (tmp_path / "references.bib").write_text(
        r"@inproceedings{k, title={{One} Step \& More}, author={M{\"u}ller, J{\'e}r{\^o}me and van der Berg, A.}, "
        r"booktitle={Proc.}, year=2024, url={https://example.org/a_b}}"
    )
    [known, unknown] = papers(tmp_path, ["k", "absent"])
    assert known["authors"] == ["Jérôme Müller", "A. van der Berg"]
    assert (known["title"], known["url"]) == ("One Step & More", "https://example.org/a_b")
    assert unknown["title"] == "absent"


@pytest.mark.parametrize("made_up", [sample_results.every_verdict(), sample_results.many(3)], ids=["every", "many"])
def test_results_made_up_for_tests_have_the_shape_of_the_schema(made_up):
    results.validate(made_up, "sample")
