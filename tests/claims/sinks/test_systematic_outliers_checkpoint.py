"""Outliers of a checkpoint of your own (An et al., "Systematic Outliers in Large Language Models", ICLR 2025).

What the paper says. Language models have outliers of three kinds: in the hidden states that layers put out, always in
the same few dimensions; in weights, above all of the second matrix of the hidden layers; and in attention. They are
aligned: weights' and activations' in their dimensions, activations' and attention's in their positions.

Notation. An element is an outlier if its magnitude exceeds 1000 times the mean magnitude of its matrix or of all hidden
states of its layer; a key is, if it collects a tenth of the attention of all queries, averaged over heads.

Scope. The model behind --checkpoint reads 100 sequences of 64 tokens of --text; the paper's are of 1024. Weights are
those of the blocks. An encoder is measured in the same way, without its causal mask.
"""

import numpy as np

from reports.claim import Claim
from theory.sinks.measures import TAU

PAPER = "an2025systematic"
ALPHA = 1e-4
FRESH = {"the same architecture with fresh weights": {"weights": "fresh"}}

activations = Claim(
    paper=PAPER,
    slug="checkpoint-activation-outliers",
    where="Abstract, Figures 1 and 13 to 22",
    says="Some layer of your checkpoint puts out hidden states with an element above 1000 times their mean magnitude.",
    formula=r"\max | X^l | > 1000\, \mathrm{mean} | X^l |",
    gap="Whether an element counts depends on the width: one alone among D n elements reaches D n times the mean.",
)


@activations.check("experiment", controls=FRESH)
def test_some_layer_puts_out_massive_activations(evidence, checkpoint, *, weights="trained"):
    """Largest magnitude over the mean, of all elements of all sequences, in the layer where it is largest."""
    from empirical.sinks.portrait import portrait

    evidence.figure("Largest hidden elements by layer", by_layer(portrait(checkpoint)), "Mean over sequences.")
    for sentence in places(portrait(checkpoint)):
        evidence.note(sentence)
    found = portrait(checkpoint, "natural", weights)
    ratio = found.top[..., 0].max(axis=(0, 2)) / found.mean.mean(axis=0)
    evidence.expect("largest element over the mean magnitude", ratio.max(), at_least=TAU)


def places(found):
    """Where the outliers are; or, if there is none, where the largest element is."""
    out = found.outliers
    if not out.any():
        layer = int((found.top[..., 0].max(axis=(0, 2)) / found.mean.mean(axis=0)).argmax())
        sequence, place = np.unravel_index(found.top[:, layer, :, 0].argmax(), found.top[:, layer, :, 0].shape)
        dimension = found.dimensions[sequence, layer, place, 0]
        yield f"The largest is in dimension {dimension} at position {place + 1}, as layer {layer + 1} leaves it."
        return
    layers = np.flatnonzero(out.any(axis=(0, 2, 3))) + 1
    yield f"Layers with outliers: {', '.join(map(str, layers))} of {out.shape[1]}."
    for name, values in (("dimension", found.dimensions), ("position", np.arange(out.shape[2])[:, None] + 1)):
        kinds, counts = np.unique(np.broadcast_to(values, out.shape)[out], return_counts=True)
        most = np.argsort(-counts)[:5]
        yield f"Outliers by {name}: " + ", ".join(f"{kinds[i]} ({counts[i] / out.sum():.1%})" for i in most) + "."


def by_layer(found):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    layers = np.arange(1, found.top.shape[1] + 1)
    largest = np.sort(found.top.reshape(*found.top.shape[:2], -1), axis=-1).mean(axis=0)  # (L, 4 n)
    for rank in (1, 2, 3):
        axes.plot(layers, largest[:, -rank], ".-", label=f"{('largest', 'second', 'third')[rank - 1]}")
    axes.plot(layers, found.median.mean(axis=0), "k:", label="median")
    axes.set_yscale("log")
    axes.set_xlabel("layer")
    axes.set_ylabel("magnitude")
    axes.legend()
    return figure


def needs_activation_outliers(checkpoint):
    """The portrait, with at least one activation outlier."""
    from empirical.checkpoints import Lacks
    from empirical.sinks.portrait import portrait

    found = portrait(checkpoint)
    if not found.outliers.any():
        raise Lacks(f"activation outlier: no hidden element exceeds {TAU:g} times the mean")
    return found


def needs_weight_outliers(checkpoint):
    """(count,) dimensions of the residual stream that a weight outlier writes to."""
    from empirical.checkpoints import Lacks
    from empirical.sinks.weight_outliers import weight_outliers

    writing = [one for one in weight_outliers(checkpoint) if one.writes and one.outputs]
    if not writing:
        raise Lacks(f"weight outlier that writes to the residual stream: none exceeds {TAU:g} times its matrix's mean")
    return np.unique([output for one in writing for output in one.outputs])


fixed = Claim(
    paper=PAPER,
    slug="checkpoint-fixed-dimensions",
    where="Figure on positions of activation outliers",
    says="All layers of your checkpoint that have activation outliers have them in one same dimension, or more.",
    formula=r"\bigcap_l \{ d : |X^l_{t, d}| > 1000\, \mathrm{mean} |X^l| \} \ne \emptyset",
    gap="Of a layer with a single outlier nothing is shown.",
)


