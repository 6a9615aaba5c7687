"""ZeroTuning's lever on a checkpoint of your own (Han et al., 2025): the first token's attention scaled by gamma.

What the paper says. Scaling the attention of every head to the first token makes a model better, more than scaling
another token's does; the right gamma can be found without labels, where the entropy of the output is least. gamma > 1
flattens attention (version 1), or the bias controls its entropy monotonically (version 2).

Notation. As in test_zerotuning.py. Loss and entropy of the output are nats a token; accuracy is the share of next
tokens held likeliest, or of your questions.

Scope. The model behind --checkpoint reads 100 sequences of 64 tokens of --text, with one gamma for all heads; the paper
chooses heads by search. What is chosen on every other sequence is judged on the rest.
"""

import numpy as np

from reports.claim import Claim

PAPER = "han2025zerotuning"
ALPHA = 1e-4
GRID = (0.25, 0.5, 0.8, 1.0, 1.25, 2.0, 4.0)
OTHER = 8
"""Place of the token, from 0, that stands for all others."""


def curves(checkpoint):
    """gamma -> what the model predicts with it."""
    from empirical.sinks.levers import ScaleToken, predictions

    return {gamma: predictions(checkpoint, None if gamma == 1 else ScaleToken(gamma)) for gamma in GRID}


gain = Claim(
    paper=PAPER,
    slug="checkpoint-gain",
    where="Abstract",
    says="Tuning the first token's attention, one gamma for all heads, lowers your checkpoint's loss on text.",
    formula=r"\min_{\gamma} L(\gamma) < L(1)",
    gap="Loss on text; the paper's gains are accuracies on tasks, with chosen heads.",
)


@gain.check(
    "experiment",
    controls={"gamma = 1": {"choose": lambda loss: 1.0}, "the worst": {"choose": lambda loss: max(loss, key=loss.get)}},
)
def test_the_chosen_gamma_predicts_better(evidence, checkpoint, *, choose=lambda loss: min(loss, key=loss.get)):
    """Chosen by the loss of every other sequence, judged on the others; a tie counts against."""
    found = curves(checkpoint)
    chosen = choose({gamma: one.loss[::2].mean() for gamma, one in found.items()})
    evidence.figure(
        "Loss, accuracy and entropy of the output over gamma", figure_of(found), "Means over all sequences."
    )
    better = (found[1.0].loss - found[chosen].loss)[1::2].mean(axis=1)
    evidence.note(f"Chosen: gamma = {chosen:g}; the loss falls by {better.mean():+.4f} nats a token on the others.")
    evidence.majority("sequences with less loss", int((better > 0).sum()), len(better), alpha=ALPHA)


def figure_of(found):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    panels = figure.subplots(1, 3)
    for panel, what in zip(panels, ("loss", "right", "entropy"), strict=True):
        panel.plot(GRID, [getattr(found[gamma], what).mean() for gamma in GRID], ".-")
        panel.axvline(1, color="black", lw=0.5)
        panel.set_xscale("log")
        panel.set_xlabel("gamma")
        panel.set_title({"right": "accuracy", "entropy": "entropy of the output"}.get(what, what), fontsize=10)
    return figure


guides = Claim(
    paper=PAPER,
    slug="checkpoint-entropy-guides",
    where="Abstract (versions 2 and 3)",
    says="Over gamma, your checkpoint's loss is the less the less the entropy of its output, so that a good gamma can "
    "be found without labels.",
    formula=r"\mathrm{Spearman}_{\gamma}(L, H_{\mathrm{out}}) > 0",
    gap="A rank correlation over seven values, one sequence at a time; permuted, they have either sign alike.",
)


@guides.check("experiment", controls={"the entropy turned around": {"sign": -1}})
def test_less_entropy_goes_with_less_loss(evidence, checkpoint, *, sign=1):
    """The correlation in each sequence; none, or a constant curve, counts against."""
    from scipy.stats import rankdata

    found = curves(checkpoint)
    ranks = []
    for what, direction in (("loss", 1), ("entropy", sign)):
        values = np.stack([getattr(found[gamma], what).mean(axis=1) for gamma in GRID])  # (gammas, S)
        ranks.append(rankdata(direction * values, axis=0) - (len(GRID) + 1) / 2)
    together = (ranks[0] * ranks[1]).sum(axis=0)
    for what, best in (("entropy", np.argmin), ("loss", np.argmin), ("right", np.argmax)):
        place = best([getattr(found[gamma], what).mean() for gamma in GRID])
        evidence.note(f"Best by {what}: gamma = {GRID[place]:g}.")
    evidence.majority("sequences where it is so", int((together > 0).sum()), len(together), alpha=ALPHA)


lever = Claim(
    paper=PAPER,
    slug="checkpoint-first-token-is-the-lever",
    where="Abstract",
    says="Scaling the attention to the first token changes what your checkpoint predicts more than scaling another's.",
    formula=r"|\Delta L(\gamma, \text{first})| > |\Delta L(\gamma, \text{another})|, \quad \gamma = \tfrac{1}{4}",
    gap="The size of the change, not a gain; the ninth token stands for the others.",
)


