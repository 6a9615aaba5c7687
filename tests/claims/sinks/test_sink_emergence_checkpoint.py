"""Attention sinks of a checkpoint of your own (Gu et al., "When Attention Sink Emerges in Language Models", ICLR 2025).

What the paper says. Auto-regressive language models have attention sinks on the first token, on natural text and on
random tokens; on one repeated token those with relative positions have none, as all hidden states are then equal. The
sink's value is short; its key is, too, and draws attention by its angle to the queries.

Notation. alpha_k of a head is the mean attention that key k gets from the queries that see it; a sink has alpha_k above
0.3. Keys seen by fewer than 10 queries are not judged. Heads and positions are found in every other sequence, and
judged in the rest.

Scope. The model behind --checkpoint reads 100 sequences of 64 tokens of --text, with the special tokens that its
tokenizer puts around a text. An encoder has no causal mask: alpha_k is then a mean over all queries, any position may
be the sink, and what the paper says of the first token is not asked of it.
"""

import numpy as np

from reports.claim import Claim
from theory.sinks.measures import EPSILON

PAPER = "gu2024attentionsink"
ALPHA = 1e-4
FRESH = {"the same architecture with fresh weights": {"weights": "fresh"}}


def heads_with_sinks(checkpoint):
    """(count, 3) layer, head, position."""
    from empirical.checkpoints import Lacks
    from empirical.sinks.portrait import portrait, sink_heads

    found = sink_heads(portrait(checkpoint))
    if not len(found):
        raise Lacks(f"attention sink at one position: nowhere is the mean of alpha above {EPSILON:g} on your text")
    return found


def needs_causal(checkpoint):
    from empirical.checkpoints import Lacks
    from empirical.sinks.portrait import portrait

    if not portrait(checkpoint).is_causal:
        raise Lacks("causal mask: for an encoder the first token is as any other")


def of_heads(array, heads):
    """(S, count): elements of (S, L, H, n) at the heads and positions."""
    return array[:, heads[:, 0], heads[:, 1], heads[:, 2]]


present = Claim(
    paper=PAPER,
    slug="checkpoint-sink",
    where="Abstract, Sections 3.2 to 3.4, Table 1",
    says="Your checkpoint has attention sinks on natural text: some head gives, in one sequence after the other, some "
    "position more than 0.3 of the attention of the queries that see it.",
    formula=r"\exists\, l, h: \; \max_k \alpha_k^{l,h} > 0.3, \quad"
    r" \alpha_k^{l,h} = \frac{1}{n - k + 1} \sum_{t \ge k} A_{t,k}^{l,h}",
    gap="The strongest head alone is judged; how many heads have a sink is in the notes. The sequences are short.",
)


@present.check("experiment", controls=FRESH)
def test_the_strongest_head_keeps_its_sink(evidence, checkpoint, *, weights="trained"):
    """Found in every other sequence, then a sign test over the rest: is its largest alpha above 0.3 there?"""
    from empirical.sinks.portrait import portrait

    for kind in ("natural", "random", "repeated"):
        evidence.note(in_words(kind, portrait(checkpoint, kind)))
    evidence.figure("Attention to the first position, by layer and head", heat_map(checkpoint), CAPTION)
    found = portrait(checkpoint, "natural", weights)
    largest = found.importance[..., : found.judged].max(axis=-1)  # (S, L, H)
    mean = largest[::2].mean(axis=0)
    layer, head = np.unravel_index(mean.argmax(), mean.shape)
    kinds, times = np.unique(found.importance[:, layer, head, : found.judged].argmax(axis=-1), return_counts=True)
    often = f"mostly at position {kinds[times.argmax()] + 1}, in {times.max()} of {times.sum()} sequences"
    evidence.note(f"Strongest: layer {layer + 1}, head {head + 1}, alpha {mean.max():.3f}, {often}.")
    sinks = largest[1::2, layer, head] > EPSILON
    evidence.majority("sequences where it has a sink", int(sinks.sum()), len(sinks), alpha=ALPHA)


CAPTION = "Mean alpha of the first position over all sequences; a sink has more than 0.3."


def in_words(kind, found):
    """Share of heads and sequences with a sink on the first position, and on any."""
    sinks = found.importance[..., : found.judged] > EPSILON
    first, anywhere = sinks[..., 0].mean(), sinks.any(axis=-1).mean()
    return f"Of heads on {kind} tokens {first:.1%} have a sink at position 1, {anywhere:.1%} at some position."


