"""The claims on the speed of MALA, block top-k and mixture of heads, put to times that a test makes up."""

from dataclasses import fields

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton")

from benchmarks import measure, records  # noqa: E402
from benchmarks.records import Row  # noqa: E402
from empirical.operators import mala as lines  # noqa: E402
from tests.benchmarks.bench_house import ROOT, House  # noqa: E402
from tests.benchmarks.planted import DEVICE, record, rounds  # noqa: E402

FILES = {"mala": "test_mala_cost.py", "block_topk": "test_block_topk.py", "moh": "test_moh.py"}
COPY, PRODUCT = 4e9, 4e11
"""Bytes and operations a millisecond."""


def mala(case):
    """Bytes for MALA; softmax at three speeds, absent where its matrix is large."""
    work = 4 * case.heads * case.queries * case.keys * case.width * (2.5 if case.backward else 1) / PRODUCT
    times = {
        "fast": 0.01 + measure.bench_of("mala").cost(case).bytes / COPY,
        "SDPA/cudnn": work,
        "SDPA/flash": 2 * work,
    }
    return (
        times if case.queries > 16_384 else times | {"materialised softmax": 9 * work, "materialised MALA": 12 * work}
    )


def block_topk(case):
    """Bytes, all of them at the same speed but for FlashAttention-2's and a start of each kernel."""
    from benchmarks.block_topk import cost, dense_cost

    dense, whole = dense_cost(case).bytes / COPY, cost(case).bytes / COPY
    search = case.batch * case.context * 16 / COPY
    return {"fast": whole + 0.005, "all pages": dense, "SDPA/flash": 1.6 * dense, "SDPA/cudnn": 1.02 * dense,
            "attention alone": 1.4 * (whole - search), "search alone": search,
            "all pages chosen": dense + 0.1}  # fmt: skip


def moh(case):
    """Rows of a head in blocks of 64, and of a product with W_O."""
    work, product = 4 * 16_384 * 2048 * case.tokens / PRODUCT, 2 * 16_384 * 2048**2 / PRODUCT
    share = (case.shared + case.top) / case.heads
    blocks = min(1, (-(-case.tokens * share // 64) + 1) * 64 / case.tokens) if case.tokens < 4096 else share
    alone = 0.01 + blocks * work
    times = {"": alone, "SDPA/flash": 1.6 * work + 0.02, "SDPA/cudnn": 0.9 * work}
    found = {f"{name} alone".strip(): time for name, time in times.items()}
    found |= {name or "fast": time + product for name, time in times.items()}
    return found | {"masking/flash": found["SDPA/flash"] + 0.2}


MODELS = {"mala": mala, "block_topk": block_topk, "moh": moh}


def planted(name, changed):
    """Rows of a bench's own cases; `changed` multiplies the times of contenders."""
    bench = measure.bench_of(name)
    for case in bench.speed:
        times = {one: time * changed.get(one, 1.0) for one, time in MODELS[name](case).items()}
        shape, cost = {field.name: getattr(case, field.name) for field in fields(case)}, bench.cost(case)
        absent = {one: "made up" for one in bench.baselines if one not in times}
        measured = {one: rounds(time, seed=at) for at, (one, time) in enumerate(times.items())}
        yield Row(case.label, shape, cost.flops, cost.bytes, measured, absent)


@pytest.fixture
def judge(pytester, monkeypatch):
    def run(name, **changed):
        """Slug of each claim on times -> verdict, and the outcomes of their controls."""
        claims = (ROOT / "tests" / "claims" / "operators" / FILES[name]).read_text("utf-8")
        house = House(pytester, monkeypatch, claims, (ROOT / "references.bib").read_text("utf-8"))
        axis = measure.bench_of(name).axis
        kept = record(list(planted(name, changed)), name=name, code=measure.code_of(name), axis=axis)
        records.save(kept, records.path_of(house.folder, DEVICE, name))
        found = house.run_all(f"--benchmarks={house.folder}", "--level=benchmark")
        checks = [check for claim in house.results["claims"] for check in claim["checks"]]
        outcomes = {control["outcome"] for check in checks for control in check["controls"]}
        return {slug: claim["verdict"] for slug, claim in found.items()}, outcomes

    return run


def test_block_topk_holds_where_bytes_decide(judge):
    verdicts, controls = judge("block_topk")
    assert verdicts == {
        "gain-within-the-byte-ratio": "supported", "step-faster-than-all-pages": "supported",
        "gain-grows-with-context": "supported", "printed-gains-of-attention-alone": "refuted",
    }  # fmt: skip
    assert controls == {"rejected"}


def test_a_ratio_above_the_byte_ratio_is_seen(judge):
    verdicts, _ = judge("block_topk", **{"all pages": 1.3})
    assert verdicts["gain-within-the-byte-ratio"] is None


def test_a_search_that_costs_what_it_saves_supports_nothing(judge):
    verdicts, _ = judge("block_topk", fast=20.0)
    assert verdicts["step-faster-than-all-pages"] is None


def test_mixture_of_heads_holds_where_blocks_of_rows_decide(judge):
    verdicts, controls = judge("moh")
    assert verdicts == {
        "less-time-than-flash-attention-2": "supported", "less-time-than-the-best-dense-kernel": "amended",
        "measured-advantage-grows-with-length": "supported",
    }  # fmt: skip
    assert controls == {"rejected"}


def test_masking_that_were_fast_would_break_the_claim(judge):
    verdicts, _ = judge("moh", **{"masking/flash": 0.1})
    assert verdicts["less-time-than-flash-attention-2"] == "broken"


def slope_of(output, lengths, d):
    """What the lines of PyTorch would take, by name: there is no GPU to time them."""
    power = 1 if output.__name__ == "mala_output" else 2
    return power, [length**power for length in lengths]


def test_mala_holds_where_it_is_bound_by_memory(judge, monkeypatch):
    monkeypatch.setattr(lines, "time_slope", slope_of)
    verdicts, controls = judge("mala")
    assert verdicts == {
        "time-is-linear-in-tokens": "supported", "softmax-time-is-quadratic-in-tokens": "supported",
        "forward-faster-than-fused-softmax": "supported",
    }  # fmt: skip
    assert controls == {"rejected"}


def test_mala_as_slow_as_softmax_is_not_faster(judge):
    verdicts, _ = judge("mala", **{"SDPA/cudnn": 0.01})
    assert verdicts["forward-faster-than-fused-softmax"] is None
