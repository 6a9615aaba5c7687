"""Gathered mixture-of-head attention: its gate, its operator, and what it refuses."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gate import gate  # noqa: E402
from benchmarks.kernels.moh import moh_attention, reference, runs_here  # noqa: E402
from benchmarks.moh import BENCH, CASES, Heads, cost, dense_cost, make  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def gates(batch, tokens, heads, seed=9):
    """About half of them 0."""
    return draw(batch, tokens, heads, seed=seed).clamp(min=0)


def test_every_case_passes_the_gate_and_every_control_is_refused():
    assert runs_here(draw(1, 1, 4, 16))
    judged = gate(BENCH, device=DEVICE)
    assert judged.failures == []
    assert len(judged.judged) == 2 * len(CASES)
    assert min(judged.refused.values()) > 0


def test_gates_of_one_give_multi_head_attention():
    q, k, v = (draw(2, 3, 40, 16, seed=seed) for seed in range(3))
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    torch.testing.assert_close(moh_attention(q, k, v, torch.ones(2, 40, 3, device=DEVICE)), expected)


def test_a_row_that_is_not_selected_is_not_computed():
    q, k, v, g = *(draw(1, 2, 40, 16, seed=seed) for seed in range(3)), gates(1, 40, 2)
    broken = torch.where(g.transpose(1, 2).unsqueeze(-1) == 0, torch.nan, q)
    assert torch.equal(moh_attention(broken, k, v, g), moh_attention(q, k, v, g))


def test_no_gate_at_all_gives_zeros():
    q, k, v = (draw(1, 2, 70, 16, seed=seed) for seed in range(3))
    for causal in (False, True):
        o = moh_attention(q, k, v, torch.zeros(1, 70, 2, device=DEVICE), causal=causal)
        assert torch.equal(o, torch.zeros(1, 70, 32, device=DEVICE))


@pytest.mark.parametrize("causal", [False, True])
def test_gradients_are_those_of_plain_code(causal):
    leaves = [x.requires_grad_() for x in (*(draw(1, 2, 33, 16, seed=seed) for seed in range(3)), gates(1, 33, 2))]
    found = torch.autograd.grad(moh_attention(*leaves, causal=causal).sum(), leaves)
    expected = torch.autograd.grad(reference(*leaves, causal, 0.25).sum(), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_operator_keeps_the_contract_of_custom_operators():
    q, k, v, g = *(draw(1, 2, 20, 16, seed=seed).requires_grad_() for seed in range(3)), gates(1, 20, 2)
    report = torch.library.opcheck(torch.ops.attest.moh_attention, (q, k, v, g, True, 0.25))
    assert set(report.values()) == {"SUCCESS"}


def test_what_the_kernel_cannot_do_is_done_slowly():
    q, k, v, g = *(draw(1, 4, 5, 300, seed=seed) for seed in range(3)), gates(1, 5, 4)
    assert not runs_here(q)
    torch.testing.assert_close(moh_attention(q, k, v, g), reference(q, k, v, g, False, 300**-0.5))
    doubles = [x.double().requires_grad_() for x in (q[..., :3], k[:, :2, :, :3], v[:, :2, :, :3], g)]
    assert torch.autograd.gradcheck(lambda *given: moh_attention(*given, causal=True), doubles)


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_attend_to_gives_zeros(queries, keys):
    leaves = [draw(1, 2, length, 16).requires_grad_() for length in (queries, keys, keys)]
    leaves.append(torch.ones(1, queries, 2, device=DEVICE, requires_grad=True))
    o = moh_attention(*leaves)
    assert torch.equal(o, torch.zeros(1, queries, 32, device=DEVICE))
    assert all((x == 0).all() for x in torch.autograd.grad(o.sum(), leaves))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": draw(2, 4, 16)}, r"give \(batch, heads, length, width\)"),
        ({"k": draw(1, 4, 9, 8)}, "differ in batch, keys or width"),
        ({"k": draw(1, 3, 9, 16), "v": draw(1, 3, 9, 16)}, "one must divide the other"),
        ({"v": draw(1, 4, 9, 16, dtype=torch.float16)}, "bring them together"),
        ({name: torch.ones(1, 4, 9, 16, dtype=torch.int32, device=DEVICE) for name in "qkv"}, "give bfloat16"),
        ({"gates": gates(1, 4, 9)}, r"give \(batch, tokens, heads\)"),
        ({"gates": gates(1, 9, 4) != 0}, r"give \(batch, tokens, heads\)"),
        ({"scale": 0.0}, "give a positive number"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(change, message):
    given = {name: draw(1, 4, 9, 16) for name in "qkv"} | {"gates": gates(1, 9, 4)} | change
    with pytest.raises(ValueError, match=message):
        moh_attention(**given)


def test_executed_work_is_the_share_of_heads_and_the_whole_output_product():
    case = Heads(256, heads=32, shared=8, top=8, batch=64, dtype="bfloat16")
    product = 2 * 64 * 256 * 2048**2
    assert cost(case).flops - product == (dense_cost(case).flops - product) / 2 == 4 * 64 * 16 * 256**2 * 64
    assert cost(case).bytes < dense_cost(case).bytes


def test_each_token_uses_as_many_heads_as_the_case_says():
    inputs = make(Heads(50, heads=6, shared=2, top=3), torch.Generator().manual_seed(0))
    assert ((inputs["gates"] != 0).sum(-1) == 5).all()
    assert (inputs["gates"][..., :2] != 0).all()
