"""Tuning the first token of small trained models (ZeroTuning, Han et al., 2025): what it repairs, how to choose gamma.

What the paper says. Tuning the first token improves frozen models, more than tuning other tokens does. Without labels
gamma can be chosen by the least entropy of the model's output, since that is about where accuracy is highest.

Notation. A *gain* is the fall of the loss, nats a token, with the gamma that was best on other sequences. *Flattened*
is a model whose attention is taken at twice the temperature without retraining, *intact* one as it was trained.

Earlier layers respond more, and heads differ: some gain when tuned up, some when tuned down.

Scope. Bigram-Backcopy (arXiv:2410.13835), one layer of one head, width 32, 600 steps, four seeds; for layers and heads
three layers of two heads. The first token is <s>, its sink. The paper's models have a thousand heads and more.
"""

import numpy as np

from reports.claim import Claim

PAPER = "han2025zerotuning"
OTHERS = (4, 8, 16)
"""Positions of other tokens, from 0."""


def array(tensor):
    return tensor.cpu().numpy()


def gains(seed, tokens, exponent):
    """(tokens, seeds)."""
    from empirical.sinks.zerotuning import gain

    return np.stack([array(gain(seed, token, exponent)) for token in tokens])


first = Claim(
    paper=PAPER,
    slug="first-token-improves-most",
    where="Abstract",
    says="Tuning attention to the first token improves a frozen model, and by more than tuning any other token does.",
    formula=r"L(1) - L(\gamma^\star_0) > \max_{j > 0} \bigl( L(1) - L(\gamma^\star_j) \bigr) > 0",
    gap="One head on one task; the fault that is repaired was put there by us. Effects are some thousandths of a nat.",
    repair="So it is where the first token gets less than the model was trained for, as in a flattened model; in an "
    "intact one no gamma gains anything.",
)
FLATTENED, INTACT = 0.5, 1.0


@first.refutation("experiment", controls={"flattened models": {"exponent": FLATTENED}})
def test_intact_models_gain_nothing(evidence, paper_rng, *, exponent=INTACT):
    """The mean gain is below a quarter of what the same models gain when flattened."""
    seed = paper_rng.seed("training")
    found, repaired = gains(seed, (0,), exponent)[0], gains(seed, (0,), FLATTENED)[0]
    evidence.expect("mean gain over that of the flattened models", found.mean() / repaired.mean(), at_most=0.25)
    evidence.counterexample("gains of intact models, nats a token", gains=", ".join(f"{x:.5f}" for x in found))


@first.check(
    "experiment",
    controls={"the ninth token": {"token": 8}, "intact models": {"exponent": INTACT}},
)
def test_flattened_models_are_repaired_by_the_first_token(evidence, paper_rng, *, token=0, exponent=FLATTENED):
    """In every seed its gain is twice that of any of three other tokens or more; in the mean a tenth of the damage."""
    from empirical.sinks.zerotuning import sweeps

    seed = paper_rng.seed("training")
    mine, others = gains(seed, (token,), exponent)[0], gains(seed, OTHERS, exponent)
    damage = array(sweeps(seed, 0, FLATTENED)[1].untuned("loss") - sweeps(seed, 0, INTACT)[1].untuned("loss"))
    evidence.note(f"Gains {mine.min():.4f} to {mine.max():.4f}, of others up to {others.max():.4f} nats a token.")
    evidence.figure("Loss against gamma", figure_of(seed), "Mean of four seeds; the other token is the 9th.")
    evidence.expect("mean gain over the mean damage", mine.mean() / damage.mean(), at_least=0.1)
    evidence.expect("gain less twice the best other's", mine - 2 * others.max(axis=0), at_least=0, unit="nats")


def figure_of(seed):
    from matplotlib.figure import Figure

    from empirical.sinks.zerotuning import GAMMAS, sweeps

    figure = Figure(figsize=(6, 3.4), layout="constrained")
    axes = figure.subplots()
    kinds = ((0, INTACT, "first token, intact"), (8, INTACT, "another, intact"))
    kinds += ((0, FLATTENED, "first token, flattened"), (8, FLATTENED, "another, flattened"))
    for (token, exponent, label), style in zip(kinds, ("o-", "o--", "s-", "s--"), strict=True):
        axes.plot(GAMMAS, array(sweeps(seed, token, exponent)[1].loss.mean(0)), style, ms=4, label=label)
    axes.set_xscale("log")
    axes.set_xlabel("gamma")
    axes.set_ylabel("loss, nats a token")
    axes.legend()
    return figure


