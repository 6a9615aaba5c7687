"""Memory and time of Kolmogorov-Arnold attention (Maity et al., 2025).

What the paper says. Its operator with N x N units per head is impossible to implement for want of memory, the modular
one with r x N units is the remedy; training is much slower than with softmax, inference comparable.

Notation. N = 197 tokens, r = 12, G = 3. *Shared*: sines and cosines of each score are computed once, and a product of
matrices makes all units of them, as in our operator. *One by one*: each phi_pq is evaluated on its own.

Scope. Our code; the authors' is not public. Bytes that autograd keeps are counted exactly on the CPU. GPU checks run
with a GPU only.
"""

import pytest

from reports.claim import Claim
from theory.operators.attention import kolmogorov_arnold
from theory.operators.karat import RANK, TOKENS, VITS, broadcast_entries, matmul_entries

PAPER = "maity2025karat"

full = Claim(
    paper=PAPER,
    slug="full-operator-is-impossible",
    where="Abstract (memory explosion ... to remedy this), Design",
    says="The operator with N x N units per head cannot be implemented for want of memory; r x N units remedy this.",
    formula=r"\frac{\text{memory}(N \times N)}{\text{memory}(r \times N)} \approx \frac{N}{r} = 16.4",
    gap="Memory of the operator; its 8.4 million parameters for ViT-Tiny and 14 times the operations of the modular "
    "one remain.",
    repair="When each unit is evaluated one by one.",
)


def one_by_one(*inputs):
    from empirical.operators.karat import broadcast_operator

    return broadcast_operator(*inputs)


@full.refutation("exact", controls={"units evaluated one by one, N = 48": {"operator": one_by_one, "tokens": 48}})
def test_shared_sines_and_cosines_need_no_more_memory(evidence, *, operator=kolmogorov_arnold, tokens=TOKENS):
    """Bytes kept for the backward pass, one head, N = 197: the full operator against r = 12."""
    from empirical.operators.karat import bytes_for_backward

    whole, modular = (bytes_for_backward(operator, tokens, rank) for rank in (tokens, RANK))
    predicted = matmul_entries(tokens, tokens, 3) / matmul_entries(tokens, RANK, 3)
    # What both keep alike beside these entries brings the ratio nearer to 1.
    evidence.expect("memory of the full operator over the modular one", whole / modular, at_most=predicted)
    evidence.counterexample("Bytes per head and image", full=whole, modular=modular, N=tokens)


@full.check("exact", controls={"shared sines and cosines": {"operator": kolmogorov_arnold}})
def test_one_by_one_the_memory_falls_with_r(evidence, *, operator=one_by_one):
    """N = 48: the ratio is nearer to N / r = 4 than to 1, what sharing gives (half-way: 5/2)."""
    from empirical.operators.karat import bytes_for_backward

    tokens = 48
    ratio = bytes_for_backward(operator, tokens, tokens) / bytes_for_backward(operator, tokens, RANK)
    predicted = broadcast_entries(tokens, tokens, 3) / broadcast_entries(tokens, RANK, 3)
    evidence.expect("memory of the full operator over the modular one", ratio, at_least=(1 + predicted) / 2)


speed = Claim(
    paper=PAPER,
    slug="inference-is-comparable",
    where="Compute Requirements (text and Throughput by Models)",
    says="Inference with KArAt is about as fast as with softmax, at least 0.86 of it (the page's lowest bar).",
    formula=r"\frac{\text{images/s}(\text{KArAt})}{\text{images/s}(\text{softmax})} \ge 0.86",
    gap="Our operator in float32, plain PyTorch, one GPU, images already there. On the page ViT-T and ViT-B, 14 times "
    "the operations, show the same 187 images a second: something other than the model was the limit there.",
)


def need_gpu():
    """Skip where there is none."""
    import torch

    if not torch.cuda.is_available():
        pytest.skip("needs a GPU: times ViT-T, S and B with batch 32")


@speed.refutation("benchmark", controls={"softmax in place of KArAt": {"rank": None}})
def test_the_model_alone_is_slower(evidence, *, rank=RANK):
    """ViT-T, S and B, batch 32: the least ratio of throughputs; peak memory of a training step is noted."""
    need_gpu()
    from empirical.operators.karat import gpu_cost, vision_transformer

    ratios = []
    for vit in VITS:
        plain, ours = (gpu_cost(vision_transformer(vit.width, vit.heads, one, vit.grid)) for one in (None, rank))
        ratios.append(plain["inference"] / ours["inference"])
        evidence.note(
            f"ViT-{vit.name}: inference {ratios[-1]:.2f} of softmax's images/s; a training step takes "
            f"{ours['step'] / plain['step']:.2f} times as long, {ours['memory']:.2f} GB against {plain['memory']:.2f}."
        )
    evidence.expect("least throughput over softmax's", min(ratios), less_than=0.86)
    found = {vit.name: round(ratio, 2) for vit, ratio in zip(VITS, ratios, strict=True)}
    evidence.counterexample("Throughput over softmax's", **found)


training = Claim(
    paper=PAPER,
    slug="training-is-much-slower",
    where="Compute Requirements (text)",
    says="A training step with KArAt takes much longer than one with softmax (no number; our reading: twice as long).",
    formula=r"\frac{\text{s/step}(\text{KArAt})}{\text{s/step}(\text{softmax})} \ge 2",
    gap="Our operator in float32, plain PyTorch, one GPU, images already there; the paper's ratio is not printed.",
)


@training.check("benchmark", controls={"softmax in place of KArAt": {"rank": None}})
def test_a_training_step_takes_at_least_twice_as_long(evidence, *, rank=RANK):
    """ViT-T, S and B, batch 32: the least ratio of the seconds of a step."""
    need_gpu()
    from empirical.operators.karat import gpu_cost, vision_transformer

    for vit in VITS:
        plain, ours = (gpu_cost(vision_transformer(vit.width, vit.heads, one, vit.grid)) for one in (None, rank))
        evidence.note(f"ViT-{vit.name}: {1e3 * ours['step']:.1f} ms a step, softmax {1e3 * plain['step']:.1f} ms.")
        evidence.expect("seconds of a step over softmax's", ours["step"] / plain["step"], at_least=2)
