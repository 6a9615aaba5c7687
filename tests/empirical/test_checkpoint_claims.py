"""Claims about a checkpoint, run by pytest on models made on the spot: one with a planted effect, one without."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")

from tests.empirical.test_checkpoints import BYTES, make_model, make_tokenizer  # noqa: E402

ROOT = Path(__file__).parents[2]


def model_that_repeats_its_context():
    """A GPT-2 whose single head copies the mean of all tokens so far: what stands in the prompt becomes more likely."""
    width = len(BYTES) + 1
    config = transformers.GPT2Config(
        vocab_size=len(BYTES), n_positions=512, n_embd=width, n_layer=1, n_head=1, bos_token_id=96, eos_token_id=96
    )
    model = transformers.GPT2LMHeadModel(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
        model.transformer.wte.weight.copy_(torch.eye(width)[: len(BYTES)])
        block = model.transformer.h[0]
        block.attn.c_attn.weight[:, 2 * width :] = torch.eye(width)  # queries and keys are zero: attention is uniform
        block.attn.c_proj.weight.copy_(torch.eye(width))
    return model


def run_claims(tmp_path, model, claim):
    model.save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    letters = "bcdfghjklm"
    lines = [{"question": "?", "choices": [one * 2, one.upper() * 2], "answer": one * 2} for one in letters]
    (tmp_path / "questions.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    command = [
        sys.executable, "-m", "pytest", "tests/claims/language/test_attentiveness_checkpoint.py", "-n", "0",
        "--claim", claim, "--checkpoint", str(tmp_path / "model"), "--questions", str(tmp_path / "questions.jsonl"),
        "--out", str(tmp_path / "out"),
    ]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    [found] = json.loads((tmp_path / "out" / "results.json").read_text())["claims"]
    return done, found


def test_a_planted_effect_is_found_and_every_control_rejected(tmp_path):
    done, claim = run_claims(tmp_path, model_that_repeats_its_context(), "checkpoint-mass")
    assert done.returncode == 0, done.stdout
    assert claim["verdict"] == "supported"
    assert [control["outcome"] for control in claim["checks"][0]["controls"]] == ["rejected", "rejected"]


@pytest.mark.parametrize("claim", ["checkpoint-mass", "checkpoint-resolved"])
def test_without_the_effect_the_claim_is_not_supported(tmp_path, claim):
    model = make_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # every next token is equally likely, whatever the prompt
    done, found = run_claims(tmp_path, model, claim)
    assert done.returncode == 1
    assert found["verdict"] is None
    assert found["checks"][0]["outcome"] == "violated"
