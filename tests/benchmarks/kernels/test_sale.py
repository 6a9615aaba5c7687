"""SALE: its gate, its operators, and what they refuse."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gate import gate  # noqa: E402
from benchmarks.kernels import sale_select  # noqa: E402
from benchmarks.kernels.sale import kept_of, listed, prefill, runs_here, sale, select  # noqa: E402
from benchmarks.sale import BENCH, CASES, Prefill, cost, executed  # noqa: E402
from theory.operators import sale as theory  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(*shape, dtype=torch.float16, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def three(n=200, width=32, heads=2, dtype=torch.float16):
    return [draw(1, heads, n, width, dtype=dtype, seed=seed) for seed in range(3)]


def test_every_case_passes_the_gate_and_every_control_is_refused():
    assert runs_here(draw(1, 1, 4, 32))
    judged = gate(BENCH, device=DEVICE)
    assert judged.failures == []
    assert len(judged.judged) == 2 * len(CASES)
    assert min(judged.refused.values()) > 0


def test_integers_carried_in_fp8_multiply_exactly():
    n, width = 320, 128
    q, k = (torch.randint(-7, 8, (1, 1, 384, width), device=DEVICE) for _ in "qk")
    q[:, :, 200], k[:, :, 70] = 7, 7  # the largest sum, 49 * 128
    product = (q.double() @ k.double().mT)[0, 0]
    assert product.max() == 49 * width
    left = product[192:320, :128].unflatten(1, (4, 32)).unflatten(0, (2, 64)).amax((1, 3))  # the first segment
    ones, zeros = torch.ones(1, 1, 384, device=DEVICE), torch.zeros(1, 1, 384, device=DEVICE)
    scales = torch.ones(1, 1, n // 32, 4, device=DEVICE)
    carried = [x.float().to(torch.float8_e4m3fn) for x in (q, k)]
    for below in (-0.5, 0.5):
        for block in range(2):
            for key in range(4):
                threshold = ones * (left[block, key].float() + below)
                words = sale_select.compared(*carried, ones, threshold, scales, zeros)
                assert (words[0, 0, 3 + block, 0].item() >> key & 1) == (below < 0)


@pytest.mark.parametrize("tau", [0.3, 0.05, 0.01])
def test_kept_blocks_differ_from_those_of_float64_only_at_the_threshold(tau):
    q, k, _ = three(700, 64)
    kept = kept_of(*select(q, k, tau), 700)
    scores = theory.block_scores(q.double(), k.double())
    off = kept != theory.kept_blocks(scores, tau, 700)
    assert ((scores[off] / tau - 1).abs() < 1e-3).all()
    assert off.double().mean() <= 1e-2
    assert 0 < kept.double().mean() < 1


def test_lists_hold_the_kept_blocks_in_order():
    q, k, _ = three(700, 64)
    lists, counts = select(q, k, 0.3)
    again, numbers = listed(kept_of(lists, counts, 700), 700)
    assert torch.equal(counts, numbers)
    valid = torch.arange(lists.shape[-1], device=DEVICE) < counts[..., None]
    assert torch.equal(lists[valid], again[valid])


def test_a_threshold_of_zero_gives_dense_attention():
    q, k, v = three(330)
    dense = torch.nn.functional.scaled_dot_product_attention(*(x.double() for x in (q, k, v)), is_causal=True)
    torch.testing.assert_close(sale(q, k, v, 0.0).double(), dense, atol=2e-3, rtol=0)


def test_the_share_of_pairs_is_that_of_kept_blocks():
    q, k, _ = three(640)
    tau = torch.full((2,), 0.1, device=DEVICE)
    blocks = theory.selection(q.float(), k.float(), tau).double().mean().item() * 10 * 20
    found = executed(Prefill(640, width=q.shape[-1]), {"q": q, "k": k, "tau": tau})
    assert found == pytest.approx(4 * q.shape[-1] * q.shape[0] * q.shape[1] * blocks * 64 * 32)


@pytest.mark.parametrize(("width", "dtype"), [(48, torch.float16), (32, torch.float64), (256, torch.float16)])
def test_what_the_kernels_cannot_do_is_done_slowly(width, dtype):
    q, k, v = three(260, width, dtype=dtype)
    assert not runs_here(q)
    expected = theory.sale(*(x.double() for x in (q, k, v)), 0.2)
    torch.testing.assert_close(sale(q, k, v, 0.2).double(), expected, atol=1e-2, rtol=0)


def test_nothing_gives_nothing():
    empty = draw(1, 2, 0, 32)
    assert sale(empty, empty, empty, 0.1).shape == (1, 2, 0, 32)


def test_the_operators_keep_the_contract_of_custom_operators():
    q, k, v = three(70)
    tau = torch.full((2,), 0.1, device=DEVICE)
    # What lies behind the counts is not initialised, so that outputs of two runs cannot be compared there.
    kinds = ("test_schema", "test_autograd_registration", "test_faketensor")
    found = torch.library.opcheck(torch.ops.attest.sale_select, (q, k, tau), test_utils=kinds)
    found |= torch.library.opcheck(torch.ops.attest.sale_prefill, (q, k, v, *select(q, k, tau)))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": draw(2, 4, 32)}, r"give \(batch, heads, length, width\)"),
        ({"k": draw(1, 4, 9, 64)}, "differ in batch, length or width"),
        ({"v": draw(1, 4, 8, 32)}, "differ in batch, length or width"),
        ({"q": draw(1, 4, 8, 32)}, "differ in batch, length or width"),
        ({"k": draw(1, 3, 9, 32), "v": draw(1, 3, 9, 32)}, "one must divide the other"),
        ({"v": draw(1, 4, 9, 32, dtype=torch.float32)}, "bring them together"),
        ({name: torch.ones(1, 4, 9, 32, dtype=torch.int32, device=DEVICE) for name in "qkv"}, "give bfloat16"),
        ({"tau": torch.zeros(3, device=DEVICE)}, "give a number a head, float32"),
        ({"tau": torch.zeros(4, dtype=torch.float64, device=DEVICE)}, "give a number a head, float32"),
        ({name: draw(1, 1, 1, 1).expand(1, 1, 2**20 + 1, 1) for name in "qkv"}, "block numbers are 16 bits"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(change, message):
    given = {"q": draw(1, 4, 9, 32), "k": draw(1, 4, 9, 32), "v": draw(1, 4, 9, 32), "tau": 0.1} | change
    with pytest.raises(ValueError, match=message):
        sale(**given)


def test_lists_of_another_call_are_refused():
    q, k, v = three(70)
    lists, counts = select(*three(200)[:2], 0.1)
    with pytest.raises(ValueError, match="are not those of q"):
        prefill(q, k, v, lists, counts)


def test_the_cost_is_that_of_dense_causal_attention():
    found = cost(Prefill(1024, heads=8, key_heads=2))
    assert found.flops == 4 * 8 * 1024**2 / 2 * 128
    assert found.bytes == 2 * (2 * 8 + 2 * 2) * 1024 * 128
