"""Outliers by the class token's attention (DAMRO; Gong et al., 2024): what the filter finds.

What the paper says. The attention of the vision encoder's class token filters out outlier tokens: the k image tokens
that get the most of it, k = 10 for LLaVA and 4 for InstructBLIP.

Notation. q is the class token's query, K the keys of n image tokens, C channels in h heads. The code for LLaVA takes
softmax(q K^T / sqrt(C)) over all channels at once (`merged`); that for InstructBLIP the mean of the heads' attention.

Scope. Keys and queries as random vectors with planted outliers; no image, no trained encoder.
"""

import numpy as np
from hypothesis import strategies as st

from reports.claim import Claim, given
from theory.sinks.damro import TOP, cls_attention, top

PAPER = "gong2024damro"

seeds = st.integers(0, 2**32 - 1)

finds = Claim(
    paper=PAPER,
    slug="class-token-finds-outliers",
    where="Abstract; modeling_llava.py (our reading: an outlier may stand out in one head)",
    says="The k image tokens with the most attention of the class token, as the released code for LLaVA computes it, "
    "are the outliers: those that stand out in the attention of a head.",
    formula=r"O = \mathrm{top}_k\, \mathrm{softmax}(q_{\mathrm{cls}} K^\top / \sqrt{C})",
    repair="Outliers that exceed the other tokens in the sum of the heads' logits, and k of them.",
    gap="Where the outliers of trained encoders stand out, in all heads or in some, was not looked at.",
)


def in_one_head():
    """20 tokens, two heads of one channel: the first token stands out in one head, the second is raised in both."""
    keys = np.zeros((20, 2))
    keys[0], keys[1] = (5, 0), (3, 3)
    return np.ones(2), keys


@finds.refutation("exact", controls={"the heads' mean": {"heads": 2}})
def test_an_outlier_of_one_head_is_passed_over(evidence, *, heads=1):
    """The first token gets 0.80 of the first head, more than any token of any head; its logits sum to 5, not 6."""
    query, keys = in_one_head()
    each = [cls_attention(query[h : h + 1], keys[:, h : h + 1]) for h in (0, 1)]
    others = max(each[0][1:].max(), each[1].max())
    evidence.expect("its attention in the first head, over any other's in any", each[0][0] / others, at_least=1)
    found = int(top(cls_attention(query, keys, heads), 1).argmax())
    evidence.expect("place of the token that is found", found, equals=1, error=0)
    evidence.counterexample("20 tokens, two heads", outlier=keys[0].tolist(), found=keys[1].tolist(), others=[0, 0])


def planted(seed, n, heads, width, count, margin, everywhere):
    """Normal queries and keys; in all heads or in the first, outliers exceed the largest logit by `margin` nats."""
    rng = np.random.default_rng(seed)
    query, keys = rng.standard_normal(heads * width), rng.standard_normal((n, heads * width))
    chosen = np.isin(np.arange(n), rng.choice(n, count, replace=False))
    logits = np.einsum("hc,nhc->nh", query.reshape(heads, width), keys.reshape(n, heads, width)) / np.sqrt(width)
    for h in range(heads if everywhere else 1):
        part, over = query[h * width : (h + 1) * width], logits[:, h].max() + margin - logits[chosen, h]
        keys[chosen, h * width : (h + 1) * width] += np.outer(over * np.sqrt(width), part / (part @ part))
    return query, keys, chosen


@finds.check("property", controls={"outliers of one head": {"everywhere": False}, "two tokens too many": {"extra": 2}})
@given(seed=seeds, n=st.integers(12, 80), heads=st.integers(2, 8), count=st.integers(1, 8))
def test_outliers_of_all_heads_are_found(evidence, seed, n, heads, count, *, everywhere=True, extra=0):
    """Normal keys, eight channels a head; outliers exceed all others by a nat in each head, so also in the sum."""
    query, keys, chosen = planted(seed, n, heads, 8, count, 1.0, everywhere)
    for name, h in (("merged", 1), ("the heads' mean", heads)):
        found = top(cls_attention(query, keys, h), count + extra)
        evidence.expect(f"tokens found wrongly, {name}", int((found & ~chosen).sum()), at_most=0)


differ = Claim(
    paper=PAPER,
    slug="two-filters",
    where="ours, on modeling_llava.py and modeling_instructblip.py",
    says="The two released filters agree on outliers of all heads and differ on outliers of one head, of which the one "
    "for LLaVA finds far fewer.",
    formula=r"\mathrm{recall}(\text{merged}) < \mathrm{recall}(\text{heads' mean})",
    gap="Normal keys at the size of CLIP ViT-L; which case trained encoders are is not known here.",
)


def recalls(seed, everywhere):
    """Share of 10 planted outliers found by either filter; 576 tokens, 16 heads of 64 channels."""
    query, keys, chosen = planted(seed, 576, 16, 64, TOP, 3.0, everywhere)
    return [top(cls_attention(query, keys, heads), TOP)[chosen].mean() for heads in (1, 16)]


@differ.check("statistical", controls={"outliers of all heads": {"everywhere": True}})
def test_the_merged_filter_finds_fewer_outliers_of_one_head(evidence, rng, *, everywhere=False):
    """24 draws, outliers 3 nats above all others in one head; in all heads both filters find all."""
    found = np.array([recalls(rng.seed("keys", i), everywhere) for i in range(24)])
    both = np.array([recalls(rng.seed("all heads", i), True) for i in range(4)])
    evidence.expect("recall of either, outliers of all heads", both, equals=1, error=0)
    evidence.note(f"Outliers of one head: merged {found[:, 0].mean():.2f}, heads' mean {found[:, 1].mean():.2f}.")
    fewer, untied = int((found[:, 0] < found[:, 1]).sum()), int((found[:, 0] != found[:, 1]).sum())
    evidence.expect("draws in which they differ", untied, at_least=1)
    evidence.sign_test("draws in which the merged one finds fewer", fewer, untied, alpha=1e-4)
