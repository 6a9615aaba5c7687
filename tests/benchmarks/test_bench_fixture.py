"""What claims of level benchmark are given: this GPU's record, or the reason why there is none."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from benchmarks import measure, records  # noqa: E402
from reports import measured as kept  # noqa: E402
from reports import record as verdicts  # noqa: E402
from tests.benchmarks.bench_house import House  # noqa: E402
from tests.benchmarks.planted import DEVICE, GREEN, record, row  # noqa: E402

CLAIM = '''
from reports.claim import Claim

speed = Claim(paper="somebody2024", slug="speed", where="Abstract", says="Quick.", formula="x", gap="All else.")

@speed.check("benchmark", controls={"against itself": {"slow": "fast"}})
def test_the_sum_is_faster(evidence, bench, *, slow="SDPA/flash"):
    """It is timed."""
    from benchmarks.plots import figures

    record = bench("flash_sigmoid")
    title, figure, caption = figures(record)["ratio"]
    evidence.figure(title, figure, caption)
    for row in record.rows:
        ratio = record.ratio(row.case, slow, "fast")
        evidence.expect("time saved", 1 - 1 / ratio.median, less_than=1)
        evidence.expect("lowest ratio", ratio.low, at_least=1.01)
'''


@pytest.fixture
def house(pytester, monkeypatch):
    return House(pytester, monkeypatch, CLAIM)


def test_a_record_of_this_gpu_decides_the_claim_and_names_the_device(house):
    house.keep()
    claim, check = house.run(f"--benchmarks={house.folder}")
    assert check["outcome"] == "held", check["why"]
    assert check["controls"][0]["outcome"] == "rejected"
    assert (claim["verdict"], claim["level"]) == ("supported", "benchmark")
    assert house.results["environments"][0]["device"] == DEVICE
    assert "SDPA/flash" not in check["figures"][0]["svg"]  # letters are paths
    assert "99 % interval" in check["figures"][0]["caption"]


def test_what_was_kept_stands_on_the_page_of_a_machine_without_a_gpu(house, monkeypatch):
    house.keep()
    house.run(f"--benchmarks={house.folder}")
    kept.keep(house.results, house.path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    claim, check = house.run("--scale=full")
    assert claim["verdict"] == "not run"
    assert check["measured"]["figures"]
    page = (house.path / "reports/out/index.html").read_text("utf-8")
    shown = page[page.index(f"On a GPU: measured on {DEVICE}, {house.results['started'][:10]}") :]
    assert shown.index("lowest ratio") < shown.index("<figure") < shown.index("99 % interval")


def test_without_a_gpu_what_was_kept_is_judged_all_the_same_and_names_its_machine_and_day(house, monkeypatch):
    house.keep()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    claim, check = house.run(f"--benchmarks={house.folder}")
    assert (claim["verdict"], claim["level"]) == ("supported", "benchmark")
    where = house.results["environments"][check["environment"]]
    assert (where["device"], where["started"]) == (DEVICE, record().started)
    assert house.results["environments"][0]["device"] == "cpu"
    [path] = kept.keep(house.results, house.path)
    assert f'"started": "{record().started}"' in path.read_text("utf-8")
    accepted = verdicts.accept({}, house.results)
    assert accepted[claim["key"]]["measured"] == {"device": DEVICE, "date": record().date}


def test_without_a_gpu_records_of_several_are_told_apart_by_their_folders(house, monkeypatch):
    house.keep()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    own = records.path_of(house.folder, DEVICE, "flash_sigmoid")
    other = house.folder / "another" / own.name
    other.parent.mkdir()
    other.write_text(own.read_text("utf-8"), "utf-8")
    assert "of the records of flash_sigmoid" in house.run(f"--benchmarks={house.folder}")[1]["why"]
    assert house.run(f"--benchmarks={own.parent}")[0]["verdict"] == "supported"


def test_without_a_gpu_it_is_not_run_and_the_reason_says_how(house, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    claim, check = house.run()
    assert claim["verdict"] == "not run"
    assert "needs a GPU: there `attest nightly`, or `python -m benchmarks --json DIR`" in check["why"]


def test_a_record_of_another_device_is_an_error(house, monkeypatch):
    house.keep()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *which: "NVIDIA H100")
    check = house.run(f"--benchmarks={house.folder}")[1]
    assert check["outcome"] == "error"
    assert "only of nvidia-h200; this machine's GPU is NVIDIA H100" in check["why"]


def test_a_record_of_other_code_is_an_error(house):
    house.keep(code="before")
    assert "was measured with other code than this" in house.run(f"--benchmarks={house.folder}")[1]["why"]


def test_a_red_gate_is_an_error_and_a_doubtful_clock_is_not_run(house):
    house.keep(rows=[], gate=GREEN | {"passed": False, "failures": ["o errs by nan"]})
    check = house.run(f"--benchmarks={house.folder}")[1]
    assert check["outcome"] == "error"
    assert "the gate of flash_sigmoid is red: o errs by nan" in check["why"]
    house.keep(rows=[], doubts=("the same kernel twice does not tie",))
    claim, check = house.run(f"--benchmarks={house.folder}")
    assert claim["verdict"] == "not run"
    assert "the clock could not be trusted: the same kernel twice does not tie" in check["why"]


def test_a_baseline_that_was_not_timed_is_not_run_with_its_reason(house):
    house.keep(rows=[replace(row(1024, {}), absent={"SDPA/flash": "no kernel for this width"})])
    claim, check = house.run(f"--benchmarks={house.folder}")
    assert claim["verdict"] == "not run"
    assert "needs a time of 'SDPA/flash'" in check["why"]
    assert "no kernel for this width" in check["why"]


def test_without_the_option_it_is_measured_once_a_session(house, monkeypatch):
    asked = []

    def measured(bench, where, *, seed):
        asked.append((bench.name, where.type, seed))
        return record(name="flash_sigmoid")

    monkeypatch.setattr(measure, "measure", measured)
    claim, _ = house.run("--suite-seed=7")
    assert claim["verdict"] == "supported"
    assert asked == [("flash_sigmoid", "cuda", 7)]


def test_processes_that_share_a_folder_measure_once(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(measure, "measure", lambda bench, where, seed: asked.append(bench) or record())
    found = [measure.once("flash_sigmoid", tmp_path / "shared", torch.device("cpu"), 0) for _ in range(2)]
    assert len(asked) == 1
    assert found[0].rows[0].case == found[1].rows[0].case
