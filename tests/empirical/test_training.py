"""The training loop and its cache."""

import logging
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from empirical import artefacts, sources, training  # noqa: E402
from empirical.training import Recipe, fit  # noqa: E402


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("ATTEST_CACHE", str(tmp_path))


def build():
    return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))


def batches(seeds, interrupt=lambda: None):
    def draw(generator):
        interrupt()
        x = torch.randn(seeds, 32, 3, generator=generator)
        return x, x.prod(-1, keepdim=True)

    return draw


def loss(model, x, y):
    return (model(x) - y).square().mean()


def run(*, seeds=3, steps=20, config=None, seed=0, recipe=None, loss=loss, interrupt=lambda: None):
    return fit(
        "test", __file__, config or {}, build=build, loss=loss, batches=batches(seeds, interrupt),
        recipe=recipe or Recipe(steps, clip=0.05), seed=seed, seeds=seeds,
    )  # fmt: skip


def test_models_side_by_side_are_what_each_becomes_alone():
    """A plain loop over one model with torch's own clipping and AdamW, on that seed's rows of the batches."""
    together, recipe = run(), Recipe(20, clip=0.05)
    _, start = training.initial(build, 0, 3)
    for seed in range(3):
        model = build()
        model.load_state_dict({name: tensor[seed] for name, tensor in start.items()})
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, betas=recipe.betas, weight_decay=0.0)
        generator = torch.Generator().manual_seed(0)
        for step in range(20):
            x, y = (tensor[seed] for tensor in batches(3)(generator))
            optimizer.param_groups[0]["lr"] = recipe.rate_at(step)
            optimizer.zero_grad()
            loss(model, x, y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.05)
            optimizer.step()
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(together.tensors[name][seed].cpu(), tensor, rtol=1e-3, atol=1e-5)


def test_training_lowers_the_loss_and_zero_steps_do_nothing():
    x, y = (tensor.to(training.device()) for tensor in batches(3)(torch.Generator().manual_seed(9)))
    before, after = run(steps=0), run(steps=300, recipe=Recipe(300, rate=1e-2))
    assert (after.each(loss, x, y, own=True) < before.each(loss, x, y, own=True)).all()


def test_the_same_request_is_trained_once(monkeypatch):
    first = run()
    monkeypatch.setattr(training, "_train", None)
    again = run()
    assert all(torch.equal(first.tensors[name], again.tensors[name]) for name in first.tensors)


@pytest.mark.parametrize(
    "other", [{"config": {"kind": "other"}}, {"seed": 1}, {"seeds": 2}, {"recipe": Recipe(20, rate=1e-4)}]
)
def test_another_configuration_seed_or_recipe_is_trained_anew(monkeypatch, other):
    run()
    monkeypatch.setattr(training, "_train", None)
    with pytest.raises(TypeError, match="not callable"):
        run(**other)


def test_a_change_of_the_code_is_never_answered_from_the_cache(tmp_path):
    code = tmp_path / "code.py"
    code.write_text("x = 1\n")
    before = artefacts.key(str(code), {})
    code.write_text("x = 2\n")
    assert artefacts.key(str(code), {}) != before


def test_the_key_covers_modules_that_the_code_imports_through_others():
    files = sources.modules_behind(artefacts.ROOT, artefacts.ROOT / "empirical/training.py")
    names = {file.relative_to(artefacts.ROOT).as_posix() for file in files}
    assert {"empirical/training.py", "empirical/artefacts.py", "empirical/sources.py"} <= names
    assert "reports/claim.py" not in names


def test_an_interrupted_training_goes_on_where_it_stopped(monkeypatch, tmp_path):
    whole = run(config={"run": "whole"})
    monkeypatch.setattr(training, "EVERY", -1.0)  # keep the state after each step
    calls = 0

    def breaks():
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config={"run": "broken"}, interrupt=breaks)
    calls = 100
    resumed = run(config={"run": "broken"}, interrupt=breaks)
    assert calls == 109  # eleven of twenty steps were done
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(resumed.tensors[name], tensor)
    assert not list(tmp_path.glob("*.partial*"))


def test_progress_is_logged(caplog):
    with caplog.at_level(logging.INFO, "attest.training"):
        run()
    assert "test: step 20 of 20" in caplog.text


def test_a_loss_that_is_not_finite_stops_the_training_and_leaves_nothing(tmp_path):
    with pytest.raises(FloatingPointError, match=r"at step 20; try a lower rate"):
        run(loss=lambda model, x, y: loss(model, x, y) * float("nan"))
    assert not list(tmp_path.glob("*.safetensors"))


def test_one_of_the_models_can_be_had_alone():
    models, x = run(), torch.randn(5, 3, device=training.device())
    torch.testing.assert_close(models.one(2)(x), models(x)[2])
    assert len(models) == 3


def test_the_global_generator_is_left_alone():
    before = torch.random.get_rng_state()
    run(steps=1)
    assert torch.equal(before, torch.random.get_rng_state())


def test_half_written_files_are_never_seen(monkeypatch, tmp_path):
    def dies(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Path, "replace", dies)
    with pytest.raises(OSError, match="no space"):
        artefacts.save({"x": torch.zeros(2)}, tmp_path / "whole.safetensors")
    assert not (tmp_path / "whole.safetensors").exists()
