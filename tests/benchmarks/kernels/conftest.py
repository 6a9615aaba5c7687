"""Kernels run in Triton's interpreter where there is no GPU; it must be asked for before they are imported."""

import os

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")
