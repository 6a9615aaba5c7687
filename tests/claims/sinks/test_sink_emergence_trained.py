"""When sinks emerge in small models: training, its rate, data, weight decay and batch (Gu et al., ICLR 2025, 3-5).

What the paper says. Sinks are not there at the start: they emerge when optimisation is effective and there is enough
data. A lower rate gives later and weaker ones, even where more steps make up for it; too little data gives none, and
not because of over-fitting; much weight decay takes them away, some of it helps; the batch size does not matter.

Notation. Importance of a token is the mean attention from the queries that see it; above 0.3 it is a sink. A *share* is
that of heads and sequences, for each seed. The task is Bigram-Backcopy (empirical/sinks/backcopy.py): <s> comes first,
and a head has nothing to do but at triggers.

Scope. One head, one layer, width 32, 32 tokens, strictly causal, 160 steps of AdamW at a rate of 0.01, 5 seeds: two
seconds for a setting. A share of a half lies between models with sinks (0.9 and more in the seeds on which the setting
was chosen) and without (0.1 and less); the claims judge other seeds. With less of a contrast nothing is asserted.
"""

from functools import cache

import numpy as np

from reports.claim import Claim

PAPER = "gu2024attentionsink"
HALF = 0.5
NONE = 0.01
"""The paper counts a share below one per cent as none (section 5)."""
LENGTHS = (0, 20, 40, 80, 160)
LOW_RATE = {"rate": 1e-3}


@cache
def setting(**changes):
    from empirical.sinks.sink_emergence import Setting

    return Setting(**changes)


def shares(seed, token=0, **changes):
    """(seeds,) share of sinks at a token."""
    from empirical.sinks import sink_emergence as toy

    return toy.shares(setting(**changes), seed, token)


def losses(seed, **changes):
    """(seeds,) loss on sequences held out."""
    from empirical.sinks import sink_emergence as toy

    return toy.held_out_losses(setting(**changes), seed)


emergence = Claim(
    paper=PAPER,
    slug="trained-sink-emerges",
    where="Abstract, Sections 3.4 and 4, Figure 4",
    says="An untrained model has no sink; during training the first token becomes one, and the loss falls before.",
    formula=r"\mathrm{Sink}_1^{0.3}(0) = 0, \quad \mathrm{Sink}_1^{0.3}(\text{end}) > \tfrac{1}{2}",
    gap="A task made for it, with <s> in every sequence: not the paper's 1k to 2k of 20k steps.",
)


@emergence.check("experiment", controls={"untrained": {"steps": 0}, "no <s>": {"starts": ()}})
def test_sinks_are_absent_before_and_present_after_training(evidence, paper_rng, *, steps=160, starts=(0,)):
    """Shares in every seed. The figure has trainings of several lengths, each with a schedule of its own."""
    seed = paper_rng.seed("backcopy")
    evidence.expect("share before", shares(seed, steps=0), at_most=NONE)
    evidence.expect("share after", shares(seed, steps=steps, starts=starts), at_least=HALF)
    evidence.figure("Sinks, outliers and loss against the length of training", figure_of_lengths(seed), CAPTION)


CAPTION = (
    "Lines are seeds. The outlier is the largest mean magnitude in <s>'s embedding over the median: it stays small."
)


def figure_of_lengths(seed):
    from matplotlib.figure import Figure

    from empirical.sinks import sink_emergence as toy

    inside = [toy.inside(setting(steps=steps), seed) for steps in LENGTHS]
    figure = Figure(figsize=(9, 3), layout="constrained")
    panels = figure.subplots(1, 3)
    panels[0].plot(LENGTHS, [shares(seed, steps=steps) for steps in LENGTHS])
    panels[0].set_ylabel("share of sinks on <s>")
    panels[1].plot(LENGTHS, [(one.largest[..., 0] / one.median).mean(1).numpy() for one in inside])
    panels[1].set_ylabel("largest of <s> over median")
    panels[2].plot(LENGTHS, [losses(seed, steps=steps) for steps in LENGTHS])
    panels[2].set_ylabel("held-out loss, nats a token")
    for panel in panels:
        panel.set_xlabel("steps")
        panel.set_ylim(bottom=0)
    return figure


@emergence.check(
    "experiment", scope="the order", controls={"at the end": {"early": 160}, "before training": {"early": 0}}
)
def test_the_loss_falls_before_sinks_appear(evidence, paper_rng, *, early=20):
    """Early on, a larger part of the loss's fall is done than of the rise of the share, in every seed."""
    seed = paper_rng.seed("backcopy")
    start, then, end = (losses(seed, steps=steps) for steps in (0, early, 160))
    fallen, risen = (start - then) / (start - end), shares(seed, steps=early) / shares(seed)
    evidence.note(f"After {early} steps {fallen.mean():.0%} of the fall and {risen.mean():.0%} of the rise are done.")
    evidence.expect("part of the rise less part of the fall", risen - fallen, less_than=0)
    for steps in LENGTHS:
        found = shares(seed, steps=steps)
        evidence.note(f"{steps} steps: share {found.min():.2f} to {found.max():.2f}.")


