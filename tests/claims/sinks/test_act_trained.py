"""Later sinks in small trained models, and what lowering them costs (ACT; Yu et al., 2024).

What the paper says. Attention sinks occur not only at the start but at later tokens too, and not all of them help
accuracy: lowering later ones improves it. They stand at tokens of little meaning, such as punctuation.

Notation. The task is Bigram-Backcopy (see empirical/sinks/backcopy.py) with a second <s> at position 10, counted from
0, which says nothing of what comes next. Tokens with nothing to copy are those that are no triggers. ACT's rule, 5 / N
and beta = 0.4, acts on each sequence by itself. Losses are nats a token.

Scope. One head, one layer, width 32, 12 seeds, 600 steps: a few seconds of training. What a later sink is in a large
model, and what it does to accuracy there, is for test_act_checkpoint.py.
"""

from functools import cache

import numpy as np

from reports.claim import Claim
from theory.sinks import act
from theory.sinks.measures import importance

PAPER = "yu2024unveiling"
SEQUENCES = 256
SECOND = 10
"""Position of the second start token."""


@cache
def trained(seed):
    """Models, and sequences that they were not trained on."""
    from empirical.sinks import act as toy
    from empirical.sinks.backcopy import held_out

    return toy.train(seed), held_out(toy.SETTING, SEQUENCES, seed)


def second_start(seed):
    return trained(seed)[1]


def ordinary_character(seed):
    from empirical.sinks.act import ordinary

    return ordinary(SEQUENCES, seed)


def attention_to(place, seed, tokens):
    """(seeds,) from tokens with nothing to copy, and what even attention would give."""
    from empirical.sinks import act as toy

    found = toy.with_nothing_to_copy(toy.maps(trained(seed)[0], tokens), tokens, place)
    return found.numpy(), toy.even_share(tokens, place)


# -- A1: sinks at later tokens -----------------------------------------------------------------------------------------

later = Claim(
    paper=PAPER,
    slug="later-sinks",
    where="Abstract, first finding",
    says="Attention sinks occur not only at the start of a sequence but at later tokens too.",
    formula=r"\exists\, k \ge 2: \quad \bar a_k \gg \text{even attention}",
    gap="The later sink was planted as a second start token: that such models grow one is shown, not that large models "
    "have them at ordinary tokens. That the paper was the first to see them is not tested.",
)


@later.check("experiment", controls={"the character at position 5": {"place": 5}})
def test_a_second_start_token_is_a_second_sink(evidence, paper_rng, *, place=SECOND):
    """Its attention from tokens with nothing to copy, over that of even attention: mean logarithm over the seeds."""
    seed = paper_rng.seed("training")
    found, even = attention_to(place, seed, second_start(seed))
    evidence.mean_at_least("ln (attention / even attention)", np.log(found / even), 0.0, alpha=1e-4)
    evidence.note(
        f"{found.mean():.3f} on average, {found.min():.3f} to {found.max():.3f} over the seeds; even {even:.3f}."
    )
    evidence.figure("Average attention to each position", figure_of(seed), "Thin lines are seeds.")
    detected(evidence, seed)


def detected(evidence, seed):
    """What the paper's threshold finds in these models, sequence by sequence."""
    from empirical.sinks import act as toy

    models, tokens = trained(seed)
    flagged = act.later_sinks(toy.maps(models, tokens)).double().mean(dim=(0, 1)).numpy()
    others = np.delete(flagged, SECOND)
    evidence.note(
        f"5 / N flags the second start in {flagged[SECOND]:.0%} of the sequences, and {others.sum():.2f} other "
        f"tokens in each; {others[-6:].sum() / others.sum():.0%} of them are of the last six, which few queries see."
    )


def figure_of(seed):
    from matplotlib.figure import Figure

    from empirical.sinks import act as toy

    models, tokens = trained(seed)
    averages = importance(toy.maps(models, tokens)).mean(dim=1).numpy()
    n = averages.shape[1]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(averages.T, color="tab:blue", alpha=0.3, lw=0.8)
    axes.plot(averages.mean(axis=0), color="tab:blue", label="trained models")
    axes.plot([float(x) for x in act.uniform_importance(n)], color="black", ls="--", label="uniform attention")
    axes.axhline(act.ALPHA / n, color="tab:red", ls=":", label="5 / N")
    axes.set_xlabel("position of the key")
    axes.set_ylabel("average attention")
    axes.legend()
    return figure


