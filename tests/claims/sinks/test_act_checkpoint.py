"""Later sinks of a checkpoint of your own (Yu et al., "Unveiling and Harnessing Hidden Attention Sinks", ICML 2024).

What the paper says. Tokens after the first are attention sinks, too, often poor ones such as punctuation; not all of
them help, and lowering the later ones makes models better without training.

Notation. A later sink is a key whose mean attention, from the queries that see it, exceeds alpha / n, alpha = 5. Here
it is not among the first eight, where attention is high by chance, and a quarter of the queries see it: a head that
looks at a fixed distance back, or at a few such, then gives a key 4 / n at most. And it has more than any such key has
when the weights of each row, but the first, are in random order.

Scope. The model behind --checkpoint reads 100 sequences of 64 tokens of --text. All heads are calibrated, where the
paper searches for those that gain.
"""

import numpy as np

from reports.claim import Claim

PAPER = "yu2024unveiling"
ALPHA = 1e-4
FIRST = 8
"""Keys, from the first, that are not asked."""
FRESH = {"the same architecture with fresh weights": {"weights": "fresh"}}


def later_sinks(found, names=("importance", "shuffled")):
    """(S, L, H, keys) bool, of the keys asked, from position 9; `names`: of the maps, and of those it has to exceed."""
    from theory.sinks import act

    n = found.tokens.shape[1]
    own, chance = (getattr(found, name)[..., FIRST : n - n // 4 + 1] for name in names)
    return (own > act.ALPHA / n) & (own > chance.max(axis=-1, keepdims=True))


def causal_portrait(checkpoint, weights="trained"):
    from empirical.checkpoints import Lacks
    from empirical.sinks.portrait import portrait

    if not portrait(checkpoint).is_causal:
        raise Lacks("causal mask: for an encoder no token is later than another")
    return portrait(checkpoint, "natural", weights)


def needs_later_sinks(checkpoint):
    from empirical.checkpoints import Lacks

    if not later_sinks(causal_portrait(checkpoint)).any():
        raise Lacks("later sink on your text")


exist = Claim(
    paper=PAPER,
    slug="checkpoint-later-sinks",
    where="Abstract (1)",
    says="Heads of your checkpoint have sinks at later tokens, more than their rows have in random order.",
    formula=r"\max_{k > 8} \bar a_k > \max \bigl( \tfrac{5}{n}, \max_{k > 8} \bar a_k^{\mathrm{shuffled}} \bigr)",
    gap="The first token keeps its weight in the shuffled rows, so that a strong sink there does not count as chance.",
)


@exist.check("experiment", controls={**FRESH, "the shuffled maps": {"what": "shuffled", "chance": "importance"}})
def test_more_heads_have_later_sinks_than_by_chance(
    evidence, checkpoint, *, weights="trained", what="importance", chance="shuffled"
):
    """In each sequence: heads with a later sink, against heads whose shuffled map has one where theirs has none."""
    found = causal_portrait(checkpoint, weights)
    own, other = (later_sinks(found, names).any(axis=-1) for names in ((what, chance), (chance, what)))
    evidence.note(f"Of heads and sequences {own.mean():.1%} have a later sink, {other.mean():.1%} by chance.")
    wins = int((own.sum(axis=(1, 2)) > other.sum(axis=(1, 2))).sum())
    evidence.majority("sequences with more later sinks than by chance", wins, len(own), alpha=ALPHA)


poor = Claim(
    paper=PAPER,
    slug="checkpoint-later-sinks-are-delimiters",
    where="Body (from memory)",
    says="The later sinks of your checkpoint are poor in meaning: tokens without a letter or digit are more frequent "
    "among them than among all tokens of the same text.",
    formula=r"P(\text{delimiter} \mid \text{later sink}) > P(\text{delimiter})",
    gap="That a token has no letter is our reading of poor in meaning; a special token has none.",
)


@poor.check("experiment", controls={**FRESH, "tokens with letters": {"with_letters": True}})
def test_later_sinks_have_no_letters(evidence, checkpoint, *, weights="trained", with_letters=False):
    """In each sequence that has later sinks: the share of such tokens among them, less that among the tokens asked."""
    needs_later_sinks(checkpoint)
    found = causal_portrait(checkpoint, weights)
    counts = later_sinks(found).sum(axis=(1, 2))  # (S, keys)
    tokens = found.tokens[:, FIRST : FIRST + counts.shape[1]]
    lettered = np.vectorize(has_letter(checkpoint))(tokens)
    counted = lettered if with_letters else ~lettered
    having = counts.any(axis=1)
    evidence.expect("sequences with a later sink", int(having.sum()), at_least=1)
    shares = (counts * counted).sum(axis=1)[having] / counts.sum(axis=1)[having]
    among_all = counted.mean(axis=1)[having]
    evidence.note(f"Without a letter are {shares.mean():.1%} of later sinks and {among_all.mean():.1%} of all tokens.")
    kinds, times = np.unique(np.repeat(tokens.ravel(), counts.ravel()), return_counts=True)
    often = [checkpoint.tokenizer.decode([int(kinds[i])]) for i in np.argsort(-times)[:8]]
    evidence.note(f"Most frequent: {', '.join(map(repr, often))}.")
    evidence.majority("sequences where it is so", int((shares > among_all).sum()), len(shares), alpha=ALPHA)


def has_letter(checkpoint):
    special = set(checkpoint.tokenizer.all_special_ids)
    return lambda token: token not in special and any(map(str.isalnum, checkpoint.tokenizer.decode([int(token)])))


helps = Claim(
    paper=PAPER,
    slug="checkpoint-calibration",
    where="Abstract (2) and (3)",
    says="Lowering all later sinks to beta = 0.4 of their attention, in all heads, lowers your checkpoint's loss.",
    formula=r"L(\mathrm{ACT}) < L, \quad A'_{t, k} = \beta A_{t, k} \text{ at later sinks}",
    gap="Loss on text, not accuracy on the paper's tasks; in all heads, not in those that a search found to gain.",
)


@helps.check("experiment", controls={"beta = 1, which changes nothing": {"beta": 1.0}})
def test_calibrated_attention_predicts_better(evidence, checkpoint, *, beta=0.4):
    """Mean loss of each sequence with and without, where it changes."""
    from empirical.sinks.levers import Calibrate, predictions

    needs_later_sinks(checkpoint)
    plain, changed = predictions(checkpoint), predictions(checkpoint, Calibrate(beta))
    gain = (plain.loss - changed.loss).mean(axis=1)
    right = (changed.right.mean() - plain.right.mean()) * 100
    evidence.note(f"Loss falls by {gain.mean():+.4f} nats a token; {right:+.2f} points of next tokens held likeliest.")
    evidence.expect("sequences whose loss changes", int((gain != 0).sum()), at_least=1)
    evidence.majority("of them, with less loss", int((gain > 0).sum()), int((gain != 0).sum()), alpha=ALPHA)