drawn = Claim(
    paper=PAPER,
    slug="trained-random-tokens",
    where="Section 3.3, Table 1",
    says="The sink does not need meaning: it stays where the other tokens are drawn at random.",
    formula=r"\mathrm{Sink}_1^{0.3}(\text{random}) > \tfrac{1}{2}",
    gap="The toy keeps <s> in front of the random tokens; the paper's models have no such token.",
)


@drawn.check("experiment", controls={"untrained": {"steps": 0}, "no <s>": {"starts": ()}})
def test_sinks_stay_on_random_tokens(evidence, paper_rng, *, steps=160, starts=(0,)):
    """Trained on the task, shown tokens drawn uniformly: shares in every seed."""
    from empirical.sinks import sink_emergence as toy

    seed, chosen = paper_rng.seed("backcopy"), setting(steps=steps, starts=starts)
    tokens = toy.random_tokens(chosen, toy.SHOWN, seed)
    found = toy.insides(toy.train(chosen, seed, toy.SEEDS), tokens).sinks[..., 0]
    evidence.expect("share", toy.by_seed(found), at_least=HALF)


# -- the rate ----------------------------------------------------------------------------------------------------------

low_rate = Claim(
    paper=PAPER,
    slug="trained-low-rate",
    where="Section 4, Table 9",
    says="At the same number of steps a low learning rate gives no sink where a higher one does.",
    formula=r"\mathrm{Sink}_1(\eta / 10) \ll \mathrm{Sink}_1(\eta)",
    gap="One tenth of the rate. The low rate also learns less.",
)


@low_rate.check("experiment", controls={"the rate itself": {"rate": 1e-2}})
def test_a_tenth_of_the_rate_gives_no_sinks(evidence, paper_rng, *, rate=1e-3):
    """Shares in every seed."""
    seed = paper_rng.seed("backcopy")
    evidence.expect("share at the rate", shares(seed), at_least=HALF)
    evidence.expect("share at a tenth of it", shares(seed, rate=rate), at_most=HALF)
    evidence.note(f"Losses {losses(seed).mean():.3f} and {losses(seed, rate=rate).mean():.3f} nats a token.")


product = Claim(
    paper=PAPER,
    slug="trained-rate-times-steps",
    where="Section 4, Table 9",
    says="A lower rate gives weaker sinks even where as many more steps make up for it.",
    formula=r"\mathrm{Sink}_1(\eta / 4, 4T) < \mathrm{Sink}_1(\eta, T)",
    gap="In the toy the order of the two changes with the product, and the spread over seeds is as large.",
)


@product.check("experiment", controls={"the higher rate for both": {"long": {"rate": 8e-3, "steps": 40}}})
def test_four_times_the_steps_at_a_quarter_of_the_rate(evidence, paper_rng, *, long=None):
    """Importance of <s>, paired by seed: undecided unless the difference is clear."""
    from empirical.sinks import sink_emergence as toy

    seed, long = paper_rng.seed("backcopy"), long or {"rate": 2e-3, "steps": 160}
    slow, fast = (
        toy.by_seed(toy.inside(setting(**one), seed).importance[..., 0]) for one in (long, {"rate": 8e-3, "steps": 40})
    )
    evidence.note(f"Importance of <s>: {slow.mean():.3f} at the quarter of the rate, {fast.mean():.3f} at the rate.")
    lower = int((slow < fast).sum())
    evidence.inconclusive(
        needs=f"the paper's models: in the toy the slow training has the weaker sink in {lower} of {len(slow)} seeds"
    )


BY_PRODUCT = {8e-4: 23.44, 4e-4: 18.18, 2e-4: 16.81, 1e-4: 6.29}
"""Share in per cent by rate, at rate times steps of 8, table 9."""
BY_BATCH = {0.25: 16.45, 0.5: 17.19, 1.0: 18.18, 2.0: 16.19}
"""Share in per cent by millions of tokens of a batch, table 10."""


@product.check("exact", scope="the paper's table", controls={"batch sizes": {"table": BY_BATCH}})
def test_the_papers_shares_fall_with_the_rate(evidence, *, table=None):
    """Table 9 at a constant product: each lower rate has a smaller share."""
    found = list((table or BY_PRODUCT).values())
    evidence.expect("share less that at the next higher rate", np.diff(found), less_than=0, unit="%")


# -- data --------------------------------------------------------------------------------------------------------------

