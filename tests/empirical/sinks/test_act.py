"""Small models with two start tokens."""

import pytest

torch = pytest.importorskip("torch", reason="needs torch")

from empirical.sinks import act, backcopy  # noqa: E402
from empirical.training import Models, initial  # noqa: E402


@pytest.fixture(scope="module")
def models():
    return Models(*initial(act.SETTING.build, 1, 2))


def test_lowering_nothing_costs_nothing(models):
    tokens = backcopy.held_out(act.SETTING, 8, 1)
    assert act.cost(models, tokens, act.places(), beta=0.0).abs().max() < 1e-6
    assert act.cost(models, tokens, act.places(3), beta=1.0).abs().max() < 1e-6


def test_lowering_changes_the_copy_and_not_the_models(models):
    tokens = backcopy.held_out(act.SETTING, 8, 1)
    before = models(tokens)
    assert act.cost(models, tokens, act.places(0, 10), beta=0.0).abs().min() > 0
    torch.testing.assert_close(models(tokens), before)


def test_the_ordinary_sequences_have_one_start_token():
    assert ((act.ordinary(16, 3) == backcopy.START).sum(1) == 1).all()


def test_even_attention_has_the_even_share(models):
    tokens = act.ordinary(4, 3)
    n = tokens.shape[1]
    even = torch.ones(n, n).tril(-1) / torch.arange(n).clamp(min=1)[:, None]
    found = act.with_nothing_to_copy(even.expand(1, 4, n, n), tokens, 10)
    assert abs(float(found) - act.even_share(tokens, 10)) < 1e-6


def test_maps_have_the_seeds_in_front(models):
    A = act.maps(models, act.ordinary(4, 3))
    assert A.shape == (2, 4, act.SETTING.length, act.SETTING.length)
    torch.testing.assert_close(A[:, :, 1:].sum(-1), torch.ones(2, 4, act.SETTING.length - 1))
