"""Which stage of softmax a model needs, the positive map or the normalisation (Gao and Spratling, 2025).

What the paper says. Softmax is a positive map and an l1 normalisation. The normalisation is the essential stage: other
positive maps keep the performance of the exponential, and without l1 models collapse (ablations of the appendix).

Notation. A row without l1 is the map's values as they are. Models, losses and contexts as in
test_softplus_attention_trained.py, 1x being the training length; losses are means over models paired by their seed.

Scope. Softplus, sigmoid and ReLU of the scores q.k / sqrt(d), with and without l1, and nothing else changed.
"""

from reports.claim import Claim

PAPER = "gao2025softplus"
GAP = "Byte models of some thousand (full: some million) parameters trained for minutes; the paper's have 124 million."
NORMALISED = {"softplus l1": "softplus", "sigmoid l1": "sigmoid without offset"}
"""Positive maps with l1, and the same without it."""


def curves(name, scale, seed, **changes):
    """(seeds, contexts): losses of a variant's models."""
    from empirical.operators import softplus_attention

    return softplus_attention.curves(name, scale, seed, **changes)


def difference(evidence, quantity, first, second):
    """A note on the mean of the second (name, samples) minus that of the first, with its standard error."""
    (one, a), (other, b) = first, second
    error = (b - a).std(ddof=1) / len(b) ** 0.5
    evidence.note(f"{quantity}: {other} minus {one} {(b - a).mean():.3f}, standard error {error:.3f}, {len(b)} models.")


essential = Claim(
    paper=PAPER,
    slug="l1-is-essential",
    where="Abstract, appendix (normalisation ablation)",
    says="The l1 normalisation is the essential stage of softmax: without it a model collapses.",
    formula=r"a_{ij} = \operatorname{softplus}(s_{ij}) \Rightarrow L(1\times) \ge H(\text{byte})",
    gap=GAP + " Collapse is read as a loss no better than without any context, the entropy of single bytes. "
    "Division by the number of keys instead of l1 is in the notes: behind l1 at the training length, and not behind it "
    "at the longest context.",
    repair="Without l1 the loss is higher, with softplus and sigmoid at the training length already, with ReLU beyond "
    "it; it is still far below that without context.",
)


@essential.refutation("experiment", controls={"models without training": {"steps": 0}})
def test_models_without_l1_learn(evidence, paper_rng, scale, *, steps=None):
    """Softplus of the scores, nothing else: every model's loss at the training length is below the bytes' entropy."""
    from empirical.operators.softplus_attention import letter_entropy

    seed = paper_rng.seed("training")
    found = curves("softplus", scale, seed, steps=steps)[:, 0]
    evidence.expect(
        "loss of the worst model at 1x", found.max(), less_than=("entropy of a byte", letter_entropy()), unit="nats"
    )
    evidence.counterexample("Softplus without normalisation", loss=float(found.mean().round(3)), models=len(found))


@essential.check("experiment", controls={"softplus with l1 in both places": {"pairs": {"softplus l1": "softplus l1"}}})
def test_the_same_map_without_l1_is_worse(evidence, paper_rng, scale, *, pairs=NORMALISED):
    """Softplus and sigmoid: at the training length and at the longest context; ReLU: at the longest."""
    seed = paper_rng.seed("training")
    for one, other in {**pairs, "ReLU l1": "ReLU"}.items():
        a, b = curves(one, scale, seed), curves(other, scale, seed)
        for place, column in (("1x", 0), ("the longest context", -1)):
            difference(evidence, f"loss at {place}", (one, a[:, column]), (other, b[:, column]))
            if (one, column) != ("ReLU l1", 0):
                rival = (other, b[:, column].mean())
                evidence.expect(f"loss at {place}, {one}", a[:, column].mean(), less_than=rival, unit="nats")
    l1, length = curves("softplus l1", scale, seed), curves("softplus over length", scale, seed)
    for place, column in (("1x", 0), ("the longest context", -1)):
        difference(evidence, f"loss at {place}", ("softplus l1", l1[:, column]), ("over length", length[:, column]))


other_maps = Claim(
    paper=PAPER,
    slug="other-maps-keep-performance",
    where="Abstract (essential for maintaining model performance), appendix (ablation of the positive map)",
    says="Under l1 normalisation softplus and sigmoid keep the exponential's loss at the training length: they lose "
    "less than half of what the same map loses without l1.",
    formula=r"L_{\varphi / \|\varphi\|_1}(1\times) - L_{\exp} < \tfrac12 \bigl(L_{\varphi}(1\times) - L_{\exp}\bigr)",
    gap=GAP + " ReLU, which is 0 at negative scores and so no positive map, gains nothing from l1 at the training "
    "length: see the notes. At longer contexts softmax is ahead of all of them here.",
)


@other_maps.check("experiment", controls={"the same maps without l1": {"normalised": False}})
def test_softplus_and_sigmoid_with_l1_come_near_softmax(evidence, paper_rng, scale, *, normalised=True):
    """Mean loss at the training length above that of softmax, against half of that without l1."""
    seed = paper_rng.seed("training")
    softmax = curves("softmax", scale, seed)[:, 0]
    for one, other in {**NORMALISED, "ReLU l1": "ReLU"}.items():
        with_l1, without = (curves(name, scale, seed)[:, 0] for name in (one, other))
        difference(evidence, "loss at 1x", ("softmax", softmax), (one, with_l1))
        difference(evidence, "loss at 1x", ("softmax", softmax), (other, without))
        if one in NORMALISED:
            found = (with_l1 if normalised else without).mean() - softmax.mean()
            half = (without.mean() - softmax.mean()) / 2
            evidence.expect(
                f"{one}: loss above softmax's", found, less_than=("half of that without l1", half), unit="nats"
            )
