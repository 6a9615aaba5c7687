"""Figures and docstrings of records: they say what was measured, and a stale one is refused."""

import pytest

from benchmarks import __main__ as command
from benchmarks import docstrings, plots, records
from benchmarks.records import RecordError
from reports.figures import to_svg
from tests.benchmarks.planted import DEVICE, GREEN, SETTINGS, record, row

KERNEL = '"""A sum.\n\nLimits: none.\n"""\n\nx = 1\n'


def test_a_panel_a_setting_with_every_contender_and_the_ceiling():
    title, figure, caption = plots.figures(record())["speed"]
    assert title == "sum: speed"
    assert [panel.get_title() for panel in figure.axes] == [
        "width=64",
        "width=64 causal",
        "width=128",
        "width=128 causal",
    ]
    assert DEVICE in caption
    for panel in figure.axes:
        lines = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
        assert list(lines) == ["fast", "SDPA/flash", "ceiling"]
        assert lines["fast"] == pytest.approx(1.25 * lines["SDPA/flash"], rel=0.02)
        assert max(lines["ceiling"]) == 800


def test_ratios_stand_beside_one_with_their_interval():
    _, figure, caption = plots.figures(record())["ratio"]
    [bars] = figure.axes[0].containers
    assert bars[0].get_ydata() == pytest.approx(1.25, rel=0.02)
    assert "99 % interval" in caption


@pytest.mark.parametrize(("slower", "scale"), [(1.25, "linear"), (40, "log")])
def test_ratios_far_apart_stand_on_a_logarithmic_axis(slower, scale):
    rows = [row(length, {"near": 1.1, "far": slower}) for length in (1024, 2048)]
    _, figure, _ = plots.figures(record(rows))["ratio"]
    assert figure.axes[0].get_yscale() == scale


def test_panels_that_are_not_needed_are_empty_and_marks_differ():
    slower = {f"baseline {at}": 1 + at / 10 for at in range(12)}
    rows = [row(length, slower, width=width) for width in (16, 32, 64, 96, 128) for length in (196, 1024)]
    _, figure, _ = plots.figures(record(rows))["speed"]
    assert len(figure.axes) == 8
    assert "196" in [label.get_text() for label in figure.axes[0].get_xticklabels()]
    to_svg(figure)


def test_equal_records_give_equal_figures():
    drawn = [to_svg(plots.figures(record())["speed"][1]) for _ in range(2)]
    assert drawn[0] == drawn[1]


def test_a_record_without_times_is_not_drawn():
    red = GREEN | {"passed": False, "failures": ["queries=64: o differs between two runs"]}
    with pytest.raises(RecordError, match="no times to draw: queries=64: o differs"):
        plots.figures(record([], gate=red))


def test_the_command_draws_what_is_kept_beside_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "names", lambda: ["sum"])
    path = records.path_of(tmp_path, DEVICE, "sum")
    records.save(record(), path)
    assert command.main(["--plot", "--json", str(tmp_path)]) == 0
    assert sorted(one.name for one in path.parent.glob("*.svg")) == ["sum-ratio.svg", "sum-speed.svg"]
    path.write_text("{}")
    assert command.main(["--plot", "--json", str(tmp_path)]) == 2
    assert "is no record of a benchmark" in capsys.readouterr().err


# -- docstrings --------------------------------------------------------------------------------------------------------


@pytest.fixture
def house(tmp_path):
    (tmp_path / "kernels").mkdir()
    kernel = tmp_path / "kernels" / "sum.py"
    kernel.write_text(KERNEL)
    records.save(record(), records.path_of(tmp_path / "results", DEVICE, "sum"))
    return kernel


def stale(kernel):
    return docstrings.find_stale(kernel.parent, kernel.parents[1] / "results")


def test_what_was_measured_is_written_between_its_marks(house):
    text = stale(house)[house]
    assert text.startswith('"""A sum.\n\nLimits: none.\n\n-- measured;')
    assert text.endswith('-- end of what was measured --\n"""\n\nx = 1\n')
    assert "Measured: NVIDIA H200, 2026-11-25, torch 2.11.0, triton 3.6.0" in text
    assert text.count("\nMeasured: ") == 1 + len(SETTINGS)
    assert "Measured: width=64 causal queries=16384: 16 ms" in text
    assert max(map(len, text.split("\n"))) <= 120


def test_what_was_written_is_up_to_date_and_an_older_one_is_stale(house):
    house.write_text(stale(house)[house])
    assert stale(house) == {}
    house.write_text(house.read_text().replace("2026-11-25", "2026-11-24"))
    assert "2026-11-25" in stale(house)[house]


def test_without_a_record_no_measurement_stands(house):
    house.write_text(stale(house)[house])
    records.path_of(house.parents[1] / "results", DEVICE, "sum").unlink()
    assert stale(house) == {house: KERNEL}


def test_each_device_has_its_own_lines(house):
    other = record(environment=record().environment | {"device": "NVIDIA H100"})
    records.save(other, records.path_of(house.parents[1] / "results", "NVIDIA H100", "sum"))
    text = stale(house)[house]
    assert text.index("NVIDIA H100") < text.index("NVIDIA H200")


def test_a_module_without_a_docstring_is_left_alone(house):
    house.write_text("x = 1\n")
    assert stale(house) == {}


def test_the_check_refuses_a_stale_docstring_and_the_command_mends_it(house, monkeypatch, capsys):
    real = docstrings.find_stale
    monkeypatch.setattr(docstrings, "find_stale", lambda: real(house.parent, house.parents[1] / "results"))
    assert docstrings.main(["--check"]) == 1
    assert "is not what benchmarks/results says: run this without --check" in capsys.readouterr().out
    assert docstrings.main([]) == 0
    assert docstrings.main(["--check"]) == 0


def test_every_kernel_says_what_its_records_say():
    assert list(docstrings.find_stale()) == []
