"""Claims about a checkpoint, run as a user runs them, on models made on the spot: with planted effects, and without."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")

from tests.empirical.small_models import (  # noqa: E402
    BYTES,
    make_model,
    planted_bert,
    planted_gpt2,
    planted_llama,
    save,
)

ROOT = Path(__file__).parents[2]
SENTENCE = "abcdefghijklmnopqrst. uvwxyzabcdefghijklmnopqr"
"""Windows of 64 letters then have a full stop or two, each at another place than the last."""


def run(*arguments):
    """A command in a process of its own, as a user starts it."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)


def attest(model, folder, *arguments, tokenizer="decoder"):
    """`attest checkpoint` on a model: what it said, and its claims by slug, without the first word."""
    where = save(model, folder / "model", tokenizer)
    done = run("reports", "checkpoint", str(where), "--device", "cpu", "--out", str(folder / "out"), *arguments)
    claims = json.loads((folder / "out/results.json").read_text())["claims"]
    return done, {claim["slug"].removeprefix("checkpoint-"): claim for claim in claims}


def verdicts(claims):
    return {slug: claim["verdict"] for slug, claim in claims.items()}


def notes(claim):
    return " ".join(note for check in claim["checks"] for note in check["notes"])


def test_all_that_was_planted_is_supported_and_shown_in_place_on_a_page_that_names_the_model(tmp_path):
    done, claims = attest(planted_gpt2(layer=1, head=2), tmp_path)
    assert done.returncode == 0, done.stdout
    found = verdicts(claims)
    planted = (
        "sink", "first-token", "random-tokens", "short-value", "key-angle", "activation-outliers", "fixed-dimensions",
        "weight-outliers", "attention-outliers", "dimensions-align", "positions-align",
    )  # fmt: skip
    assert {slug: found[slug] for slug in planted} == dict.fromkeys(planted, "supported")
    assert "Strongest: layer 2, head 3," in notes(claims["sink"])
    assert "mostly at position 1, in 100 of 100" in notes(claims["sink"])
    assert "Outliers by dimension: 7 (100.0%). Outliers by position: 1 (100.0%)." in notes(
        claims["activation-outliers"]
    )
    assert "transformer.h.0.mlp.c_proj" in notes(claims["weight-outliers"])
    assert claims["later-sinks-are-delimiters"]["why"] == "model has no later sink on your text"
    assert claims["repeated-token"]["why"].startswith("model has no relative positions alone")
    assert "checkpoint: 0.691 MB for the weights, 0.655 MB for the attention of one layer" in done.stdout
    page = (tmp_path / "out/index.html").read_text()
    assert "<h1>Attest: model</h1>" in page
    assert "model (GPT2LMHeadModel, 172,800 parameters, 3 layers of 4 heads, float32 on cpu)" in page
    assert "Attention to the first position, by layer and head" in page
    assert "<image" in page


def test_later_sinks_on_full_stops_are_found_by_name(tmp_path):
    (tmp_path / "text.txt").write_text(SENTENCE * 200)
    done, claims = attest(planted_llama(), tmp_path, "--text", str(tmp_path / "text.txt"))
    assert done.returncode == 0, done.stdout
    found = verdicts(claims)
    assert found["later-sinks"] == found["later-sinks-are-delimiters"] == "supported"
    assert "Most frequent: '.'" in notes(claims["later-sinks-are-delimiters"])
    assert found["sink"] == found["repeated-token"] == found["activation-outliers"] == "supported"
    assert found["first-token"] == found["weight-outliers"] == "refuted"
    assert found["dimensions-align"] == "not run"


def test_an_encoder_is_measured_without_a_causal_mask(tmp_path):
    done, claims = attest(planted_bert(layer=0, head=3, position=5), tmp_path, tokenizer="encoder")
    assert done.returncode == 0, done.stdout
    assert claims["sink"]["verdict"] == "supported"
    assert "layer 1, head 4" in notes(claims["sink"])
    assert "mostly at position 6" in notes(claims["sink"])
    assert claims["first-token"]["why"].startswith("model has no causal mask")
    assert claims["gain"]["why"].startswith("model has no next-token distribution")


def test_what_was_not_planted_is_refuted_or_not_run_and_the_run_is_green(tmp_path):
    done, claims = attest(make_model("llama"), tmp_path)
    assert done.returncode == 0, done.stdout
    found = verdicts(claims)
    absent = ("sink", "later-sinks", "activation-outliers", "weight-outliers", "attention-outliers")
    assert {slug: found[slug] for slug in absent} == dict.fromkeys(absent, "refuted")
    unasked = ("first-token", "random-tokens", "short-value", "key-angle", "fixed-dimensions", "positions-align")
    assert {slug: found[slug] for slug in unasked} == dict.fromkeys(unasked, "not run")


