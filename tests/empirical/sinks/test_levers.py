"""What a checkpoint predicts while its attention is changed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")

from empirical.checkpoints import Lacks, load  # noqa: E402
from empirical.sinks.levers import Calibrate, ScaleToken, predictions  # noqa: E402
from empirical.sinks.portrait import sequences  # noqa: E402
from tests.empirical.small_models import make_model, planted_gpt2, planted_llama, save  # noqa: E402
from theory.sinks.act import calibrate  # noqa: E402
from theory.sinks.zerotuning import tuned  # noqa: E402

TEXT = "abcdefgh ijklmno. pqrstuvw xyz ABCDEFGH " * 100


@pytest.fixture
def checkpoint(tmp_path):
    return load(save(planted_gpt2(), tmp_path), text=TEXT)


def test_predictions_are_those_of_the_model(checkpoint):
    tokens = sequences(checkpoint, "natural")
    with torch.no_grad():
        probabilities = checkpoint.model(tokens).logits[:, :-1].double().softmax(-1)
    found = predictions(checkpoint)
    target = probabilities.gather(-1, tokens[:, 1:, None])[..., 0]
    np.testing.assert_allclose(found.loss, -target.log(), rtol=1e-4)
    np.testing.assert_allclose(found.entropy, -(probabilities * probabilities.log()).sum(-1), rtol=1e-4)
    assert np.array_equal(found.right, probabilities.argmax(-1) == tokens[:, 1:])


def test_a_factor_of_one_changes_nothing_and_another_does(checkpoint):
    plain = predictions(checkpoint).loss
    np.testing.assert_allclose(predictions(checkpoint, ScaleToken(1.0)).loss, plain, rtol=1e-5)
    assert abs(predictions(checkpoint, ScaleToken(0.1)).loss - plain).max() > 1e-3


def test_queries_before_a_token_do_not_feel_its_factor(checkpoint):
    changed = predictions(checkpoint, ScaleToken(0.1, token=20)).loss != predictions(checkpoint, ScaleToken(1.0)).loss
    assert not changed[:, :20].any()
    assert changed[:, 20:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_edits_are_the_formulas_of_the_papers_in_the_models_own_dtype(dtype):
    weights = torch.softmax(torch.randn(2, 3, 32, 32).masked_fill(~torch.ones(32, 32).bool().tril(), -torch.inf), -1)
    for edit, formula in (
        (ScaleToken(0.5, 3), lambda A: tuned(A, 0.5, 3)),
        (Calibrate(0.4), lambda A: calibrate(A, 0.4)),
    ):
        found = edit(0, weights.to(dtype))
        assert found.dtype is dtype
        torch.testing.assert_close(found, formula(weights.to(dtype).float()).to(dtype))


def test_calibration_with_beta_one_is_the_identity(tmp_path):
    checkpoint = load(save(planted_llama(), tmp_path), text=TEXT)
    assert np.array_equal(predictions(checkpoint, Calibrate(1.0)).loss, predictions(checkpoint).loss)
    assert not np.array_equal(predictions(checkpoint, Calibrate(0.4)).loss, predictions(checkpoint).loss)


def test_equal_edits_are_run_once(checkpoint):
    assert predictions(checkpoint, ScaleToken(2.0)) is predictions(checkpoint, ScaleToken(2.0))
    assert predictions(checkpoint, ScaleToken(2.0)) is not predictions(checkpoint, ScaleToken(2.0, 1))


def test_an_encoder_has_no_predictions(tmp_path):
    with pytest.raises(Lacks, match="next-token distribution"):
        predictions(load(save(make_model("bert"), tmp_path, "encoder"), text=TEXT))


def test_attention_in_code_of_its_own_has_predictions_but_no_lever(tmp_path):
    checkpoint = load(save(make_model("bloom"), tmp_path), text=TEXT)
    assert predictions(checkpoint).loss.shape[0] > 40
    with pytest.raises(Lacks, match="attention that can be changed"):
        predictions(checkpoint, ScaleToken(2.0))