# -- A8: at tokens of little meaning -----------------------------------------------------------------------------------

poor = Claim(
    paper=PAPER,
    slug="sinks-carry-little",
    where="Body, from memory (later sinks stand at punctuation and delimiters)",
    says="Later sinks stand at tokens of little meaning: what draws the attention is the token, not its position.",
    formula=r"a(\langle s \rangle \text{ at } 10) > a(\text{character at } 10)",
    gap="One token without meaning against characters with some; punctuation in a large model is for the checkpoint.",
)


@poor.check("experiment", controls={"characters against characters": {"tokens": ordinary_character}})
def test_a_character_in_its_place_draws_less(evidence, paper_rng, *, tokens=second_start):
    """The same models read sequences with a character at position 10: mean logarithm of the ratio, paired by seed."""
    from empirical.sinks.act import ordinary

    seed = paper_rng.seed("training")
    found, _ = attention_to(SECOND, seed, tokens(seed))
    replaced, even = attention_to(SECOND, seed, ordinary(SEQUENCES, seed + 1))
    evidence.mean_at_least("ln (<s> / character)", np.log(found / replaced), np.log(2), alpha=1e-4)
    evidence.note(f"<s> {found.mean():.3f}, characters {replaced.mean():.3f}, even attention {even:.3f}.")


# -- A2: not all sinks help --------------------------------------------------------------------------------------------

useless = Claim(
    paper=PAPER,
    slug="not-all-sinks-matter",
    where="Abstract, second finding",
    says="Not all sinks are of use to a model: beside the first, a later one can be removed at a small part of what "
    "removing both costs.",
    formula=r"L(\text{without the later}) - L < \tfrac14 \bigl( L(\text{without both}) - L \bigr)",
    gap="It costs little, it does not help: that lowering it improves a model is another claim.",
)


@useless.check(
    "experiment", controls={"without the first": {"removed": (0,)}, "without both": {"removed": (0, SECOND)}}
)
def test_the_later_sink_is_nearly_free_to_remove(evidence, paper_rng, *, removed=(SECOND,)):
    """beta = 0 at given positions of trained models; a quarter is ours."""
    from empirical.sinks.act import cost, places

    models, tokens = trained(paper_rng.seed("training"))
    both = cost(models, tokens, places(0, SECOND), beta=0.0).numpy()
    found = cost(models, tokens, places(*removed), beta=0.0).numpy()
    evidence.mean_at_most("cost, less a quarter of that of both", found - both / 4, 0.0, alpha=1e-4)
    other = [cost(models, tokens, places(k), beta=0.0).mean().item() for k in (5, 15)]
    evidence.note(f"Without it {found.mean():+.4f} nats, without both {both.mean():+.3f}.")
    evidence.note(f"Removing the character at position 5 or 15 costs {other[0]:+.4f} or {other[1]:+.4f} nats.")


improves = Claim(
    paper=PAPER,
    slug="lowering-improves",
    where="Abstract, second finding",
    says="Lowering the later sinks improves what a model predicts.",
    formula=r"L(\mathrm{ACT}) < L",
    gap="In the small models the only head also copies, and no search over heads would keep it.",
)


@improves.check("experiment", controls={"beta = 1": {"beta": 1.0}})
def test_in_small_models_calibration_costs(evidence, paper_rng, *, beta=act.BETA):
    """ACT as it is, and the second start alone lowered: changes of the loss, for each seed."""
    from empirical.sinks.act import cost, places

    models, tokens = trained(paper_rng.seed("training"))
    for name, choose in (("all that 5 / N flags", act.later_sinks), ("the second start alone", places(SECOND))):
        found = cost(models, tokens, choose, beta).numpy()
        evidence.note(f"Lowered: {name}. Loss {found.mean():+.4f} nats, {found.min():+.4f} to {found.max():+.4f}.")
    evidence.inconclusive(needs="heads that only sink, as large models have: a checkpoint, see test_act_checkpoint.py")