def test_a_model_without_attention_is_not_asked_about_it(tmp_path):
    done, claims = attest(make_model("mamba"), tmp_path)
    assert done.returncode == 0, done.stdout
    assert claims.pop("weight-outliers")["verdict"] == "refuted"
    assert set(verdicts(claims).values()) == {"not run"}
    assert "model has no attention that can be observed" in claims["sink"]["why"]


# -- what it answers and predicts --------------------------------------------------------------------------------------


def model_that_repeats_its_context(first=0.0):
    """A GPT-2 whose single head copies the mean of all tokens so far: what stands in the prompt becomes more likely.

    Args:
        first: by how much the first token's score exceeds the others'.
    """
    width = len(BYTES) + 1
    size = {"vocab_size": len(BYTES), "bos_token_id": 96, "eos_token_id": 96}
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_positions=512, n_embd=width, n_layer=1, n_head=1, **size)
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if ".ln_" in name and name.endswith("weight") else 0.0)
        model.transformer.wte.weight.copy_(torch.eye(width)[: len(BYTES)])
        attention = model.transformer.h[0].attn
        attention.c_attn.weight[:, 2 * width :] = torch.eye(width)  # queries and keys are zero: attention is uniform
        attention.c_proj.weight.copy_(torch.eye(width))
        model.transformer.wpe.weight[0, -1] = 1.0  # the last dimension is the first position's
        attention.c_attn.bias[0], attention.c_attn.weight[-1, width] = 1.0, first
    return model


def ten_questions(folder):
    lines = [{"question": "?", "choices": [one * 2, one.upper() * 2], "answer": one * 2} for one in "bcdfghjklm"]
    (folder / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return "--questions", str(folder / "questions.jsonl")


def test_a_planted_effect_of_prompts_is_found_and_every_control_rejected(tmp_path):
    done, claims = attest(
        model_that_repeats_its_context(), tmp_path, *ten_questions(tmp_path), "--claims", "checkpoint-mass"
    )
    assert done.returncode == 0, done.stdout
    assert claims["mass"]["verdict"] == "supported"
    assert [control["outcome"] for control in claims["mass"]["checks"][0]["controls"]] == ["rejected", "rejected"]


def test_without_the_effect_the_claims_are_refuted_and_the_run_is_green(tmp_path):
    model = make_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()  # every next token is equally likely, whatever the prompt
    asked = ("mass", "resolved", "questions")
    chosen = [f"checkpoint-{slug}" for slug in asked]
    done, claims = attest(model, tmp_path, *ten_questions(tmp_path), "--claims", *chosen)
    assert done.returncode == 0, done.stdout
    assert verdicts(claims) == dict.fromkeys(asked, "refuted")
    assert claims["mass"]["checks"][0]["outcome"] == "violated"


def test_a_first_token_that_takes_too_much_is_mended_by_a_small_gamma(tmp_path):
    """Its one head repeats the context, and the first token of all too often; the text is what it should repeat."""
    text = "".join(f"{first}{'abcdefghij'[at % 10] * 63}" for at, first in enumerate("ZYXWVUTSRQPONMLKJIHG" * 6))
    (tmp_path / "text.txt").write_text(text)
    model = model_that_repeats_its_context(first=0.5)
    done, claims = attest(model, tmp_path, "--text", str(tmp_path / "text.txt"))
    assert done.returncode == 0, done.stdout
    assert claims["gain"]["verdict"] == "supported"
    assert "Chosen: gamma = 0.25" in notes(claims["gain"])


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent"], "no directory absent: give a local one"),
        (["{model}", "--text", "absent.txt"], "absent.txt"),
        (["{model}", "--questions", "{model}/config.json"], "a line looks like"),
    ],
)
def test_bad_input_ends_the_command_at_once_and_names_the_remedy(tmp_path, arguments, message):
    model = save(make_model("gpt2"), tmp_path / "model")
    done = run("reports", "checkpoint", *(one.format(model=model) for one in arguments))
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr + done.stdout


def test_a_text_that_is_too_short_fails_the_run_with_what_it_takes(tmp_path):
    (tmp_path / "text.txt").write_text("short")
    done, _ = attest(make_model("gpt2"), tmp_path, "--text", str(tmp_path / "text.txt"), "--claims", "checkpoint-sink")
    assert done.returncode == 1
    assert "the text has 5 tokens, enough for 0 sequences of 64: give one of 2560 tokens or more" in done.stdout


def test_pytest_itself_takes_the_directory_with_the_sign(tmp_path):
    """Without it pytest takes the directory for tests, looks there for its settings, and never learns our options."""
    model = save(make_model("gpt2"), tmp_path / "model")
    done = run("pytest", "--checkpoint", str(model), "-n", "0")
    assert done.returncode == 4
    assert "unrecognized arguments: --checkpoint" in done.stderr
    chosen = ["--claim", "checkpoint-weight-outliers", "-n", "0", "--out", str(tmp_path / "out")]
    done = run("pytest", "tests/claims/sinks", f"--checkpoint={model}", *chosen)
    assert done.returncode == 0, done.stdout
    assert "1 claim: 1 refuted" in done.stdout
