"""Pre-trained models for the claims that need them."""

from functools import cache

import pytest

from reports.randomness import seed_for

SECONDS = 3600
"""Time limit of a check that may have to pre-train: minutes for each model on a GPU."""


def pytest_collection_modifyitems(items):
    for item in items:
        if "corpus" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(SECONDS))


@pytest.fixture(scope="session")
def corpus(request, scale):
    """Text to pre-train on; not run without a GPU."""
    torch = pytest.importorskip("torch", reason="needs torch")
    if scale != "full" or not torch.cuda.is_available():
        pytest.skip("needs a GPU and --scale full: pre-trains models of 60 million parameters, minutes each")
    from empirical.sinks.corpus import tokenised

    return tokenised(request.config.getoption("--corpus"))


@pytest.fixture(scope="session")
def pretrained(request, corpus):
    """(variant, fixed=None) to a pre-trained model and its curves; all papers judge the same ones."""
    from empirical.sinks.pretrain import pretrained as train
    from empirical.sinks.pretrain_model import Setting

    seed = seed_for(request.config.getoption("--suite-seed"), "pre-training") % 2**32
    return cache(lambda variant, fixed=None: train(Setting(variant, fixed=fixed), corpus, seed))
