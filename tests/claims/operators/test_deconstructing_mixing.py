"""Attention taken apart: language models without token mixing (Xue, Moosavi, Aletras, 2025).

What the paper says. *MLP* puts a gated layer of the same size in attention's place, so that no token hears of another.
Without any mixing models "collapse to near-random behavior" (abstract): 40.0 % on the NLU tasks, where guessing has
39.3, LAMBADA 0, perplexity 993.5 on WikiText, the same at every context length (Tables 1 and 4).

Notation. H(x_t | x_{t-1}) is the conditional entropy in nats, counted on the very pairs on which a loss is measured.

Scope. What one token can tell, and small trained models: text is Python source in bytes, recall asks for the values of
three keys given before; sizes as in test_deconstructing_trained.py.
"""

import math

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.operators.deconstructing import GUESS_PERPLEXITY, PERPLEXITY, conditional_entropy

PAPER = "xue2025deconstructing"
MIXING = ("standard", "Approximate", "Non-approximate", "RndEmbQK", "FixedSeqQK", "StaticEmbQK")


no_context = Claim(
    paper=PAPER,
    slug="no-mixing-ignores-context",
    where="Table 4",
    says="Without token mixing the perplexity of given targets is the same at every length; with mixing it falls.",
    formula=r"p(x_t \mid x_{<t}) = p(x_t \mid x_{t-1})",
    gap="Table 4's lengths are 128 to 2048 tokens; improvement is shown from 2 bytes to 48 (full scale: 256), for all "
    "variants but Non-approximate, which improves at full scale only: see the notes.",
)


@no_context.check("exact", controls={kind: {"kind": kind} for kind in MIXING})
def test_an_earlier_token_does_not_reach_later_logits(evidence, rng, *, kind="MLP"):
    """Every token but the last is exchanged; the last token's logits do not change by a bit."""
    import torch

    from empirical.operators.deconstructing import untrained

    first = rng("tokens").integers(0, 16, 12)
    second = (first + rng("shift").integers(1, 16, 12)) % 16
    second[-1] = first[-1]
    first, second = torch.from_numpy(np.stack([first, second])[:, None])
    model = untrained((kind,) * 3, rng.seed("weights"))
    off = (model(first) - model(second))[:, -1].abs().max()
    evidence.expect("largest change of the last logits", off.detach(), equals=0, error=0)


@no_context.check("experiment", scope="mixing improves with context", controls={"MLP": {"kinds": ("MLP",)}})
def test_trained_models_that_mix_lose_by_a_short_context(
    evidence, paper_rng, scale, *, kinds=tuple(kind for kind in MIXING if kind != "Non-approximate")
):
    """Loss of the last byte of held-out excerpts from two bytes of context, above that from all; the worst seed."""
    from empirical.operators.deconstructing import SIZES, held_out, language_models, losses

    seed = paper_rng.seed("training")
    size = SIZES[scale]
    tokens = held_out(size, seed, 1024 if scale == "small" else 256)

    def gain(kind):
        models = language_models((kind,) * size.layers, size, seed)
        return (losses(models, tokens[:, -3:]) - losses(models, tokens)[..., -2:])[..., -1].mean(axis=1)

    rounding = 1000 * np.finfo(np.float32).eps
    for kind in kinds:
        evidence.expect("loss of the last byte that context saves", gain(kind), at_least=rounding, unit="nats")
    evidence.note(f"Uniform Non-approximate: {gain('Non-approximate').round(3).tolist()} nats saved.")


near_random = Claim(
    paper=PAPER,
    slug="no-mixing-near-random",
    where="Abstract",
    says="Without any token mixing language models collapse to near-random behaviour.",
    formula=r"L \ge H(x_t \mid x_{t-1})",
    repair="They use the current token and nothing else: far from random, but on any text the loss is at least the "
    "conditional entropy of the next token given the current one.",
    gap="As language models; their NLU accuracy, 40.0 against 39.3 by guessing, is near random.",
)


