"""The door for a checkpoint of your own: a Hugging Face directory.

Only safetensors weights are read, no code of the checkpoint is run, and nothing is fetched: each of these is refused
with a message that names the remedy. `transformers` is needed here and nowhere else.

    source = look("DIR", dtype="bfloat16")     its files are in order; nothing of it is loaded
    print(source, source.memory())
    checkpoint = load(source)
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

LENGTH, SEQUENCES, BATCH = 64, 100, 10
"""What a model is given to read: so many sequences of so many tokens, so many at a time."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
Weights = Literal["trained", "fresh"]
"""As in the files, or as the same architecture has them before training."""
Made = TypeVar("Made")


class Lacks(Exception):
    """The model has not what a claim speaks of, so that it cannot be asked; the message continues "model has no"."""


@dataclass(frozen=True)
class Source:
    """A directory whose files were found in order, and how its model is to be built. Nothing of it is loaded yet."""

    folder: Path
    config: Any
    parameters: int
    device: str
    dtype: str

    @property
    def name(self) -> str:
        """Of the directory; of the repository where it lies in the cache of huggingface_hub."""
        folder = self.folder.resolve()
        if folder.parent.name == "snapshots":
            return folder.parents[1].name.removeprefix("models--").replace("--", "/")
        return folder.name

    @property
    def predicts(self) -> bool:
        """Is it a causal language model, with a distribution of the next token, and to be loaded as one?"""
        names = self.config.architectures or []
        if names:
            return any(re.search("CausalLM|LMHead", name) for name in names)
        from transformers.models.auto import modeling_auto

        kind = self.config.model_type
        masked = modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES
        return kind in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and kind not in masked

    @property
    def heads(self) -> int:
        return int(getattr(self.config.get_text_config(), "num_attention_heads", 0))

    def __str__(self) -> str:
        kind = next(iter(self.config.architectures or []), self.config.model_type)
        layers = self.config.get_text_config().num_hidden_layers
        return (
            f"{self.name} ({kind}, {self.parameters:,} parameters, {layers} layers of {self.heads} heads, "
            f"{self.dtype} on {self.device})"
        )

    def memory(self) -> str:
        """What it will take, in words: weights, and the attention of one layer, the most that is held of it."""
        weights = self.parameters * BYTES[self.dtype]
        attention = BATCH * self.heads * LENGTH**2 * BYTES["float32"]  # to which models themselves take softmax
        return f"{_size(weights)} for the weights, {_size(attention)} for the attention of one layer"

    def build(self, weights: Weights, seed: int) -> Any:
        """The model in evaluation mode, with eager attention.

        Raises:
            ValueError: the files lack weights of the architecture.
        """
        import torch
        from transformers import AutoModel, AutoModelForCausalLM

        kind: Any = AutoModelForCausalLM if self.predicts else AutoModel
        given: dict[str, Any] = {"dtype": getattr(torch, self.dtype), "attn_implementation": "eager"}
        if weights == "fresh":
            with torch.random.fork_rng(), torch.device(self.device):
                torch.manual_seed(seed)
                return kind.from_config(self.config, **given).eval()
        model, found = kind.from_pretrained(
            str(self.folder), use_safetensors=True, output_loading_info=True, **SAFE, **given
        )
        missing = sorted(name for name in found["missing_keys"] if "pooler" not in name)
        if missing:
            raise ValueError(
                f"{self.folder} lacks weights of {type(model).__name__}, such as {missing[0]}: the list of "
                "architectures in config.json names another model than was saved"
            )
        return model.to(self.device).eval()


