"""The sparse branch for Hopper without a GPU: its gate in our interpreter for Gluon, and its sums of exponentials."""

from functools import partial

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("triton", reason="needs triton (pip install triton)")

from benchmarks.gate import judge  # noqa: E402
from benchmarks.gluon_interpreter import interpreted  # noqa: E402
from benchmarks.kernels import sla_hopper as hopper  # noqa: E402
from benchmarks.kernels.sla_map import listed  # noqa: E402
from benchmarks.sla import Sla, half_dropped, make, plain, reference, tensors  # noqa: E402
from theory.operators.attention import scores  # noqa: E402
from theory.operators.sla import spread  # noqa: E402

WIDE = partial(Sla, query_block=128, key_block=64, width=64, dtype="bfloat16")
CASES = [
    WIDE(1, 64, high=100, low=0),
    WIDE(130, 200, width=128, heads=2, high=70, dtype="float16"),
    WIDE(700, 1000, heads=2, batch=2, strided=True),
    WIDE(300, 128, high=0),
]


def draw(case, seed=0):
    return make(case, torch.Generator().manual_seed(seed))


def run(inputs, blocks=lambda blocks: blocks):
    """O^s and sums of exponentials."""
    q, k, v, given = tensors(inputs)
    return hopper.forward(q, k, v, *listed(blocks(given)), q.shape[-1] ** -0.5)


def judged(case, seed=0, **change):
    inputs = draw(case, seed)
    alone = [{"o_s": function(inputs)["o_s"]} for function in (reference, plain)]
    with interpreted(hopper, seed=seed):
        return judge(case, lambda given: {"o_s": run(given, **change)[0]}, inputs, *alone)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.label)
def test_it_passes_the_gate_in_the_interpreter(case, seed):
    assert [one for one in judged(case, seed) if not one.passed] == []


def test_the_gate_refuses_it_with_half_of_its_lists():
    assert not all(one.passed for one in judged(CASES[2], blocks=half_dropped))


def test_it_leaves_the_sums_of_exponentials_in_base_two():
    case = CASES[1]
    inputs = draw(case)
    q, k, _, blocks = tensors(inputs)
    with interpreted(hopper):
        found = run(inputs)[1]
    seen = spread(blocks, q.shape[2], k.shape[2], case.form) == 1
    true = scores(q.double(), k.double()).masked_fill(~seen, -torch.inf).logsumexp(-1) / torch.tensor(2.0).log()
    torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=1e-5)


def test_it_says_what_it_takes():
    q, k, v, _ = tensors(draw(CASES[0]))
    assert hopper.supported(q, k, v, 128, 64)
    assert not hopper.supported(q, k, v, 64, 64)
    assert not hopper.supported(q.float(), k, v, 128, 64)
    assert not hopper.supported(q[..., :32], k[..., :32], v[..., :32], 128, 64)
    assert not hopper.supported(q, k[:, :, :, :1].expand_as(k), v, 128, 64)