@near_random.refutation("exact", controls={"perplexity of a guess": {"perplexity": GUESS_PERPLEXITY}})
def test_its_perplexity_is_far_from_that_of_a_guess(evidence, *, perplexity=PERPLEXITY["MLP"]):
    """Table 1: 993.5 on WikiText lies nearer, in nats, to the standard model's 38.1 than to a guess's 3E+5."""
    half_way = math.sqrt(PERPLEXITY["standard"] * GUESS_PERPLEXITY)
    nats = math.log(half_way / perplexity)
    evidence.expect("nats below the half-way mark", nats, at_least=0)
    evidence.counterexample("Perplexity", MLP=perplexity, standard=PERPLEXITY["standard"], guess=GUESS_PERPLEXITY)


def frequencies(stream, reads):
    """Relative frequency of each token from the third on given the last `reads` tokens, 1 or 2; at most ten symbols."""
    context = stream[1:-1] + (reads == 2) * 10 * stream[:-2]
    counted = [np.unique(x, return_inverse=True, return_counts=True) for x in (context + 100 * stream[2:], context)]
    of_both, of_context = (counts[inverse] for _, inverse, counts in counted)
    return of_both / of_context


@near_random.check("property", controls={"frequencies given two tokens": {"reads": 2}})
@given(
    size=st.tuples(st.integers(20, 200), st.integers(2, 5)), blend=st.sampled_from((0.0, 0.01, 0.5)),
    seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_no_model_of_one_token_beats_the_conditional_entropy(evidence, size, blend, seed, *, reads=1):
    """Random streams; relative frequencies given one token, blended with other models, attain the bound unblended."""
    length, alphabet = size
    draw = np.random.default_rng(seed)
    stream = draw.integers(0, alphabet, length)
    context, token = stream[1:-1], stream[2:]
    table = draw.dirichlet(np.ones(alphabet), alphabet)
    p = (1 - blend) * frequencies(stream, reads) + blend * table[context, token]
    excess = -np.log(p).mean() - conditional_entropy(context, token)
    evidence.expect("loss above the conditional entropy", excess, at_least=-length * np.finfo(float).eps, unit="nats")
    if blend == 0:
        evidence.expect("distance from it at the optimum", abs(excess), at_most=length * np.finfo(float).eps)


@near_random.refutation("experiment", controls={"untrained models": {"steps": 0}})
def test_trained_without_mixing_models_learn_more_than_letter_frequencies(evidence, paper_rng, scale, *, steps=None):
    """Loss on held-out text of the worst seed, below the entropy of single bytes and far below ln 128."""
    from dataclasses import replace

    from empirical.operators.deconstructing import SIZES, held_out, language_models, losses

    seed = paper_rng.seed("training")
    size = SIZES[scale] if steps is None else replace(SIZES[scale], steps=steps)
    tokens = held_out(size, seed)
    loss = losses(language_models(("MLP",) * size.layers, size, seed), tokens).mean(axis=(1, 2))
    context, token = tokens[:, :-1].numpy().ravel(), tokens[:, 1:].numpy().ravel()
    alone, given_one = conditional_entropy(0 * context, token), conditional_entropy(context, token)
    evidence.expect("loss of the worst seed", loss.max(), less_than=("entropy of single bytes", alone), unit="nats")
    evidence.counterexample("MLP", loss=loss.round(3).tolist(), guess=math.log(128), single_bytes=alone)
    evidence.note(f"Conditional entropy given the current byte, on the same pairs: {given_one:.3f} nats.")


@near_random.check("experiment", scope="trained on recall", controls={"standard attention": {"kind": "standard"}})
def test_trained_without_mixing_models_stay_above_the_conditional_entropy(evidence, paper_rng, *, kind="MLP"):
    """Recall: the answer is uniform given the key alone; models that mix answer far below that entropy."""
    from empirical.operators.deconstructing import recall_losses, recall_models

    seed = paper_rng.seed("training")
    loss, key, value = recall_losses(recall_models((kind, kind), seed), seed)
    excess = loss.mean(axis=1) - conditional_entropy(key, value)
    evidence.expect("loss above the conditional entropy", excess, at_least=0, unit="nats")
