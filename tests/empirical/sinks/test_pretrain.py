"""Pre-training: its text, its fused attention, its loop, and what is measured of its models. All sizes are tiny."""

from dataclasses import fields, replace

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
pytest.importorskip("tokenizers", reason="needs tokenizers (pip install tokenizers)")

from empirical.layers import Attention, Style  # noqa: E402
from empirical.sinks import corpus, pretrain  # noqa: E402
from empirical.sinks.compression import activation_cost, cost, matrices, weight_ratio  # noqa: E402
from empirical.sinks.inside import Inside, look_inside  # noqa: E402
from empirical.sinks.pretrain import batch, logged, pretrained  # noqa: E402
from empirical.sinks.pretrain_model import Fused, Setting, flops_per_token  # noqa: E402
from empirical.sinks.variants import VARIANTS  # noqa: E402
from theory.operators.attention import softmax, uniform  # noqa: E402

TINY = Setting(width=16, layers=2, heads=2, length=24, batch=2, steps=6, rate=1e-2)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A million bytes of text in sixty files."""
    made = tmp_path_factory.mktemp("text")
    for i in range(60):
        (made / f"{i}.txt").write_text("".join(f"line {i} of {n}: the quick brown fox\n" for n in range(520)), "utf-8")
    return made


@pytest.fixture
def text():
    generator = torch.Generator().manual_seed(0)
    train, test = (torch.randint(1, 50, (count,), generator=generator, dtype=torch.int32) for count in (4000, 1000))
    return corpus.Corpus(train, test, 50, "random")


# -- text --------------------------------------------------------------------------------------------------------------


def test_a_corpus_is_every_file_once_with_an_end_token_after_it(folder):
    (folder / "copy.txt").write_text((folder / "0.txt").read_text("utf-8"), "utf-8")
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 10)
    made = corpus.tokenised(folder, vocabulary=300)
    assert int((made.train == 0).sum()) == 59
    assert int((made.test == 0).sum()) == 1
    assert made.train[-1] == made.test[-1] == 0
    assert int(made.train.max()) < made.vocabulary == 300


@pytest.mark.parametrize(
    ("path", "message"), [("absent", "no file or folder"), ("little.txt", "pre-training needs at least")]
)
def test_too_little_text_is_refused_with_a_remedy(tmp_path, path, message):
    (tmp_path / "little.txt").write_text("little", "utf-8")
    with pytest.raises(FileNotFoundError, match=message):
        corpus.tokenised(tmp_path / path)


def test_a_batch_depends_on_seed_and_step_alone_and_may_have_a_fixed_token(text):
    first = batch(text.train, TINY, 1, 5)
    assert first.shape == (2, 25)
    assert torch.equal(first, batch(text.train, TINY, 1, 5))
    assert not torch.equal(first, batch(text.train, TINY, 1, 6))
    assert not torch.equal(first, batch(text.train, TINY, 2, 5))
    fixed = batch(text.train, replace(TINY, fixed=3), 1, 5)
    assert (fixed[:, 3] == 0).all()
    assert torch.equal(fixed[:, :3], first[:, :3])
    with pytest.raises(ValueError, match="give a longer one"):
        batch(text.train[:25], TINY, 1, 5)


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outlet", ["none", "value bias", "key bias", "key-value bias", "context-aware bias", "gate"])
def test_fused_attention_is_the_same_attention(outlet):
    style = Style(16, 2, position="rotary", linear_bias=False, outlet=outlet)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain, x = Attention(style), torch.randn(3, 7, 16)
        if outlet == "value bias":
            torch.nn.init.normal_(plain.star_value)
    fused = Fused(style)
    fused.load_state_dict(plain.state_dict())
    mask = torch.ones(7, 7, dtype=torch.bool).tril()
    torch.testing.assert_close(fused(x, mask=mask), plain(x, mask=mask))


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_each_variant_can_be_built_and_looked_into(variant):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = replace(TINY, variant=variant).build(50)
    inside = look_inside(model, torch.arange(48).view(2, 24) % 50)
    assert inside.sinks.shape == (2, 2, 24)
    assert inside.largest.shape == (2, 24)
    assert all(torch.isfinite(getattr(inside, field.name)).all() for field in fields(Inside))


def test_flops_count_what_multiplies():
    # 6 N for the matrices: 4 d^2 + 3 d (2 d) per layer, d V for the logits; 12 n d / 2 per layer for attention
    assert flops_per_token(TINY, 50) == 6 * (2 * (4 * 16**2 + 3 * 16 * 32) + 16 * 50) + 2 * 12 * 24 * 16 / 2


def test_moments_are_denser_early_and_include_both_ends():
    moments = logged(2000)
    assert (moments[0], moments[-1]) == (0, 2000)
    assert len(moments) == len(set(moments)) == 41
    assert moments[1] - moments[0] < moments[-1] - moments[-2]


# -- training ----------------------------------------------------------------------------------------------------------


def test_training_lowers_the_loss_and_is_kept(text, monkeypatch):
    done = pretrained(replace(TINY, steps=40), text, seed=0)
    assert done.losses[-1] < done.losses[0]
    assert done.inside.sinks.shape == (len(done.steps), 2, 2, pretrain.SHOWN_LENGTH)

    def never(*arguments):
        raise AssertionError("trained again")

    monkeypatch.setattr(pretrain, "_train", never)
    again = pretrained(replace(TINY, steps=40), text, seed=0)
    assert torch.equal(again.losses, done.losses)
    assert torch.equal(again.model.token.weight, done.model.token.weight)


def test_an_interrupted_training_goes_on_where_it_stopped(text, monkeypatch):
    whole = pretrained(TINY, text, seed=3)
    monkeypatch.setattr(pretrain, "KEEP_EVERY", 0.0)
    plain, calls = pretrain._row, []

    def interrupted(*arguments):
        calls.append(arguments[0])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(*arguments)

    other = replace(text, fingerprint="the same, under another name")
    monkeypatch.setattr(pretrain, "_row", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrained(TINY, other, seed=3)
    resumed = pretrained(TINY, other, seed=3)
    assert calls == [0, 1, 2, 3, 3, 4, 5, 6]
    torch.testing.assert_close(resumed.losses, whole.losses)
    torch.testing.assert_close(resumed.model.state_dict(), whole.model.state_dict())


def test_a_diverging_training_is_an_error(text):
    with pytest.raises(FloatingPointError, match="try a lower rate"):
        pretrained(replace(TINY, rate=1e20, steps=20), text, seed=0)


def test_the_command_trains_and_says_what_is_wrong(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        pretrain, "pretrained", lambda setting, *given: pretrained(replace(TINY, steps=setting.steps), *given)
    )
    assert pretrain.main(["softmax", "--corpus", str(folder), "--steps", "2"]) == 0
    assert "softmax: test loss" in capsys.readouterr().out
    assert pretrain.main(["softmax", "--corpus", str(folder / "absent")]) == 2
    assert "give a text file" in capsys.readouterr().err


# -- what is measured --------------------------------------------------------------------------------------------------


def test_uniform_attention_has_the_importance_of_harmonic_numbers():
    model = TINY.build(50)
    for block in model.blocks:
        block.attention.layer.operator = uniform
    inside = look_inside(model, torch.arange(48).view(2, 24) % 50, batch=1)
    harmonic = sum(1 / t for t in range(1, 25)) / 24
    torch.testing.assert_close(inside.importance[..., 0], torch.full((2, 2), harmonic))
    torch.testing.assert_close(inside.mass, torch.ones(2, 2))


def test_a_planted_sink_is_found_in_its_head_and_at_its_token():
    model = TINY.build(50)
    attention = model.blocks[1].attention.layer

    def operator(query, key, mask=None):
        weights = softmax(query, key, mask=mask).clone()
        weights[:, 1, 5:] = 0
        weights[:, 1, 5:, 4] = 1
        return weights

    attention.operator = operator
    inside = look_inside(model, torch.arange(48).view(2, 24) % 50)
    assert inside.sinks[1, 1, 4] == 1
    assert inside.sinks[0, :, 4].max() == inside.sinks[1, 0, 4] == 0


@pytest.mark.parametrize("shape", [(0, 24), (2, 1)])
def test_nothing_can_be_a_sink_in_no_or_one_token(shape):
    with pytest.raises(ValueError, match="two tokens or more"):
        look_inside(TINY.build(50), torch.zeros(shape, dtype=torch.long))


def test_compression_costs_nothing_where_nothing_changes_and_everything_where_all_goes(text):
    done = pretrained(replace(TINY, steps=40), text, seed=0)
    assert cost(done, text.test, lambda weight: weight) == 0
    assert abs(activation_cost(done, text.test, 24)) < 1e-4
    assert cost(done, text.test, torch.zeros_like) != 0
    with torch.no_grad():
        layer = matrices(done.model)[0]
        layer.weight[0, 0] = 1001 * layer.weight.abs().mean()
    assert weight_ratio(done) > 100