@fixed.check("experiment", controls={"each layer's dimensions drawn at random": {"drawn": True}})
def test_outliers_keep_their_dimensions_through_the_layers(evidence, rng, checkpoint, *, drawn=False):
    """The dimension that most layers share, and the share of layers with outliers that have it."""
    found = needs_activation_outliers(checkpoint)
    width = checkpoint.source.config.get_text_config().hidden_size
    pairs = zip(found.dimensions.swapaxes(0, 1), found.outliers.swapaxes(0, 1), strict=True)
    layers = [own for dimensions, out in pairs if len(own := np.unique(dimensions[out]))]
    if drawn:
        layers = [rng("layer", i).choice(width, len(own), replace=False) for i, own in enumerate(layers)]
    kinds, counts = np.unique(np.concatenate(layers), return_counts=True)
    evidence.note(f"Dimension {kinds[counts.argmax()]} in {counts.max()} of {len(layers)} layers with outliers.")
    evidence.expect("share of layers", counts.max() / len(layers), at_least=1)


weights_claim = Claim(
    paper=PAPER,
    slug="checkpoint-weight-outliers",
    where="Abstract, Figure on positions of weight outliers",
    says="Some matrix of your checkpoint has a weight above 1000 times its mean magnitude.",
    formula=r"\max |W| > 1000\, \mathrm{mean} |W|",
    gap="The paper also calls weights outliers that exceed 500 times the mean of their row or column; those are not.",
)


@weights_claim.check("experiment", controls=FRESH)
def test_some_matrix_has_a_massive_weight(evidence, checkpoint, *, weights="trained"):
    """Largest magnitude over mean magnitude, of all matrices of the blocks; the three largest in the notes."""
    from empirical.sinks.weight_outliers import weight_outliers

    matrices = sorted(weight_outliers(checkpoint, weights), key=lambda one: -one.ratio)
    for one in matrices[:3]:
        evidence.note(f"{one.name}: {one.ratio:.0f} times the mean.")
    evidence.expect("largest weight over its matrix's mean", matrices[0].ratio, at_least=TAU)


attention = Claim(
    paper=PAPER,
    slug="checkpoint-attention-outliers",
    where="Abstract, Figure on positions of attention outliers",
    says="In some layer of your checkpoint a key collects a tenth of the attention of all queries.",
    formula=r"\sum_t \mathrm{mean}_h A^h_{t, k} \ge 0.1\, n",
    gap="Keys of the last tenth cannot: too few queries see them, in a causal model.",
)


@attention.check("experiment", controls=FRESH)
def test_some_key_collects_a_tenth_of_all_attention(evidence, checkpoint, *, weights="trained"):
    """Sign test over sequences. At 64 tokens uniform causal attention gives its first key 0.074 of all attention."""
    from empirical.checkpoints import LENGTH, Lacks
    from empirical.sinks.portrait import portrait

    found = portrait(checkpoint, "natural", weights)
    if found.tokens.shape[1] < LENGTH:
        raise Lacks(f"{LENGTH} positions, and of fewer the first key has a tenth by chance")
    any_key = found.attention_outliers.any(axis=(1, 2))
    evidence.majority("sequences with such a key", int(any_key.sum()), len(any_key), alpha=ALPHA)


dimensions = Claim(
    paper=PAPER,
    slug="checkpoint-dimensions-align",
    where="Table 1",
    says="Every dimension in which your checkpoint has activation outliers is one that a weight outlier writes to.",
    formula=r"|D_A \cap D_W| = |D_A|",
    gap="The paper gives 100 % without saying of what; this is our reading.",
)


@dimensions.check("experiment", controls={"dimensions drawn at random": {"drawn": True}})
def test_activation_outliers_are_where_weight_outliers_write(evidence, rng, checkpoint, *, drawn=False):
    """The share, and in the notes how often as many dimensions drawn at random would have it."""
    from scipy.stats import hypergeom

    found, writes = needs_activation_outliers(checkpoint), needs_weight_outliers(checkpoint)
    width = checkpoint.source.config.get_text_config().hidden_size
    active = np.unique(found.dimensions[found.outliers])
    writes = rng("dimensions").choice(width, len(writes), replace=False) if drawn else writes
    shared = np.intersect1d(active, writes)
    chance = hypergeom.sf(len(shared) - 1, width, len(writes), len(active))
    evidence.note(f"Shared: {list(map(int, shared))}; by chance so many of {width} with probability {chance:.2g}.")
    evidence.expect("share of the activations' dimensions", len(shared) / len(active), at_least=1)


positions = Claim(
    paper=PAPER,
    slug="checkpoint-positions-align",
    where="Table 1",
    says="Of the tokens of your checkpoint that have activation outliers, 95 % are attention outliers in some layer.",
    formula=r"|P_A \cap P_{\mathrm{attn}}| \ge 0.95\, |P_A|",
    gap="The paper gives 95 % without saying of what; this is our reading. Layers need not be the same.",
)


@positions.check("experiment", controls={"positions moved on by 17": {"shift": 17}})
def test_activation_outliers_are_attention_outliers(evidence, checkpoint, *, shift=0):
    """The share over all sequences, and in the notes what positions at random would have in the mean."""
    found = needs_activation_outliers(checkpoint)
    active = np.roll(found.outliers.any(axis=(1, 3)), shift, axis=1)
    attended = found.attention_outliers.any(axis=1)
    evidence.note(f"Positions at random: {(attended.mean(axis=1) * active.sum(axis=1)).sum() / active.sum():.1%}.")
    evidence.expect("share of the activations' positions", (active & attended).sum() / active.sum(), at_least=0.95)
