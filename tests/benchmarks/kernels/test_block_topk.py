"""Decoding with the best pages of a cache: its gate, its operators, and what they refuse."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.block_topk import BENCH, CASES, Decode, cost, dense_cost, fast, make, plain, reference  # noqa: E402
from benchmarks.gate import gate  # noqa: E402
from benchmarks.kernels.block_topk import block_topk_attention, reference_selection, select_pages  # noqa: E402
from benchmarks.kernels.paged_attention import paged_attention, runs_here  # noqa: E402
from theory.operators.block_topk import block_topk, byte_ratio  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NAMES = ("q", "k", "v", "means", "table", "lengths")
PAGED = ("q", "k", "v", "table", "lengths")


def inputs_of(case, seed=0):
    return make(case, torch.Generator(DEVICE).manual_seed(seed))


def arguments(inputs, *names):
    return tuple(inputs[name] for name in names or NAMES)


def test_every_case_passes_the_gate_and_every_control_is_refused():
    assert runs_here(torch.zeros(1, 1, 16, device=DEVICE), 1, 16)
    judged = gate(BENCH, device=DEVICE)
    assert judged.failures == []
    assert len(judged.judged) == 3 * len(CASES)
    assert min(judged.refused.values()) > 0


def test_with_all_pages_it_is_attention_to_the_whole_context():
    inputs = inputs_of(Decode(100, heads=3, dtype="float32"))
    expected = torch.nn.functional.scaled_dot_product_attention(
        inputs["q"].unsqueeze(1), inputs["keys"], inputs["values"]
    ).squeeze(1)
    found = block_topk_attention(*arguments(inputs), top=5)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(paged_attention(*arguments(inputs, *PAGED)), expected)


def test_the_operator_is_the_one_of_theory():
    inputs = inputs_of(Decode(330, batch=2, heads=6, key_heads=2, dtype="float32"))
    q = inputs["q"].unflatten(1, (2, 3))
    expected = (block_topk(q, inputs["keys"], 4) @ inputs["values"]).flatten(1, 2)
    torch.testing.assert_close(block_topk_attention(*arguments(inputs), top=4), expected)


@pytest.mark.parametrize("top", [0, 3, 17])
def test_equal_scores_are_broken_by_the_earlier_page(top):
    inputs = inputs_of(Decode(320))
    inputs["means"].zero_()
    pages, left = select_pages(*arguments(inputs, "q", "means", "table", "lengths"), page=16, top=top)
    kept = [*range(top + 1), 19]
    assert torch.equal(pages[0, 0], inputs["table"][0, kept])
    assert left.tolist() == [[16 * len(kept)]]


@pytest.mark.parametrize("values", [[0.0, -1.0, 1.0, -2.0], [-0.0, 0.0, -3.0, -1.0], [1e30, -1e30, 1e-30, -1e-30]])
def test_scores_of_any_sign_and_size_keep_their_order(values):
    inputs = inputs_of(Decode(96, heads=1, width=16, dtype="float32"))
    inputs["q"].fill_(0)[..., 0] = 1
    inputs["means"][inputs["table"][0, 1:5], 0, 0] = torch.tensor(values, device=DEVICE)
    given = arguments(inputs, "q", "means", "table", "lengths")
    for top in range(5):
        found, expected = select_pages(*given, page=16, top=top), reference_selection(*given, 16, top)
        best = sorted(sorted(range(4), key=lambda page: -values[page])[:top])
        assert torch.equal(found[0], expected[0])
        assert torch.equal(found[0][0, 0, : top + 2], inputs["table"][0, [0, *(page + 1 for page in best), 5]])


def test_a_sequence_of_no_tokens_gives_zeros_beside_others():
    inputs = inputs_of(Decode(300, batch=3, heads=4))
    inputs["lengths"][1] = 0
    o = block_topk_attention(*arguments(inputs), top=2)
    assert torch.equal(o[1], torch.zeros_like(o[1]))
    torch.testing.assert_close(o, plain(inputs | {"top": 2})["o"], rtol=1e-2, atol=1e-2)


def test_an_empty_table_gives_zeros():
    inputs = inputs_of(Decode(16))
    q, k, v, means = arguments(inputs, "q", "k", "v", "means")
    nothing = torch.zeros(1, 0, dtype=torch.int32, device=DEVICE), torch.zeros(1, dtype=torch.int32, device=DEVICE)
    assert torch.equal(paged_attention(q, k, v, *nothing), torch.zeros_like(q))
    assert torch.equal(block_topk_attention(q, k, v, means, *nothing, top=3), torch.zeros_like(q))


def test_many_parts_add_up():
    inputs = inputs_of(Decode(2000, heads=8, top=200))
    expected = reference(inputs)["o"]
    torch.testing.assert_close(fast(inputs)["o"].double(), expected, rtol=1e-3, atol=1e-3)


def test_the_operators_keep_the_contract_of_custom_operators():
    inputs = inputs_of(Decode(100, heads=4, key_heads=2))
    given = arguments(inputs, "q", "means", "table", "lengths")
    report = torch.library.opcheck(torch.ops.attest.select_pages, (*given, 16, 2))
    assert set(report.values()) == {"SUCCESS"}
    report = torch.library.opcheck(
        torch.ops.attest.paged_attention, (*arguments(inputs, "q", "k", "v"), *inputs["chosen"], 0.125)
    )
    assert set(report.values()) == {"SUCCESS"}


@pytest.mark.parametrize("case", [Decode(100, page=12), Decode(100, width=300), Decode(100, dtype="float64")])
def test_what_the_kernel_cannot_do_is_done_slowly(case):
    inputs = inputs_of(case)
    assert not runs_here(inputs["q"], 1, case.page)
    found = block_topk_attention(*arguments(inputs), top=2)
    torch.testing.assert_close(found.double(), reference(inputs | {"top": 2})["o"], rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(2, 4, 1, 64)}, r"give \(batch, heads, width\)"),
        ({"k": torch.zeros(7, 16, 64)}, r"give \(physical pages, key heads, page, width\)"),
        ({"means": torch.zeros(7, 64).half()}, "give a mean key a page and key head"),
        ({"means": torch.zeros(6, 1, 64).half()}, "give a mean key a page and key head"),
        ({"q": torch.zeros(1, 2, 64)}, "give one of bfloat16"),
        ({"q": torch.zeros(1, 2, 32).half()}, "differ in width"),
        ({"v": torch.zeros(7, 1, 8, 64).half()}, r"v is torch.float16 \(7, 1, 8, 64\)"),
        ({"table": torch.zeros(1, 7)}, "give int32"),
        ({"table": torch.zeros(2, 7, dtype=torch.int32)}, "do not fit 1 sequences"),
        ({"lengths": torch.zeros(2, dtype=torch.int32)}, "do not fit 1 sequences"),
        ({"top": -1}, "no negative number of pages"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(change, message):
    inputs = inputs_of(Decode(100))
    moved = {name: x.to(DEVICE) if isinstance(x, torch.Tensor) else x for name, x in change.items()}
    given = {name: inputs[name] for name in NAMES} | {"top": 2} | moved
    with pytest.raises(ValueError, match=message):
        block_topk_attention(**given)


def test_heads_that_do_not_divide_are_refused():
    inputs = inputs_of(Decode(100, heads=4, key_heads=2))
    with pytest.raises(ValueError, match="heads do not divide"):
        paged_attention(inputs["q"][:, :3], *arguments(inputs, "k", "v", "table", "lengths"))


@pytest.mark.parametrize("width", [64, 300])
def test_tokens_beyond_the_table_are_not_seen(width):
    inputs = inputs_of(Decode(96, width=width))
    expected = [block_topk_attention(*arguments(inputs), top=2), paged_attention(*arguments(inputs, *PAGED))]
    inputs["lengths"] += 1000
    found = [block_topk_attention(*arguments(inputs), top=2), paged_attention(*arguments(inputs, *PAGED))]
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_bytes_are_those_of_theory_and_queries_and_outputs():
    case = Decode(16_384, batch=256, heads=4, width=128, top=64, dtype="bfloat16")
    ends = 2 * 4 * 128 * 2
    ratio = (dense_cost(case).bytes / 256 - ends) / (cost(case).bytes / 256 - ends)
    assert ratio == pytest.approx(float(byte_ratio(16_384)))
    assert dense_cost(case).flops == 4 * 256 * 4 * 16_384 * 128
