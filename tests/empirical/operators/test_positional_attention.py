"""Tasks, data and models of the experiments with positional attention."""

import numpy as np
import pytest
import torch

from empirical.operators.positional_attention import (
    TASKS,
    Recipe,
    Run,
    Sizes,
    Transformer,
    examples,
    numbers,
    target,
    with_null,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def test_tasks_have_their_known_answers():
    x = torch.tensor([3.0, -5.0, 4.0, -1.0])
    expected = {
        "sum": [3, -2, 2, 1],
        "min": [3, -5, -5, -5],
        "median": [3, -1, 3, 1],
        "sort": [-5, -1, 3, 4],
        "maxsub": [3, 3, 4, 4],
    }
    for task in TASKS:
        assert target(task, x).tolist() == expected[task]
    assert target("maxsub", torch.tensor([-2.0, -1.0, -3.0])).tolist() == [-2, -1, -1]


def test_test_numbers_come_from_beyond_the_range(generator):
    x = numbers((2000,), 6, 3.0, generator)
    assert x.shape == (2000, 6)
    assert 4 < x.abs().max() <= 6
    inside = numbers((2000,), 6, 1.0, generator)
    assert inside.abs().max() <= 2


def test_a_null_node_is_appended():
    assert with_null(torch.ones(2, 3)).tolist() == [[1, 1, 1, 0]] * 2


def test_lookups_ask_for_the_number_pointed_at(generator):
    x, y = examples("lookup", (7,), 4, 1.0, generator)
    assert x.shape == (7, 5, 5)
    pointed = x[:, :4, 1:].argmax(-1)
    assert torch.equal(y, x[:, :4, 0].gather(1, pointed))
    assert not x[:, 4].any()


def test_mixed_tasks_sum_the_own_category(generator):
    x, y = examples("mixed", (7,), 4, 1.0, generator)
    for tokens, answers in zip(x, y, strict=True):
        kinds = tokens[:4, 1:].argmax(-1)
        assert answers.tolist() == pytest.approx([float(tokens[:4, 0][kinds == kind].sum()) for kind in kinds])
    assert x[..., 0].min() >= 0
    assert x[..., 0].max() <= 5


@pytest.mark.parametrize("kind", ["positional", "frozen"])
def test_positional_weights_do_not_see_the_tokens(kind):
    model = Transformer(kind, Sizes(n=3, width=8))
    mixer = model.layers[0].mixer
    assert torch.equal(mixer.weights(torch.randn(2, 4, 8)), mixer.weights(torch.randn(2, 4, 8)))
    assert any("queries" in name for name, _ in model.named_parameters()) == (kind == "positional")


@pytest.mark.parametrize("kind", ["standard", "rotary"])
def test_standard_weights_see_the_tokens(kind):
    mixer = Transformer(kind, Sizes(n=3, width=8)).layers[0].mixer
    x, y = torch.randn(2, 2, 4, 8)
    assert not torch.equal(mixer.weights(x), mixer.weights(y))
    assert mixer.weights(x).sum(-1).allclose(torch.ones(()))


def test_training_learns_a_little_and_is_kept():
    run = Run("positional", Sizes(n=2, width=8, layers=1), Recipe(60, 1e-2), ("sum", "min"), repeats=2, batch=32)
    before = Run(run.kind, run.sizes, Recipe(0), run.tasks, run.repeats, run.batch).errors(1, 1.0)
    after = run.errors(1, 1.0)
    assert after.shape == (2, 2)
    assert (after < before).all()
    assert np.array_equal(after, run.errors(1, 1.0))


def test_a_fixed_training_set_differs_from_model_to_model():
    run = Run("standard", Sizes(n=2, width=4, layers=1), Recipe(2), ("sum",), repeats=2, batch=4, samples=5)
    x, y = run.training_set(0)
    assert x.shape == (2, 5, 3, 1)
    assert not torch.equal(x[0], x[1])
    assert y.tolist() == x[:, :, :2, 0].cumsum(-1).tolist()
    assert run.training_errors(0).shape == (1, 2)
