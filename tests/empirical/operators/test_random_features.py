"""Learning curves of random-feature attention: data, models, ridge, and what is read off a checkpoint."""

from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from empirical.checkpoints import Lacks  # noqa: E402
from empirical.operators.random_features import (  # noqa: E402
    Experiment,
    heads,
    learning_curve,
    model,
    query_key_products,
    sample,
    samples_for,
    slopes,
)
from theory.operators.random_features import kernel  # noqa: E402

NAMES = ("average of <b,x>", "random labels")


@pytest.fixture
def data():
    return sample(np.random.default_rng(0), 3, 2, 64, NAMES, noise=0.5, validation=20, test=50)


def test_a_sample_has_unit_test_variance_and_noise_only_where_one_trains(data):
    assert data.x.shape == (134, 3, 3)
    assert data.train == 64
    np.testing.assert_allclose(data.y[-50:].std(axis=0), 1)
    assert data.noise.shape == (84, 2)
    assert data.noise.std() == pytest.approx(0.5, rel=0.2)


def test_the_curve_falls_where_there_is_something_to_learn(data):
    curve = learning_curve(kernel, data, (8, 64))
    assert curve.shape == (2, 2)
    assert curve[1, 0] < 0.3 < curve[0, 0]
    assert curve[1, 1] > 0.8


def test_smaller_sizes_see_the_same_validation_and_test_inputs(data):
    np.testing.assert_allclose(learning_curve(kernel, data, (8,))[0], learning_curve(kernel, data, (8, 64))[0])


def test_torch_gives_the_same_curve(data):
    of_heads = model("BRFA, M heads", np.random.default_rng(1), 3, 40)
    device = torch.device("cpu")
    for of_model, error in ((kernel, 1e-6), (of_heads, 0.05)):  # on numpy the heads' features are float32
        np.testing.assert_allclose(
            learning_curve(of_model, data, (64,)), learning_curve(of_model, data, (64,), device), rtol=error
        )


def test_many_heads_learn_as_infinitely_many(data):
    many = heads(np.random.default_rng(2), 4000, 3)
    finite, infinite = (learning_curve(one, data, (64,))[0, 0] for one in (many, kernel))
    assert finite == pytest.approx(infinite, rel=0.3)


def test_every_model_has_a_kernel():
    x = np.random.default_rng(0).standard_normal((4, 3, 2))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    names = ("RFA", "BRFA", "mean rotated", "mean -I", "RFMLP", "symmetrised RFMLP", "RFA, M heads", "BRFA, M heads")
    found = {name: model(name, np.random.default_rng(1), 2, 10)(x, x) for name in names}
    assert {one.shape for one in found.values()} == {(4, 4)}
    assert len({round(float(one.sum()), 6) for one in found.values()}) == len(names)


def test_an_experiment_is_kept_and_repeats_itself(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))
    experiment = Experiment(5, 2, 3, 2, (8, 16), ("RFA", "RFMLP"), NAMES, validation=10, test=20)
    first = experiment.curves()
    assert first["RFA"].shape == (2, 2, 2)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    np.testing.assert_array_equal(first["RFMLP"], experiment.curves()["RFMLP"])
    np.testing.assert_array_equal(experiment.of(first, "RFA", NAMES[1]), first["RFA"][:, :, 1])
    assert not np.array_equal(first["RFA"][0], first["RFA"][1])


def test_slopes_are_those_of_powers():
    curves = np.array([[1.0, 0.5, 0.25], [3.0, 3.0, 3.0]])
    np.testing.assert_allclose(slopes((2, 4, 8), curves), [-1, 0], atol=1e-15)


def test_samples_are_interpolated_between_sizes():
    assert samples_for(0.5, (4, 16, 64), np.array([1.0, 0.25, 0.1])) == pytest.approx(8)
    assert samples_for(0.5, (4, 16), np.array([0.3, 0.2])) == 4
    assert samples_for(0.5, (4, 16), np.array([0.9, 0.8])) == float("inf")


class Attention(torch.nn.Module):
    def __init__(self, query, key, groups):
        super().__init__()
        setattr(self, query, torch.nn.Linear(6, 4, bias=False))
        setattr(self, key, torch.nn.Linear(6, 4 // groups, bias=False))


@pytest.mark.parametrize(("query", "key", "groups"), [("query", "key", 1), ("q_proj", "k_proj", 2)])
def test_products_of_queries_and_keys_are_read_by_head(query, key, groups):
    network = torch.nn.Sequential(Attention(query, key, groups), torch.nn.Linear(2, 2), Attention(query, key, groups))
    network.config = SimpleNamespace(hidden_size=6, num_attention_heads=3, head_dim=2)
    products = query_key_products(network)
    assert [one.shape for one in products] == [(2, 6, 6)] * 2
    Q, K = (getattr(network[0], name).weight.detach().double().numpy() for name in (query, key))
    last = K[2:] if groups == 1 else K
    np.testing.assert_allclose(products[0][1], Q[2:].T @ last)


def test_a_model_without_attention_is_refused():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.config = SimpleNamespace(hidden_size=4, num_attention_heads=2)
    with pytest.raises(Lacks, match="attention layer with linear maps"):
        query_key_products(network)