SAFE: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@dataclass(eq=False)
class Checkpoint:
    """A model, its tokenizer, and a text for it to read. `keep` holds on to what was measured."""

    source: Source
    tokenizer: Any
    text: str
    seed: int = 0
    kept: dict[Hashable, Any] = field(default_factory=dict)
    held: tuple[Weights, Any] | None = None

    @property
    def model(self) -> Any:
        return self.model_with("trained")

    def model_with(self, weights: Weights) -> Any:
        """The model, or its architecture with fresh weights. One of the two is held at a time."""
        if self.held is None or self.held[0] != weights:
            self.held = None
            self.held = (weights, self.source.build(weights, self.seed))
        return self.held[1]

    @property
    def positions(self) -> int | None:
        """The longest sequence that the model reads, or None where nothing says."""
        limits = (
            getattr(self.source.config.get_text_config(), "max_position_embeddings", None),
            getattr(self.tokenizer, "model_max_length", None),
        )
        return min((limit for limit in limits if limit is not None and limit < 10**9), default=None)

    def keep(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns; it is called once for each key."""
        if key not in self.kept:
            self.kept[key] = make()
        made: Made = self.kept[key]
        return made


def load(source: Source | str | Path, *, text: str | None = None, seed: int = 0) -> Checkpoint:
    """Tokenizer and text; the model itself is loaded when it is first asked for.

    Args:
        source: from `look`, or a directory.
        text: what the model is to read; Python's own help texts unless given.
        seed: of the fresh weights, and of tokens drawn at random.
    """
    from transformers import AutoTokenizer

    source = source if isinstance(source, Source) else look(source)
    tokenizer = AutoTokenizer.from_pretrained(str(source.folder), **SAFE)
    return Checkpoint(source, tokenizer, help_texts() if text is None else text, seed)


def help_texts() -> str:
    """What `help` says in Python about its topics: some 700 KB of English, which differ between versions."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


# -- before anything is loaded -----------------------------------------------------------------------------------------


def look(directory: str | Path, *, device: str | None = None, dtype: str = "float32") -> Source:
    """Look at the files of a directory, without opening weights or running anything.

    Args:
        device: "cpu" or "cuda"; cuda where there is one unless given.

    Raises:
        FileNotFoundError: no such directory, or no config.json, weights or tokenizer in it.
        ValueError: weights as pickles only or cut off, code of its own (`auto_map`), an architecture that is not known
            or not read here, no such device.
        ImportError: `transformers` is not installed.
    """
    folder = Path(directory)
    _check_files(folder)
    try:
        from transformers import AutoConfig
    except ImportError as missing:
        raise ImportError("a checkpoint needs the package transformers: pip install transformers") from missing
    config = AutoConfig.from_pretrained(str(folder), **SAFE)
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(f"{folder} is an encoder with a decoder: give a decoder, such as GPT-2, or an encoder alone")
    return Source(folder, config, sum(map(_parameters, _weight_files(folder))), _device(device), dtype)


def _check_files(folder: Path) -> None:
    """Refuse what is missing or unsafe before any library opens it."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no directory {folder}: give a local one; names on the Hub are not fetched")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"no config.json in {folder}: give the directory written by model.save_pretrained(...)")
    for name in ("config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and "auto_map" in _json(folder / name):
            raise ValueError(
                f"{folder / name} has auto_map, which runs code of the checkpoint: not done here; "
                "save the model under an architecture that transformers itself has"
            )
    if not any(folder.glob("*.safetensors")):
        if any(path for pattern in PICKLES for path in folder.glob(pattern)):
            raise ValueError(
                f"{folder} has pickled weights only, and a pickle can run code: where you trust it, convert it with "
                "model.save_pretrained(DIR, safe_serialization=True)"
            )
        raise FileNotFoundError(f"no *.safetensors in {folder}: save the weights with model.save_pretrained(...)")
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise FileNotFoundError(f"no tokenizer in {folder}: save it there with tokenizer.save_pretrained(...)")


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}): copy it anew") from error
    return dict(read)


def _weight_files(folder: Path) -> list[Path]:
    """The files that the library will read: those of the index, the one of the usual name, or all there are."""
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in sorted(set(_json(index)["weight_map"].values()))]
    usual = folder / "model.safetensors"
    return [usual] if usual.is_file() else sorted(folder.glob("*.safetensors"))


def _parameters(path: Path) -> int:
    """How many numbers a file of weights holds, by its header: 8 bytes with its length, then JSON."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length))
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        whole = 8 + length + max(tensor["data_offsets"][1] for tensor in tensors) == path.stat().st_size
    except (OSError, ValueError, OverflowError, MemoryError):
        whole = False
    if not whole:
        raise ValueError(f"{path} is missing, cut off, or no safetensors: copy it anew")
    return sum(math.prod(tensor["shape"]) for tensor in tensors if tensor["dtype"].startswith(("F", "BF")))


def _device(given: str | None) -> str:
    import torch

    if given == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA device here: give --device cpu, or install torch for your GPU")
    return given or ("cuda" if torch.cuda.is_available() else "cpu")


def _size(count: int) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
