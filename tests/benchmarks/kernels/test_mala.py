"""MALA's kernels: their gate, the operator, and what it refuses."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gate import gate  # noqa: E402
from benchmarks.kernels.mala import PROGRAMS, _launch, mala, reference, runs_here  # noqa: E402
from benchmarks.mala import BENCH, FORWARD, Tokens, cost, make, materialised  # noqa: E402
from benchmarks.operation import Unsupported  # noqa: E402
from theory.operators.mala import official  # noqa: E402

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def draw(*shape, dtype=torch.float32, seed=0):
    generator = torch.Generator(DEVICE).manual_seed(seed)
    return torch.randn(shape, generator=generator, device=DEVICE).to(dtype)


def test_every_case_passes_the_gate_and_every_control_is_refused():
    assert runs_here(draw(1, 1, 4, 16))
    judged = gate(BENCH, device=DEVICE)
    assert judged.failures == []
    assert len(judged.judged) == 4 * len(FORWARD)
    assert min(judged.refused.values()) > 0


def test_the_operator_is_the_one_of_theory():
    q, k, v = (draw(2, 3, 40, 16, seed=seed) for seed in range(3))
    torch.testing.assert_close(mala(q, k, v), official(q, k) @ v, rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_plain_code():
    q, k, v = (draw(1, 2, 33, 16, seed=seed).requires_grad_() for seed in range(3))
    found = torch.autograd.grad(mala(q, k, v, scale=0.01).sum(), (q, k, v))
    expected = torch.autograd.grad(reference(q, k, v, 0.01).sum(), (q, k, v))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_operator_keeps_the_contract_of_custom_operators():
    q, k, v = (draw(1, 2, 20, 16, seed=seed).requires_grad_() for seed in range(3))
    report = torch.library.opcheck(torch.ops.attest.mala, (q, k, v, 0.01))
    assert set(report.values()) == {"SUCCESS"}


def test_what_the_kernel_cannot_do_is_done_slowly():
    q, k, v = (draw(1, 1, 5, 300, seed=seed) for seed in range(3))
    assert not runs_here(q)
    torch.testing.assert_close(mala(q, k, v, scale=0.01), reference(q, k, v, 0.01))
    doubles = [x[..., :3].double().requires_grad_() for x in (q, k, v)]
    assert torch.autograd.gradcheck(mala, doubles)


@pytest.mark.parametrize("width", [16, 300])
def test_a_query_without_features_gives_zeros_and_finite_gradients(width):
    q, k, v = (draw(1, 1, 4, width, seed=seed) for seed in range(3))
    q[:, :, 1] = -200.0  # exp(-200) is 0 in float32
    leaves = [x.requires_grad_() for x in (q, k, v)]
    o = mala(*leaves)
    assert torch.equal(o[:, :, 1], torch.zeros(1, 1, width, device=DEVICE))
    assert all(x.isfinite().all() for x in torch.autograd.grad(o.sum(), leaves))


@pytest.mark.parametrize(("queries", "keys"), [(0, 5), (5, 0), (0, 0)])
def test_nothing_to_attend_to_gives_zeros(queries, keys):
    q, k, v = (draw(1, 2, length, 16).requires_grad_() for length in (queries, keys, keys))
    o = mala(q, k, v)
    assert torch.equal(o, torch.zeros(1, 2, queries, 16, device=DEVICE))
    assert all((x == 0).all() for x in torch.autograd.grad(o.sum(), (q, k, v)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": draw(2, 4, 16)}, r"give \(batch, heads, length, width\)"),
        ({"k": draw(1, 4, 9, 8)}, "differ in batch, heads, keys or width"),
        ({"v": draw(1, 4, 8, 16)}, "differ in batch, heads, keys or width"),
        ({"k": draw(1, 2, 9, 16), "v": draw(1, 2, 9, 16)}, "differ in batch, heads, keys or width"),
        ({"v": draw(1, 4, 9, 16, dtype=torch.float16)}, "bring them together"),
        ({name: torch.ones(1, 4, 9, 16, dtype=torch.int32, device=DEVICE) for name in "qkv"}, "give bfloat16"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_name(change, message):
    given = {"q": draw(1, 4, 9, 16), "k": draw(1, 4, 9, 16), "v": draw(1, 4, 9, 16)} | change
    with pytest.raises(ValueError, match=message):
        mala(**given)


def test_a_matrix_too_large_is_not_written():
    case = Tokens(65_536, 65_536, width=1, heads=8, dtype="bfloat16")
    inputs = make(case, torch.Generator().manual_seed(0))
    with pytest.raises(Unsupported, match="a matrix of 69 GB"):
        materialised(inputs, official)


def test_the_buffers_stop_growing_with_the_sequence():
    shapes = [_launch(torch.empty(1, 8, n, 64, device="meta"))[0] for n in (1000, 65_536, 10**7)]
    assert shapes[0] == (4, 8)
    assert all(chunks * heads <= PROGRAMS for chunks, heads in shapes[1:])


def test_the_cost_is_linear_in_the_tokens():
    case, twice = (Tokens(n, n, heads=8, dtype="bfloat16") for n in (1024, 2048))
    assert cost(case).flops == 4 * 8 * 1024 * 64**2
    assert cost(case).bytes == 4 * 8 * 1024 * 64 * 2
    assert cost(twice).flops == 2 * cost(case).flops
    assert cost(Tokens(1024, 1024, backward=True)).flops == 10 * 1024 * 64**2
