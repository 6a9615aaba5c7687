"""Attention taken apart: layers that read queries and keys elsewhere (Xue, Moosavi, Aletras, 2025).

What the paper says. *RndEmbQK* and *FixedSeqQK* read queries and keys from a second stream that starts as noise, or as
a fixed text, and passes through the same layers, so that the attention maps can be cached (Section 3.4). *StaticEmbQK*
reads them from the token embeddings, so that the maps of all layers can be computed at once (Section 3.5).

Notation. A map is the matrix of attention weights of one head.

Scope. These statements hold for all weights: random ones in float64, width 24, two heads, texts of twelve tokens.
"""

import numpy as np

from reports.claim import Claim

PAPER = "xue2025deconstructing"
MIXING = ("standard", "Approximate", "Non-approximate", "RndEmbQK", "FixedSeqQK", "StaticEmbQK")


def uniform(kind, layers=3):
    return (kind,) * layers


def two_texts(rng, length=12):
    """(2, 1, length) tokens that differ at every position."""
    import torch

    first = rng("tokens").integers(0, 16, length)
    second = (first + rng("shift").integers(1, 16, length)) % 16
    return torch.from_numpy(np.stack([first, second])[:, None])


def change(before, after):
    """Largest change of any entry of any of these maps."""
    return max(float((a - b).detach().abs().max()) for a, b in zip(before, after, strict=True))


# -- Which maps depend on what ----------------------------------------------------------------------------------------

fixed = Claim(
    paper=PAPER,
    slug="fixed-maps",
    where="Section 3.4",
    says="In RndEmbQK and FixedSeqQK the attention maps do not depend on the input, so that they can be cached.",
    formula=r"A^{(l)}(x) = A^{(l)}(x') \quad\text{for all inputs } x, x'",
    gap="At given weights: while the model trains, the maps move with them.",
)


@fixed.check("exact", controls={kind: {"kinds": (kind,)} for kind in MIXING if kind[:3] not in ("Rnd", "Fix")})
def test_maps_are_the_same_for_texts_that_differ_everywhere(evidence, rng, *, kinds=("RndEmbQK", "FixedSeqQK")):
    """Three layers, and the odd layers of a hybrid of four, whose second stream passes the standard layers too."""
    from empirical.operators.deconstructing import hybrid, untrained

    first, second = two_texts(rng)
    for kind in kinds:
        whole = untrained(uniform(kind), rng.seed("weights"))
        evidence.expect("largest change of a map", change(whole.maps(first), whole.maps(second)), equals=0, error=0)
        mixed = untrained(hybrid(kind, 4), rng.seed("hybrid"))
        maps = mixed.maps(first)[::2], mixed.maps(second)[::2]
        evidence.expect("largest change of a hybrid's odd map", change(*maps), equals=0, error=0)


static = Claim(
    paper=PAPER,
    slug="static-maps-in-parallel",
    where="Section 3.5",
    says="In StaticEmbQK the maps of all layers follow from the token embeddings, without running the layers below.",
    formula=r"A^{(l)} = A^{(l)}(\mathrm{Emb}(x))",
    gap="That this saves time is not measured.",
)


@static.check("exact", controls={kind: {"kind": kind} for kind in MIXING if kind != "StaticEmbQK"})
def test_new_weights_in_the_first_layer_leave_later_maps_alone(evidence, rng, *, kind="StaticEmbQK"):
    """All parameters of the first block are drawn anew; the maps of layers 2 and 3 stay as they were, to the bit."""
    import torch

    from empirical.operators.deconstructing import untrained

    model, tokens = untrained(uniform(kind), rng.seed("weights")), two_texts(rng)[0]
    before = model.maps(tokens)[1:]
    with torch.no_grad():
        for parameter in model.blocks[0].parameters():
            parameter.copy_(torch.from_numpy(0.3 * rng("new", parameter.numel()).standard_normal(parameter.shape)))
    evidence.expect("largest change of a later map", change(before, model.maps(tokens)[1:]), equals=0, error=0)


first_layer = Claim(
    paper=PAPER,
    slug="static-first-layer-is-standard",
    where="Section 3.5 (our consequence)",
    says="The first layer of StaticEmbQK is a layer of standard attention: its input is the embedding. A hybrid "
    "in which it is the only simple layer is the standard model.",
    formula=r"X_0 = \mathrm{Emb}(x)",
    gap="Among 24 layers it is one of twelve simple ones; in a hybrid of two layers it is all.",
)


@first_layer.check("exact", controls={kind: {"kind": kind} for kind in MIXING if kind[:3] not in ("sta", "Sta")})
def test_with_the_same_weights_the_logits_are_the_same(evidence, rng, *, kind="StaticEmbQK"):
    """Two layers, the second standard, and the same random weights in both models."""
    from empirical.operators.deconstructing import untrained

    tokens = two_texts(rng)[0]
    models = [untrained((one, "standard"), rng.seed("weights")) for one in (kind, "standard")]
    models[0].load_state_dict(models[1].state_dict())
    off = (models[0](tokens) - models[1](tokens)).abs().max()
    evidence.expect("largest difference of a logit", off.detach(), equals=0, error=0)
