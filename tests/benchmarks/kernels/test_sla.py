"""Sparse-linear attention: its gate, its map, its operator, and what it refuses."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gate import gate  # noqa: E402
from benchmarks.kernels.sla import layer, sla  # noqa: E402
from benchmarks.kernels.sla_map import block_map, listed, runs_here  # noqa: E402
from benchmarks.sla import BENCH, FORWARD, TIMED, cost, executed, make  # noqa: E402
from theory.operators import sla as theory  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
FORM = theory.Form(32, 16)
SIZES = {"query_block": 32, "key_block": 16}


def draw(*shape, dtype=torch.float16, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def three(queries=70, keys=50, dtype=torch.float16):
    return [draw(1, 2, length, 16, dtype=dtype, seed=seed) for seed, length in enumerate((queries, keys, keys))]


def some_map(queries=70, keys=50):
    q, k, _ = three(queries, keys)
    return block_map(q, k, **SIZES, high=0.3, low=0.3)


def test_every_case_passes_the_gate_and_every_control_is_refused():
    assert runs_here(draw(1, 1, 4, 16), 32, 16)
    judged = gate(BENCH, device=DEVICE)
    assert judged.failures == []
    assert len(judged.judged) == 5 * len(FORWARD)
    assert min(judged.refused.values()) > 0


@pytest.mark.parametrize("shape", [(70, 50), (32, 16), (1, 200)])
def test_the_map_is_the_one_of_theory(shape):
    q, k, _ = three(*shape)
    expected = theory.block_map(q.float(), k.float(), **SIZES, high=0.3, low=0.3)
    assert torch.equal(block_map(q, k, **SIZES, high=0.3, low=0.3), expected)


def test_equal_blocks_are_ranked_by_their_place():
    kinds = block_map(draw(1, 1, 32, 16), torch.zeros(1, 1, 64, 16, device=DEVICE).half(), **SIZES, high=0.25, low=0.5)
    assert kinds.tolist() == [[[[1, 0, -1, -1]]]]


def test_lists_name_the_critical_blocks_of_rows_and_of_columns():
    kinds = torch.tensor([[1, 0, 1], [-1, 1, 1]], dtype=torch.int8, device=DEVICE)[None, None]
    for columns, named in ((False, [[0, 2], [1, 2]]), (True, [[0], [1], [0, 1]])):
        lists, counts = listed(kinds, columns=columns)
        assert [row[:held].tolist() for row, held in zip(lists[0, 0], counts[0, 0], strict=True)] == named


@pytest.mark.parametrize("linear", ["marginal", "rest", "all", "none"])
def test_outputs_and_gradients_are_those_of_the_slow_path(linear):
    form, kinds = replace(FORM, linear=linear), some_map()
    found, expected = [], []
    for kept, dtype in ((found, torch.float16), (expected, torch.float64)):
        q, k, v = (x.to(dtype).requires_grad_() for x in three())
        outputs = sla(q, k, v, kinds, form)
        gradients = torch.autograd.grad(sum((o * o).sum() for o in outputs), (q, k, v))
        kept += [x.detach().double() for x in (*outputs, *gradients)]
    torch.testing.assert_close(found, expected, rtol=1e-2, atol=1e-2)


def test_a_single_key_is_returned_up_to_rounding():
    q, k, v = three(1, 1)
    for kind in (0, 1):
        kinds = torch.full((1, 2, 1, 1), kind, dtype=torch.int8, device=DEVICE)
        torch.testing.assert_close(sum(sla(q, k, v, kinds, FORM)), v, rtol=2**-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
@pytest.mark.parametrize("linear", ["marginal", "none"])
def test_the_operator_keeps_the_contract_of_custom_operators(dtype, linear):
    q, k, v = (x.requires_grad_() for x in three(40, 33, dtype))
    given = (q, k, v, some_map(40, 33), 32, 16, linear, "softmax", 0.25)
    report = torch.library.opcheck(torch.ops.attest.sla, given)
    assert set(report.values()) == {"SUCCESS"}


def test_what_the_kernel_cannot_do_is_done_slowly():
    q, k, v = (draw(1, 1, 6, 3, dtype=torch.float64, seed=seed).requires_grad_() for seed in range(3))
    assert not runs_here(q, 2, 2)
    kinds = torch.tensor([[1, 0, -1], [0, 1, 0], [-1, 0, 0]], dtype=torch.int8, device=DEVICE)[None, None]
    assert torch.autograd.gradcheck(lambda *given: sla(*given, kinds, theory.Form(2, 2)), (q, k, v))


def test_a_layer_without_projection_is_its_sparse_branch_and_with_the_identity_the_sum():
    q, k, v = three()
    outputs, zeros = sla(q, k, v, some_map(), FORM), torch.zeros(16, 16, device=DEVICE).half()
    for weight, expected in ((zeros, outputs[0]), (torch.eye(16, device=DEVICE).half(), sum(outputs))):
        found = layer(q, k, v, weight, zeros[0], FORM, high=0.3, low=0.3)
        torch.testing.assert_close(found, expected, rtol=2**-9, atol=2**-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": draw(2, 70, 16)}, r"give \(batch, heads, length, width\)"),
        ({"k": draw(1, 2, 50, 32)}, "give equal batch, heads, width"),
        ({"k": draw(1, 1, 50, 16), "v": draw(1, 1, 50, 16)}, "give equal batch, heads, width"),
        ({"v": draw(1, 2, 50, 16, dtype=torch.float32)}, "bring them together"),
        ({name: torch.ones(1, 2, 50, 16, dtype=torch.int32, device=DEVICE) for name in "qkv"}, "give bfloat16"),
        ({"k": draw(1, 2, 0, 16), "v": draw(1, 2, 0, 16)}, "an empty sequence has no blocks"),
        ({"q": draw(1, 2, 100, 16)}, r"give int8 \(1, 2, 4, 4\) beside q"),
        ({"blocks": torch.zeros(1, 2, 3, 4, device=DEVICE)}, "give int8"),
        ({"form": replace(FORM, linear="some")}, "linear is 'some': give one of marginal, rest, all, none"),
        ({"form": replace(FORM, features="hedgehog")}, "features is 'hedgehog': give one of softmax, elu, relu"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(change, message):
    given = dict(zip("qkv", three(), strict=True)) | {"blocks": some_map(), "form": FORM} | change
    with pytest.raises(ValueError, match=message):
        sla(**given)


def test_the_cost_is_that_of_dense_attention_and_what_is_executed_less():
    assert cost(TIMED).flops == 4 * 12 * 32_768**2 * 128
    assert cost(replace(TIMED, backward=True)).flops == 2.5 * cost(TIMED).flops
    small = replace(TIMED, queries=2048, heads=2, linear="none")
    for high, share in ((100, 1.0), (5, 1 / 32)):
        case = replace(small, high=high, low=0)
        assert executed(case, make(case, torch.Generator(DEVICE).manual_seed(0))) == share * cost(case).flops
