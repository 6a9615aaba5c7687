"""Trained positional and standard Transformers beyond the range of values they saw (Back de Luca et al., 2025).

What the paper says. Both architectures learn cumulative sum, minimum, median, maximum subarray and sorting; tested on
numbers from [-2 c, 2 c] after training on [-2, 2], positional Transformers err far less (Section 7, Figures 2 and 4).
RoPE or a smaller standard model do not change that (appendix).

Notation. Range factor c; errors are mean squares. Pairs have the same task and index; test numbers are shared by all
models of a task.

Scope. The paper's architecture and data; small: n = 4, width 16, three layers, fresh numbers; full: its n = 8, width
64, four layers, 30 000 samples, 10 runs, with a shorter schedule.
Sample sizes and data-dependent tasks are in test_positional_attention_learning.py.
"""

import numpy as np

from reports.claim import Claim
from theory.operators.positions import rotary

PAPER = "backdeluca2025positional"
EPS = np.finfo(float).eps
TWO = ("sum", "min")


def learned(kind):
    """Errors of the main run of this architecture: (scale, seed, factor) -> (tasks, repeats)."""

    def errors(scale, seed, factor):
        from empirical.operators.positional_attention import setting

        return setting(kind, scale).errors(seed, factor)

    return errors


POSITIONAL = learned("positional")


def next_model(scale, seed, factor):
    """Standard models again, each compared with another of its task."""
    return np.roll(learned("standard")(scale, seed, factor), 1, axis=1)


# -- Out of distribution -----------------------------------------------------------------------------------------------

values = Claim(
    paper=PAPER,
    slug="values-out-of-range",
    where="Section 7, Figure 4",
    says="On all five tasks positional Transformers have a smaller error than standard ones on numbers from a range "
    "c times that of training.",
    formula=r"\mathrm{MSE}_{\text{standard}}(c) > \mathrm{MSE}_{\text{positional}}(c), \quad c \ge 2",
    gap="Small: n = 4 and 600 steps. The standard model is the paper's: no norm, raw values in queries and keys; "
    "other ways to tame these are not tried.",
)


@values.check("experiment", controls={"another standard model": {"model": next_model}})
def test_positional_models_err_less_at_three_times_the_range(evidence, paper_rng, scale, *, model=POSITIONAL):
    """All tasks and seeds pooled in a sign test at c = 3; each task's median ratio is above 1 at c = 2, 3, 5 and 10."""
    from matplotlib.figure import Figure

    from empirical.operators.positional_attention import TASKS

    seed = paper_rng.seed("training")
    standard, positional = learned("standard")(scale, seed, 3), model(scale, seed, 3)
    ratios = standard / positional
    evidence.sign_test(
        "pairs in which the positional model errs less", int((ratios > 1).sum()), ratios.size, alpha=2.5e-4
    )
    beyond = {c: learned("standard")(scale, seed, c) / model(scale, seed, c) for c in (2, 3, 5, 10)}
    for at, task in enumerate(TASKS):
        medians = {c: float(np.median(found[at])) for c, found in beyond.items()}
        evidence.expect(f"{task}: least median of standard over positional error", min(medians.values()), at_least=1)
        evidence.note(f"{task}: medians by c: " + ", ".join(f"{c}: {ratio:.3g}" for c, ratio in medians.items()))
    figure = Figure(figsize=(7.5, 2.4))
    factors = (1, 2, 3, 5, 10)
    for axes, at in zip(figure.subplots(1, len(TASKS), sharey=True), range(len(TASKS)), strict=True):
        for name, errors, colour in (("standard", learned("standard"), "C1"), ("positional", model, "C0")):
            curves = np.stack([errors(scale, seed, c)[at] for c in factors], axis=1)
            axes.plot(factors, curves.T, color=colour, alpha=0.3, lw=0.7)
            axes.plot(factors, np.median(curves, axis=0), color=colour, label=name)
        axes.set(title=TASKS[at], xscale="log", yscale="log", xlabel="c")
    axes.legend(fontsize=6)
    evidence.figure(
        "Error beyond the range of training",
        figure,
        "One line per model, thick the median; mean squares, both axes logarithmic.",
    )


@values.check(
    "experiment", scope="both have learned the task", controls={"queries and keys left at random": {"kind": "frozen"}}
)
def test_both_fit_the_numbers_they_were_trained_on(evidence, paper_rng, scale, *, kind="positional"):
    """Median errors on sum and minimum at c = 1 are at most a tenth of those of the best affine map of one token.

    Positional attention that is not trained stays above: what is learned in it matters.
    """
    import torch

    from empirical.operators.positional_attention import numbers, setting, target

    seed = paper_rng.seed("training")
    x = numbers((20_000,), setting(kind, scale).sizes.n, 1.0, torch.Generator().manual_seed(seed))
    nodes = range(x.shape[1])
    of_kind = setting(kind, scale, **({} if kind == "positional" else {"tasks": TWO, "repeats": 2})).errors(seed, 1)
    for at, task in enumerate(TWO):
        y = target(task, x)
        left = [float(y[:, i].var() * (1 - torch.corrcoef(torch.stack([x[:, i], y[:, i]]))[0, 1] ** 2)) for i in nodes]
        rival = ("a tenth of the best affine map of the own number", float(np.mean(left)) / 10)
        evidence.expect(f"{task}: {kind if kind == 'positional' else 'model'}", np.median(of_kind[at]), less_than=rival)
        evidence.expect(f"{task}: standard", np.median(learned("standard")(scale, seed, 1)[at]), less_than=rival)