def heat_map(checkpoint):
    from matplotlib.figure import Figure

    from empirical.sinks.portrait import portrait

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    panels = figure.subplots(1, 3, sharey=True)
    for panel, kind in zip(panels, ("natural", "random", "repeated"), strict=True):
        mean = portrait(checkpoint, kind).importance[..., 0].mean(axis=0)
        layers, heads = mean.shape
        extent = (0.5, heads + 0.5, layers + 0.5, 0.5)
        image = panel.imshow(mean, vmin=0, vmax=1, cmap="magma", aspect="auto", extent=extent)
        panel.set_title(f"{kind} tokens", fontsize=10)
        panel.set_xlabel("head")
    panels[0].set_ylabel("layer")
    figure.colorbar(image, ax=panels, label="alpha of position 1")
    return figure


first = Claim(
    paper=PAPER,
    slug="checkpoint-first-token",
    where="Abstract, Section 3",
    says="Where a head of your checkpoint has a sink on natural text, it is mostly the first token.",
    formula=r"\alpha_1 > 0.3",
    gap="Which later tokens are sinks is another paper's question (yu2024unveiling).",
)


@first.check("experiment", controls=FRESH)
def test_most_sinks_are_the_first_token(evidence, checkpoint, *, weights="trained"):
    """In each sequence, are more of its sinks at position 1 than elsewhere? A tie, or none, counts against."""
    from empirical.checkpoints import Lacks
    from empirical.sinks.portrait import portrait

    needs_causal(checkpoint)
    true = portrait(checkpoint)
    if true.importance[..., : true.judged].max() <= EPSILON:
        raise Lacks(f"attention sink: nowhere is alpha above {EPSILON:g} on your text")
    found = portrait(checkpoint, "natural", weights)
    sinks = (found.importance[..., : found.judged] > EPSILON).sum(axis=(1, 2))  # (S, judged)
    evidence.note(f"{sinks[:, 0].sum() / max(sinks.sum(), 1):.1%} of all sinks are at position 1.")
    wins = int((sinks[:, 0] > sinks[:, 1:].sum(axis=1)).sum())
    evidence.majority("sequences with most sinks at position 1", wins, len(sinks), alpha=ALPHA)


drawn = Claim(
    paper=PAPER,
    slug="checkpoint-random-tokens",
    where="Section 3.3, Table 1",
    says="The sinks of your checkpoint do not need meaning: heads keep them on tokens drawn at random.",
    formula=r"\alpha_k(\text{random tokens}) > 0.3",
    gap="Random tokens come without the special tokens of a text, so that a sink that needs one of those is lost.",
)


@drawn.check("experiment", controls=FRESH)
def test_sink_heads_keep_their_sink_on_random_tokens(evidence, checkpoint, *, weights="trained"):
    """In each sequence of random tokens, do most of the heads that have a sink on text have theirs?"""
    from empirical.sinks.portrait import portrait

    heads = heads_with_sinks(checkpoint)
    kept = (of_heads(portrait(checkpoint, "random", weights).importance, heads) > EPSILON).mean(axis=1)
    evidence.note(f"{kept.mean():.1%} of {len(heads)} heads, in the mean over sequences.")
    evidence.majority("sequences where most heads have it", int((kept > 0.5).sum()), len(kept), alpha=ALPHA)


repeated = Claim(
    paper=PAPER,
    slug="checkpoint-repeated-token",
    where="Sections 3.3 and C.1, Table 1",
    says="With relative positions your checkpoint has no sink on one repeated token: all its hidden states are equal.",
    formula=r"x_1 = \dots = x_n \Rightarrow h_1^l = \dots = h_n^l, \quad \mathrm{Sink}_1^{0.3} = 0",
    gap="Hidden states are compared up to half of the digits of the dtype.",
)


@repeated.check("experiment", controls={"text in place of one token": {"kind": "natural"}})
def test_on_a_repeated_token_all_hidden_states_are_equal(evidence, checkpoint, *, kind="repeated"):
    """Distances from the first token's hidden state in every layer, then the share of heads with a sink there."""
    from empirical.checkpoints import Lacks
    from empirical.sinks.portrait import portrait

    needs_causal(checkpoint)
    if portrait(checkpoint, "repeated").apart[:, 0].max() > 0:
        raise Lacks("relative positions alone: its input tells one repeated token from the next")
    found, half = portrait(checkpoint, kind), half_of_the_digits(checkpoint)
    evidence.expect("largest distance over the length", found.spread.max(), at_most=half)
    evidence.expect("share of first-token sinks", (found.importance[..., 0] > EPSILON).mean(), at_most=0)


def half_of_the_digits(checkpoint):
    import torch

    return float(torch.finfo(getattr(torch, checkpoint.source.dtype)).eps ** 0.5)


