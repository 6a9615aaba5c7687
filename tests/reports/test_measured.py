"""Measurements made elsewhere: kept from one run, shown beside the next."""

import json
from pathlib import Path

import pytest

from reports import catalogue, measured
from reports.page import write
from tests.reports.sample_results import HOSTILE, SVG, check, claim, control, environment, quantity, results

ROOT = Path(__file__).parents[2]
PAPER = {"key": "a2024", "title": "A", "authors": [], "year": "2024", "venue": "", "url": ""}
CLAIM = """
size = claim("size")

@size.check("exact", controls={"nothing": {"factor": 0}})
def test_the_size_is_positive(evidence, scale, *, factor=1):
    \"\"\"At its scale.\"\"\"
    evidence.expect("size", factor * {"small": 1, "full": 50}[scale], at_least=1)

@size.check("exact", controls={"minus": {"one": -1}})
def test_one_is_one(evidence, *, one=1):
    \"\"\"Has one size only.\"\"\"
    evidence.expect("one", one, equals=1)
"""


def run_of(*checks, **more):
    return results([claim("a2024", "x", checks=list(checks))], [PAPER], environments=[environment(**more)])


def test_a_check_takes_its_scale_from_the_option(suite):
    suite.declare(CLAIM)
    for scale, value in (("small", 1), ("full", 50)):
        suite.run(f"--scale={scale}")
        run = json.loads((suite.path / "reports/out/results.json").read_text())
        assert run["environments"][0]["scale"] == scale
        assert run["claims"][0]["checks"][0]["quantities"][0]["value"] == value


def test_the_marker_selects_checks_that_have_a_full_scale(suite):
    suite.declare(CLAIM)
    suite.run("-m", "scaled")
    run = json.loads((suite.path / "reports/out/results.json").read_text())
    assert [one["outcome"] for one in run["claims"][0]["checks"]] == ["held", "not run"]


def test_what_is_kept_stands_beside_the_next_run(suite):
    suite.declare(CLAIM)
    suite.run("--scale=full")
    path = suite.path / "reports/out/results.json"
    kept = measured.keep(json.loads(path.read_text()), suite.path)
    assert [file.name for file in kept] == ["somebody2024.json"]
    suite.run()
    scaled, other = json.loads(path.read_text())["claims"][0]["checks"]
    assert scaled["quantities"][0]["value"] == 1
    assert scaled["measured"]["quantities"][0]["value"] == 50
    assert scaled["measured"]["controls"] == [{"name": "nothing", "outcome": "rejected"}]
    assert other["measured"] is None
    page = (suite.path / "reports/out/index.html").read_text()
    assert "At the paper&#39;s own size: measured on cpu" in page or "At the paper's own size: measured on cpu" in page


def test_a_timing_is_shown_with_its_device_date_and_figure_and_all_of_it_is_text(tmp_path):
    one = {"title": HOSTILE, "caption": HOSTILE, "svg": SVG}
    timed = check(level="benchmark", notes=[HOSTILE], quantities=[quantity(HOSTILE)], figures=[one])
    measured.keep(run_of(timed, device=f"NVIDIA {HOSTILE}", scale="full"), tmp_path)
    unrun = run_of(check(level="benchmark", outcome="not run", why="needs a GPU"))
    measured.attach(unrun, tmp_path)
    write(unrun, tmp_path / "index.html")
    page = (tmp_path / "index.html").read_text("utf-8")
    shown = page[page.index('<section class="measured">') :].split("</section>")[0]
    assert "On a GPU: measured on NVIDIA &lt;script&gt;window.hacked = 1&lt;/script&gt;" in shown
    assert f", {unrun['started'][:10]}</h5>" in shown
    assert shown.count("&lt;script&gt;") == 6  # device, quantity, title and caption, the label of the drawing, note
    assert "<script" not in shown
    assert "<img" not in shown
    assert shown.count("<figure>") == 1


def test_a_newer_measurement_replaces_an_older_one_and_leaves_the_others(tmp_path):
    first = run_of(check("test_a", scaled=True), check("test_b", scaled=True), scale="full")
    measured.keep(first, tmp_path)
    again = run_of(check("test_a", scaled=True, quantities=[quantity("new")]), scale="full")
    measured.keep(again, tmp_path)
    found = measured.load(tmp_path)
    assert found["a2024/x", "test_a"]["quantities"][0]["name"] == "new"
    assert found["a2024/x", "test_b"]["quantities"] == first["claims"][0]["checks"][1]["quantities"]


@pytest.mark.parametrize(
    ("one", "where", "worth"),
    [
        ({"scaled": True}, {"scale": "full"}, True),
        ({"scaled": True}, {"scale": "small"}, False),
        ({"scaled": False}, {"scale": "full"}, False),
        ({"level": "benchmark"}, {"device": "NVIDIA H200"}, True),
        ({"level": "benchmark"}, {}, False),
        ({"level": "exact"}, {"device": "NVIDIA H200"}, False),
    ],
)
def test_only_what_a_usual_run_does_not_measure_is_worth_keeping(one, where, worth):
    assert measured.worth_keeping(check(**one), environment(**where)) is worth


def test_a_run_without_such_measurements_is_refused(tmp_path):
    with pytest.raises(measured.MeasuredError, match="run with --scale full"):
        measured.keep(run_of(check(), check("test_b", scaled=True, outcome="not run"), scale="full"), tmp_path)


def test_a_damaged_file_is_named_with_its_remedy(tmp_path):
    (tmp_path / measured.FOLDER).mkdir(parents=True)
    (tmp_path / measured.FOLDER / "a2024.json").write_text('[{"claim": "a2024/x"}]')
    with pytest.raises(measured.MeasuredError, match=r"a2024\.json: KeyError\('measured'\); restore it from git"):
        measured.load(tmp_path)


def test_each_committed_measurement_belongs_to_a_check_that_exists_and_names_its_device():
    declared = {(one.key, item.name): set(item.controls) for one in catalogue.load(ROOT) for item in one.checks}
    for key, one in measured.load(ROOT).items():
        assert {item["name"] for item in one["controls"]} == declared[key]
        assert one["environment"]["device"]
        undecided = {"inconclusive"} if one["outcome"] == "inconclusive" else set()
        assert {item["outcome"] for item in one["controls"]} <= {"rejected"} | undecided
    assert control()["outcome"] == "rejected"