data = Claim(
    paper=PAPER,
    slug="trained-few-sequences",
    where="Section 5, Figures 5 and 28",
    says="With too little training data no sink emerges, and over-fitting is not why.",
    formula=r"\mathrm{Sink}_1(32 \text{ sequences}) < \tfrac{1}{2} < \mathrm{Sink}_1(20\,000)",
    gap="A toy's 32 sequences against its 20,000; in between the shares scatter over seeds. Over-fitting weakens a "
    "sink that is there, but does not remove it.",
)


@data.check("experiment", controls={"all sequences": {"sequences": 20_000}})
def test_with_few_sequences_there_is_no_sink(evidence, paper_rng, *, sequences=32):
    """Shares on sequences held out, in every seed; each seed has its own 32."""
    seed = paper_rng.seed("backcopy")
    evidence.expect("share with all sequences", shares(seed), at_least=HALF)
    evidence.expect("share with few", shares(seed, sequences=sequences), at_most=HALF)
    evidence.note(f"Held-out loss with few: {losses(seed, sequences=sequences).mean():.2f} nats a token.")


@data.check("experiment", scope="not over-fitting", controls={"few from the start": {"first": None}})
def test_over_fitting_does_not_remove_a_sink(evidence, paper_rng, *, first=()):
    """Models with a sink go on with 32 sequences until they over-fit: share in four of five seeds or more."""
    seed = paper_rng.seed("backcopy")
    tuned = {"sequences": 32, "after": None if first is None else setting(**dict(first))}
    before, after = losses(seed), losses(seed, **tuned)
    found = shares(seed, **tuned)
    evidence.expect("rise of the held-out loss", after - before, at_least=1.0, unit="nats")
    evidence.note(f"Shares {found.min():.2f} to {found.max():.2f}, before {shares(seed).min():.2f} and more.")
    evidence.expect("seeds with a sink", int((found > HALF).sum()), at_least=4)


# -- weight decay, batch size ------------------------------------------------------------------------------------------

decay = Claim(
    paper=PAPER,
    slug="trained-weight-decay",
    where="Section 4, Table 2",
    says="Much weight decay leaves no sink.",
    formula=r"\mathrm{Sink}_1(\gamma = 2) < \tfrac{1}{2} < \mathrm{Sink}_1(\gamma = 0)",
    gap="Where it falls depends on rate times steps, which the toy has less of than the paper.",
)


@decay.check("experiment", controls={"none": {"much": 0.0}})
def test_much_weight_decay_leaves_no_sink(evidence, paper_rng, *, much=2.0):
    """Shares in every seed."""
    seed = paper_rng.seed("backcopy")
    evidence.expect("share without", shares(seed), at_least=HALF)
    evidence.expect("share with much", shares(seed, weight_decay=much), at_most=HALF)
    evidence.note(f"Losses {losses(seed).mean():.3f} and {losses(seed, weight_decay=much).mean():.3f} nats a token.")


hump = Claim(
    paper=PAPER,
    slug="trained-weight-decay-hump",
    where="Section 4, Table 2",
    says="Some weight decay makes sinks stronger: at 0.5 there are more than twice as many as at 0.1 or below.",
    formula=r"\mathrm{Sink}_1(\gamma = 0.5) > 2\, \mathrm{Sink}_1(\gamma \le 0.1)",
    gap="A share near 1 cannot double.",
)


@hump.check("experiment", controls={"much": {"some": 2.0}})
def test_some_weight_decay(evidence, paper_rng, *, some=0.5):
    """Whether there is room for a rise."""
    seed = paper_rng.seed("backcopy")
    plain = shares(seed).mean()
    evidence.note(f"Share without weight decay {plain:.2f}, of at most 1: no room for a factor of 2.")
    evidence.inconclusive(needs="models that have sinks in some of their heads, as the paper's 60M do")


batch = Claim(
    paper=PAPER,
    slug="trained-batch-size",
    where="Section 4, Table 10",
    says="At the same number of steps the batch size has no effect on sinks.",
    formula=r"\mathrm{Sink}_1(B) = \mathrm{Sink}_1(B') \pm 0.1",
    gap="A factor of 4 in size, the paper's is 8. Shares near 1 leave little room upwards, all of it downwards.",
)


@batch.check("experiment", controls={"a tenth of the rate": {"other": LOW_RATE}})
def test_batches_of_16_and_64_give_the_same_share(evidence, paper_rng, *, other=None):
    """Equivalence within a tenth of the scale, each against batches of 32, paired by seed."""
    seed = paper_rng.seed("backcopy")
    for changes in ({"batch": 16}, {"batch": 64}) if other is None else (other,):
        name = ", ".join(f"{key} {value}" for key, value in changes.items())
        difference = shares(seed, **changes) - shares(seed)
        evidence.expect(f"mean difference with {name}", difference.mean(), within=(-0.1, 0.1))
        evidence.mean_within(f"share with {name} less that with 32", difference, -0.1, 0.1, alpha=1e-4)