values = Claim(
    paper=PAPER,
    slug="checkpoint-short-value",
    where="Section 3.1, Figures 2 and 11 to 14",
    says="Where a head of your checkpoint has a sink, the sink's value is less than half as long as the other values.",
    formula=r"\| v_k \| < \tfrac{1}{2} \, \mathrm{mean}_{j \ne k} \| v_j \|",
    gap="The paper says `small`; one half is our reading of it. Key lengths are in the notes.",
)
LATER = {"a later token in place of the sink": {"shift": 17}}


@values.check("experiment", controls={**FRESH, **LATER})
def test_the_values_of_sinks_are_short(evidence, checkpoint, *, weights="trained", shift=0):
    """In each sequence that did not choose them, the mean over the heads with a sink, of values and of keys."""
    from empirical.sinks.portrait import portrait

    found, heads = portrait(checkpoint, "natural", weights), shifted(heads_with_sinks(checkpoint), shift, checkpoint)
    shown(found.values, "values")
    evidence.figure("Values, keys and angles by position", profile(checkpoint), "Means over the heads with a sink.")
    ratio = {name: of_heads(relative(getattr(found, name)), heads)[1::2] for name in ("values", "keys")}
    evidence.note(
        f"Keys of sinks are {ratio['keys'].mean():.2f} times as long as others, values {ratio['values'].mean():.2f}."
    )
    short = ratio["values"].mean(axis=1) < 0.5
    evidence.majority("sequences where it is so", int(short.sum()), len(short), alpha=ALPHA)


def profile(checkpoint):
    from matplotlib.figure import Figure

    from empirical.sinks.portrait import portrait

    found, heads = portrait(checkpoint), heads_with_sinks(checkpoint)
    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = figure.subplots(1, 3)
    curves = (relative(found.values), relative(found.keys), found.cosines)
    labels = ("length of the value", "length of the key", "cosine with queries")
    for panel, curve, label in zip(panels, curves, labels, strict=True):
        mean = curve[:, heads[:, 0], heads[:, 1]].mean(axis=(0, 1))
        panel.plot(np.arange(1, found.judged + 1), mean[: found.judged], ".-", ms=3)
        panel.set_title(label, fontsize=10)
        panel.set_xlabel("position")
    for panel in panels[:2]:
        panel.axhline(1, color="black", lw=0.5)
        panel.set_ylim(bottom=0)
    panels[0].set_ylabel("over the mean of the others")
    return figure


def shifted(heads, shift, checkpoint):
    """The same heads with positions moved on, around the end of the sequence."""
    from empirical.sinks.portrait import portrait

    places = (heads[:, 2] + shift) % portrait(checkpoint).judged
    return np.column_stack([heads[:, :2], places])


def relative(lengths):
    """(S, L, H, n) over the mean of the other tokens."""
    n = lengths.shape[-1]
    return lengths * (n - 1) / (lengths.sum(axis=-1, keepdims=True) - lengths)


def shown(array, what):
    """Not run where the model hides them."""
    from empirical.checkpoints import Lacks

    if np.isnan(array).any():
        raise Lacks(f"{what} that can be observed")


angles = Claim(
    paper=PAPER,
    slug="checkpoint-key-angle",
    where="Section 3.1",
    says="Where a head of your checkpoint has a sink, the sink's key is nearest in angle to the queries that see it.",
    formula=r"\mathrm{mean}_t \cos(q_t, k_{\mathrm{sink}}) > \mathrm{mean}_t \cos(q_t, k_j) \;\; \forall j",
    gap="Means over the queries that see a key, so that keys are compared on different queries.",
)


@angles.check("experiment", controls={**FRESH, **LATER})
def test_the_keys_of_sinks_are_nearest_in_angle(evidence, checkpoint, *, weights="trained", shift=0):
    """In each sequence that did not choose them: for most heads with a sink, has its key the largest mean cosine?"""
    from empirical.sinks.portrait import portrait

    found, heads = portrait(checkpoint, "natural", weights), shifted(heads_with_sinks(checkpoint), shift, checkpoint)
    shown(found.cosines, "queries and keys")
    largest = found.cosines[1::2, ..., : found.judged].max(axis=-1)[:, heads[:, 0], heads[:, 1]]
    share = (of_heads(found.cosines[1::2], heads) >= largest).mean(axis=1)
    evidence.note(f"For {share.mean():.1%} of {len(heads)} heads, in the mean over sequences.")
    evidence.majority("sequences where it is so for most heads", int((share > 0.5).sum()), len(share), alpha=ALPHA)