rope = Claim(
    paper=PAPER,
    slug="rotary-positions-do-not-help",
    where="Appendix (results with RoPE)",
    says="A standard Transformer with rotary positions errs more than a positional one beyond its range, as without "
    "them.",
    formula=r"\mathrm{MSE}_{\text{RoPE}}(3) > \mathrm{MSE}_{\text{positional}}(3)",
    gap="Small scale: sum and minimum, two models each. The paper's own runs say nothing about RoPE: see "
    "released-rope-is-inert.",
)


@rope.check("experiment", controls={"positional models in their place": {"kind": "positional"}})
def test_models_with_rotary_positions_err_more_beyond_their_range(evidence, paper_rng, scale, *, kind="rotary"):
    """Even the best of them at c = 3, against the median of the positional models."""
    from empirical.operators.positional_attention import setting

    seed = paper_rng.seed("training")
    positional = learned("positional")(scale, seed, 3)[:2]
    own = {"small": {"tasks": TWO, "repeats": 2}, "full": {"tasks": TWO}}[scale]
    found = (
        learned("positional")(scale, seed, 3)[:2]
        if kind == "positional"
        else setting(kind, scale, **own).errors(seed, 3)
    )
    for task, row, rival in zip(TWO, found, positional, strict=True):
        evidence.expect(f"{task}: least error over the positional median", row.min() / np.median(rival), at_least=1)


inert = Claim(
    paper=PAPER,
    slug="released-rope-is-inert",
    where="Appendix (results with RoPE), model.py of the released code",
    says="The runs labelled RoPE train a model whose scores depend on relative positions through rotary embeddings.",
    formula=r"\langle R_i q_i, R_j k_j \rangle = \langle q_i, R_{j-i} k_j \rangle",
    gap="A reading of the released code: torchtune's module turns axis 1 of (batch, length, heads, width), the code "
    "passes (batch, heads, length, width).",
    repair="the rotation is applied along the token axis",
)


@inert.refutation("exact", controls={"rotation along the token axis": {"axis": "tokens"}})
def test_turning_by_the_head_index_leaves_every_score_alone(evidence, rng, *, axis="heads"):
    """Turned by the head's index, query and key of a head turn alike: scores are those without rotation."""
    q, k = rng("tokens").standard_normal((2, 2, 9, 8))  # (heads, tokens, width)

    def turned(x):
        return rotary(x) if axis == "tokens" else rotary(x.swapaxes(0, 1)).swapaxes(0, 1)

    change = turned(q) @ turned(k).mT - q @ k.mT
    evidence.expect("change of the scores", change, equals=0, error=64 * 8 * EPS * np.abs(q).max() * np.abs(k).max())
    evidence.counterexample("RoPE as released", heads=2, tokens=9, largest_change=float(abs(change).max()))


@inert.check("exact", controls={"rotation along the head axis": {"axis": "heads"}})
def test_along_the_token_axis_scores_depend_on_relative_positions(evidence, rng, *, axis="tokens"):
    """Equal tokens everywhere: scores change with j - i and with nothing else."""
    q, k = rng("tokens").standard_normal((2, 2, 1, 8)).repeat(9, axis=2)
    turned = rotary if axis == "tokens" else lambda x: rotary(x.swapaxes(0, 1)).swapaxes(0, 1)
    s = (turned(q) @ turned(k).mT)[0]
    evidence.expect(
        "scores at equal distance",
        s[1:, 1:] - s[:-1, :-1],
        equals=0,
        error=64 * 8 * EPS * np.abs(q).max() * np.abs(k).max(),
    )
    evidence.expect("spread over distances", s[0].max() - s[0].min(), at_least=np.sqrt(EPS))


capacity = Claim(
    paper=PAPER,
    slug="smaller-models-do-not-help",
    where="Appendix (smaller standard Transformers)",
    says="Making the standard Transformer's Phi narrower or taking a single layer does not bring its error beyond "
    "the range down to the positional one's.",
    formula=r"\mathrm{MSE}_{\text{small standard}}(3) > \mathrm{MSE}_{\text{positional}}(3)",
    gap="Small scale: Phi 4 wide, one and two layers, sum and minimum, two models each.",
)


@capacity.check("experiment", controls={"positional models in their place": {"kind": "positional"}})
def test_narrow_or_shallow_standard_models_err_more_beyond_their_range(evidence, paper_rng, scale, *, kind="standard"):
    """Medians at c = 3, as in the paper's plots. The notes have the best model of each size."""
    from empirical.operators.positional_attention import setting

    seed = paper_rng.seed("training")
    positional = learned("positional")(scale, seed, 3)[:2]
    widths, depths, own = {
        "small": ((4,), (1, 2), {"tasks": TWO, "repeats": 2}),
        "full": ((2, 16), (1, 4), {"tasks": TWO}),
    }[scale]
    for hidden in widths:
        for layers in depths:
            run = setting(kind, scale, sizes={"hidden": hidden, "layers": layers}, **own)
            found = run.errors(seed, 3) if kind == "standard" else positional
            for task, row, rival in zip(TWO, found, positional, strict=True):
                name = f"{task}, Phi {hidden} wide, layers {layers}"
                ratio, best = np.median(rival) / np.median(row), row.min() / np.median(rival)
                evidence.expect(f"{name}: positional error over its own", ratio, less_than=1)
                evidence.note(f"{name}: the best model's error is {best:.3g} of the positional.")