@lever.check("experiment", controls={"gamma = 1": {"gamma": 1.0}, "that other token itself": {"token": OTHER}})
def test_the_first_token_moves_predictions_more(evidence, checkpoint, *, gamma=0.25, token=0):
    """Mean magnitude of the change of a token's loss, over the tokens that both can act on; a tie counts against."""
    from empirical.sinks.levers import ScaleToken, predictions

    plain = predictions(checkpoint).loss
    changes = [abs(predictions(checkpoint, ScaleToken(gamma, one)).loss - plain) for one in (token, OTHER)]
    first, other = (change[:, OTHER:].mean(axis=1) for change in changes)
    evidence.note(f"{first.mean():.3g} nats a token, against {other.mean():.3g}.")
    evidence.majority("sequences where the first moves more", int((first > other).sum()), len(first), alpha=ALPHA)


FRESH = {"the same architecture with fresh weights": {"weights": "fresh"}}


def row_entropies(checkpoint, weights):
    """(S, gammas): mean entropy of the rows of all heads and layers, as they are tuned, each with its true others."""
    from empirical.sinks.portrait import portrait

    return portrait(checkpoint, "natural", weights).entropy.mean(axis=(1, 3))


flattens = Claim(
    paper=PAPER,
    slug="checkpoint-flattens",
    where="Abstract (version 1)",
    says="On your checkpoint gamma > 1 flattens the rows of attention and gamma < 1 sharpens them.",
    formula=r"H(\tfrac{1}{2}) < H(1) < H(2)",
    gap="Entropy of whole rows, in the mean over heads and queries, each row tuned alone; see sharpens-or-flattens.",
)


@flattens.check("experiment", controls=FRESH)
def test_entropy_rises_with_gamma(evidence, checkpoint, *, weights="trained"):
    """In each sequence, the mean entropy at gamma = 1/2, 1 and 2."""
    from empirical.sinks.portrait import portrait

    evidence.figure(
        "Entropy of attention by position", by_position(portrait(checkpoint)), "Mean over heads and layers."
    )
    found = row_entropies(checkpoint, weights)
    rising = (np.diff(found, axis=1) > 0).all(axis=1)
    evidence.majority("sequences where it rises", int(rising.sum()), len(rising), alpha=ALPHA)


def by_position(found):
    from matplotlib.figure import Figure

    from empirical.sinks.portrait import GAMMAS

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(1, found.tokens.shape[1] + 1)
    for number, gamma in enumerate(GAMMAS):
        axes.plot(places, found.entropy[:, :, number].mean(axis=(0, 1)), label=f"gamma = {gamma:g}")
    seen = places if found.is_causal else np.full(len(places), len(places))
    axes.plot(places, np.log(seen), "k:", label="uniform")
    axes.set_xlabel("position of the query")
    axes.set_ylabel("entropy of its row, nats")
    axes.legend()
    return figure


monotone = Claim(
    paper=PAPER,
    slug="checkpoint-monotone-entropy",
    where="Abstract (version 2)",
    says="On your checkpoint gamma controls the entropy of attention monotonically, in one direction or the other.",
    formula=r"H(\tfrac{1}{2}) < H(1) < H(2) \;\text{ or }\; H(\tfrac{1}{2}) > H(1) > H(2)",
    gap="In the mean over heads and queries; single rows may do otherwise, see monotone-entropy.",
)


@monotone.check("experiment", controls=FRESH)
def test_entropy_moves_one_way_with_gamma(evidence, checkpoint, *, weights="trained"):
    """In each sequence, the signs of the two changes; with fresh weights, near uniform, both ends have less entropy."""
    steps = np.diff(row_entropies(checkpoint, weights), axis=1)
    falling, rising = (steps < 0).all(axis=1), (steps > 0).all(axis=1)
    evidence.note(f"It rises in {rising.mean():.1%} and falls in {falling.mean():.1%} of sequences.")
    evidence.majority("sequences where it is monotone", int((rising | falling).sum()), len(steps), alpha=ALPHA)


asked = Claim(
    paper=PAPER,
    slug="checkpoint-questions",
    where="Abstract, tables",
    says="Tuning the first token's attention makes your checkpoint answer more of your questions.",
    formula=r"\mathrm{accuracy}(\gamma) > \mathrm{accuracy}(1)",
    gap="One gamma for all heads, chosen on half of the questions, judged on the rest; choices are listed, no example.",
)


@asked.check("experiment", controls={"gamma = 1": {"grid": (1.0,)}})
def test_more_questions_are_answered(evidence, rng, checkpoint, questions, *, grid=GRID):
    """Sign test over the questions whose answer changes between right and wrong, among those that did not choose."""
    from empirical.questions import measure
    from empirical.sinks.levers import ScaleToken

    right = {}
    for gamma in dict.fromkeys((*grid, 1.0)):
        edit = None if gamma == 1 else ScaleToken(gamma)
        scored = measure(checkpoint, questions, "string choices", 0, seed=rng.seed("none"), edit=edit)
        right[gamma] = np.array([one.prefix.index(max(one.prefix)) == one.answer for one in scored])
    chosen = max(grid, key=lambda gamma: right[gamma][::2].mean())
    rows = ", ".join(f"{gamma:g}: {right[gamma].mean():.1%}" for gamma in grid)
    evidence.note(f"Accuracy by gamma: {rows}. Chosen on half of them: {chosen:g}.")
    gained, before = right[chosen][1::2], right[1.0][1::2]
    evidence.expect("questions whose answer changes", int((gained != before).sum()), at_least=1)
    evidence.majority("of them, now right", int((gained & ~before).sum()), int((gained != before).sum()), alpha=ALPHA)