unsupervised = Claim(
    paper=PAPER,
    slug="least-entropy-is-most-accurate",
    where="Abstract (versions 2 and 3): unsupervised mode",
    says="The gamma with the least entropy of the model's output is about the one with the highest accuracy: it can be "
    "chosen without labels.",
    formula=r"\arg\min_\gamma H(\text{output}) \approx \arg\max_\gamma \mathrm{acc}",
    gap="One head on one task. On a language model's tasks the two may go together: for your checkpoint there is a "
    "claim of its own.",
)


def by_entropy(sweep):
    return sweep.entropy.argmin(1)


def by_labels(sweep):
    return sweep.loss.argmin(1)


@unsupervised.refutation("experiment", controls={"chosen by the loss": {"choose": by_labels}})
def test_the_least_entropy_is_overconfidence(evidence, paper_rng, *, choose=by_entropy):
    """Models that gamma = 2 or more repairs, flattened ones: by least entropy most are tuned down.

    The median change over the seeds from gamma = 1: the loss rises, the accuracy falls.
    """
    from empirical.sinks.zerotuning import GAMMAS, sweeps

    choose_on, judge = sweeps(paper_rng.seed("training"), 0, FLATTENED)
    chosen, best = (np.array(GAMMAS)[array(one(choose_on))] for one in (choose, by_labels))
    change = {what: array(judge.at(choose(choose_on), what) - judge.untuned(what)) for what in ("loss", "accuracy")}
    evidence.expect("median gamma that is best on other sequences", np.median(best), at_least=2)
    evidence.expect("median gamma chosen", np.median(chosen), less_than=1)
    evidence.expect("median change of the loss", np.median(change["loss"]), at_least=0, unit="nats")
    evidence.expect("median change of the accuracy", np.median(change["accuracy"]), less_than=0)
    listed = {what: ", ".join(f"{x:.4f}" for x in values) for what, values in change.items()}
    gammas = {"gamma by entropy": chosen.tolist(), "gamma by labels": best.tolist()}
    evidence.counterexample("flattened models, one a seed, changes from gamma = 1", **gammas, **listed)


layers = Claim(
    paper=PAPER,
    slug="early-layers-respond-most",
    where="Abstract; analysis of layers",
    says="Tuning is more effective in early than in deep layers.",
    formula=r"\Delta L(\text{first layer}) < \Delta L(\text{last layer}) < 0",
    gap="Three layers, all flattened; the paper's early, middle and deep ones are ten layers each, and its effects are "
    "gains in accuracy.",
)
UP = 2.0
"""gamma for layers and heads of flattened models."""


@layers.check("experiment", controls={"the last layer as the first": {"layer": 2}, "gamma = 1": {"gamma": 1.0}})
def test_the_first_layer_gains_more_than_twice_what_the_last_does(evidence, paper_rng, *, layer=0, gamma=UP):
    """Flattened models, all heads of one layer tuned up; mean gains over the seeds."""
    from empirical.sinks.zerotuning import layer_changes

    _, judge = layer_changes(paper_rng.seed("training"), gamma, FLATTENED)
    gained = -array(judge).mean(axis=0)
    evidence.note(f"Gains of the three layers: {', '.join(f'{x:.4f}' for x in gained)} nats a token.")
    evidence.expect("gain of the last layer less the first's", gained[2] - gained[layer], less_than=0, unit="nats")
    evidence.expect("gain of the last layer over the first's", gained[2] / gained[layer], at_most=0.5)


heads = Claim(
    paper=PAPER,
    slug="heads-differ",
    where="Abstract; analysis of heads",
    says="Heads respond differently: the same tuning of the first token helps some heads of a model and harms others.",
    formula=r"\exists h, h': \Delta L_h(\gamma) < 0 < \Delta L_{h'}(\gamma)",
    gap="Six heads a model, flattened. That some heads gain when tuned down, and that 40 to 70 % of the heads should "
    "be tuned, is not tested.",
)


@heads.check("experiment", controls={"gamma = 1": {"gamma": 1.0}})
def test_one_gamma_helps_some_heads_and_harms_others(evidence, paper_rng, *, gamma=4.0):
    """The heads that gain and lose most on some sequences, judged on others: mean over the seeds, flattened models."""
    from empirical.sinks.zerotuning import changes

    choose, judge = (
        array(found).reshape(len(found), -1) for found in changes(paper_rng.seed("training"), gamma, FLATTENED)
    )
    rows = np.arange(len(judge))
    best, worst = judge[rows, choose.argmin(1)], judge[rows, choose.argmax(1)]
    evidence.note(f"Loss falls in {(judge < 0).sum()} of {judge.size} heads, rises in {(judge > 0).sum()}.")
    evidence.expect("change of the loss, best head", best.mean(), less_than=0, unit="nats")
    evidence.expect("gain, worst head", -worst.mean(), less_than=0, unit="nats")
