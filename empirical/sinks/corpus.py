"""Text for pre-training: your own, or what the machine has, as tokens of a byte-level BPE that is trained on it.

Without a path the text is what Python's library and the installed packages consist of: source and documentation. It
differs between machines, so that its size and a hash of it go into every result. Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import logging
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from empirical.artefacts import Tensors, artefact

log = logging.getLogger("attest.corpus")
SUFFIXES = (".py", ".pyi", ".md", ".rst", ".txt", ".tex")
LARGEST_FILE, FEWEST_BYTES = 1_000_000, 1_000_000
TEST_EVERY = 50
"""Each fiftieth file is for testing."""
END = "<|end|>"


@dataclass(frozen=True)
class Corpus:
    """Tokens (count,) int32 of the files, each followed by an end token; `vocabulary` counts the end token too."""

    train: Tensor
    test: Tensor
    vocabulary: int
    fingerprint: str


def files(path: Path | None = None) -> list[Path]:
    """Text files below a folder, or a single file; by default those of Python's library and installed packages.

    Raises:
        FileNotFoundError: there is nothing at the path, or less than a million bytes of text.
    """
    if path is not None and not path.exists():
        raise FileNotFoundError(f"no file or folder {path}: give a text file, or a folder with {', '.join(SUFFIXES)}")
    if path is not None and path.is_file():
        found = [path]
    else:
        paths = sysconfig.get_paths()
        roots = [path] if path is not None else sorted({Path(paths["stdlib"]), Path(paths["purelib"])})
        found = sorted({file for root in roots for suffix in SUFFIXES for file in root.rglob(f"*{suffix}")})
        found = [file for file in found if file.is_file() and file.stat().st_size <= LARGEST_FILE]
    size = sum(file.stat().st_size for file in found)
    if size < FEWEST_BYTES:
        raise FileNotFoundError(f"{path}: {size} bytes of text; pre-training needs at least {FEWEST_BYTES}")
    return found


def texts(paths: Iterable[Path]) -> Iterator[str]:
    """Their contents, each once: files of the same text are read once, what is not UTF-8 is left out."""
    seen: set[bytes] = set()
    for path in paths:
        raw = path.read_bytes()
        if (digest := hashlib.sha256(raw).digest()) in seen:
            continue
        seen.add(digest)
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError:
            continue


def tokenised(path: Path | None = None, vocabulary: int = 16_384) -> Corpus:
    """The corpus as tokens, from the cache if the same files were read before.

    Raises:
        FileNotFoundError: as in `files`.
        ImportError: `tokenizers` is not installed.
    """
    chosen = files(path)
    digest = hashlib.sha256(repr([(file.name, file.stat().st_size) for file in chosen]).encode()).hexdigest()[:16]
    made = artefact(
        "corpus", __file__, {"files": digest, "vocabulary": vocabulary}, lambda _: _make(chosen, vocabulary)
    )
    return Corpus(made["train"], made["test"], int(made["vocabulary"]), digest)


def _make(chosen: list[Path], vocabulary: int) -> Tensors:
    try:
        from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    except ImportError as missing:
        raise ImportError("pre-training needs the package tokenizers: pip install tokenizers") from missing
    contents = list(texts(chosen))
    log.info("corpus: %d texts, %.0f MB", len(contents), sum(map(len, contents)) / 1e6)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    tokenizer.train_from_iterator(contents[::8], trainer)  # an eighth of the texts: merges, not statistics, are needed
    end: int = tokenizer.encode(END).ids[0]
    parts: dict[str, list[int]] = {"train": [], "test": []}
    for start in range(0, len(contents), 4096):
        for i, encoded in enumerate(tokenizer.encode_batch_fast(contents[start : start + 4096]), start):
            parts["test" if i % TEST_EVERY == TEST_EVERY - 1 else "train"] += [*encoded.ids, end]
    tensors = {name: torch.tensor(ids, dtype=torch.int32) for name, ids in parts.items()}
    log.info("corpus: %d tokens for training, %d for testing", len(tensors["train"]), len(tensors["test"]))
    return {**tensors, "vocabulary": torch.tensor(tokenizer.get_vocab_size())}
