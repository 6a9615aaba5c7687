"""What a model of `transformers` does inside, one layer at a time, and what it does when its attention is changed.

    observe(model, tokens, lambda layer: print(layer.index, layer.weights.mean((0, 1))[:, 0]))
    observe(model, tokens, edit=lambda index, weights: 2 * weights)

The callback gets one layer's tensors, which are freed when it returns: never is more than one attention matrix of one
batch held. Models that compute attention through the library's attention interface (Llama, Mistral, Qwen, GPT-2,
GPT-NeoX, OPT, BERT and most others) run their own eager code there. Of others (Falcon, BLOOM, GPT-J, ..) the weights
are taken from what their attention modules return, without queries, keys and values, and cannot be changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from empirical.checkpoints import Lacks

INTERFACE = "attest"
"""Name under which our function is registered with the library."""
Edit = Callable[[int, Tensor], Tensor]


@dataclass(frozen=True)
class Layer:
    """What one layer with attention sees and does with one batch.

    index    from 0, in the order in which the layers run
    hidden   (batch, n, width): the residual stream as the layer gets it
    output   (batch, n, width): the residual stream as it leaves it
    weights  (batch, heads, n, n), as the model itself uses them
    queries, keys, values  (batch, heads, n, width of a head), after the positions; None where the model hides them
    """

    index: int
    hidden: Tensor
    output: Tensor
    weights: Tensor
    queries: Tensor | None
    keys: Tensor | None
    values: Tensor | None


@dataclass
class Watch:
    """One run under observation. `within` are the blocks that are running, the innermost last: input, and attention."""

    see: Callable[[Layer], None]
    edit: Edit | None
    within: list[list[Any]] = field(default_factory=list)
    layers: int = 0

    def attention(self, weights: Tensor, queries: Tensor | None, keys: Tensor | None, values: Tensor | None) -> None:
        """A layer's attention has been computed; it waits for the end of its block."""
        if self.within:
            self.within[-1][1:] = [(weights, queries, keys, values)]

    def enter(self, block: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.within.append([given[0] if given else named.get("hidden_states")])

    def leave(self, block: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        hidden, *attention = self.within.pop()
        if attention:
            self.see(Layer(self.layers, hidden, output[0] if isinstance(output, tuple) else output, *attention[0]))
            self.layers += 1


_watch: Watch | None = None


def observe(
    model: Any, tokens: Tensor, see: Callable[[Layer], None] = lambda layer: None, *, edit: Edit | None = None
) -> Any:
    """Run a model on tokens (batch, n) and show each layer to `see`; returns the model's output.

    Args:
        edit: replaces the attention weights (batch, heads, n, n) of the layer of this index, before they meet values.

    Raises:
        ValueError: more tokens than the model has positions.
        Lacks: it has no attention that can be observed, or changed.
    """
    check_length(model, tokens.shape[-1])
    through = goes_through_interface(model)
    if edit is not None and not through:
        raise Lacks(f"attention that can be changed: {type(model).__name__} computes it in code of its own")
    watch = Watch(see, edit)
    blocks = [block for part in model.modules() if isinstance(part, nn.ModuleList) for block in part]
    handles: list[Any] = []
    try:
        for block in blocks:
            handles += [
                block.register_forward_pre_hook(watch.enter, with_kwargs=True),
                block.register_forward_hook(watch.leave),
            ]
        if not through:
            handles += [
                one.register_forward_hook(_take_weights(watch)) for one in model.modules() if _is_attention(one)
            ]
        with torch.inference_mode(), _interface(model, watch) if through else nullcontext():
            output = model(tokens.to(model.device), **({} if through else {"output_attentions": True}))
    finally:
        for handle in handles:
            handle.remove()
    if not watch.layers:
        raise Lacks(
            f"attention that can be observed: no module of {type(model).__name__} returns weights; give a model of "
            "transformers whose attention runs as attn_implementation='eager'"
        )
    return output


def check_length(model: Any, tokens: int) -> None:
    """Refuse more tokens than the model was made for.

    Raises:
        ValueError: says how many it reads.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and tokens > positions:
        raise ValueError(f"{tokens} tokens, but {type(model).__name__} reads {positions}: give shorter sequences")


def goes_through_interface(model: Any) -> bool:
    """Does the model compute attention by a function that the library lets one register?"""
    return bool(model._can_set_attn_implementation())


# -- inside ------------------------------------------------------------------------------------------------------------


@contextmanager
def _interface(model: Any, watch: Watch) -> Iterator[None]:
    """While this lasts, the model's attention goes through `_attention`."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    global _watch
    AttentionInterface.register(INTERFACE, _attention)
    AttentionMaskInterface.register(INTERFACE, eager_mask)
    model.set_attn_implementation(INTERFACE)
    _watch = watch
    try:
        yield
    finally:
        _watch = None
        model.set_attn_implementation("eager")


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    """The model's own eager attention, watched and edited; its weights go no further.

    query (batch, heads, n, width), key and value (batch, key heads, n, width), mask added to the scores. Returns the
    mixed values (batch, n, heads, width), as the interface asks.
    """
    assert _watch is not None
    mixed, weights = sys.modules[type(module).__module__].eager_attention_forward(
        module, query, key, value, mask, **given
    )
    group = query.shape[1] // key.shape[1]
    keys, values = (one.repeat_interleave(group, dim=1) for one in (key, value))
    if _watch.edit is not None:
        weights = _watch.edit(_watch.layers, weights)
        mixed = (weights.to(values.dtype) @ values).transpose(1, 2).contiguous()
    _watch.attention(weights, query, keys, values)
    return mixed, None


def _is_attention(module: nn.Module) -> bool:
    return "Attention" in type(module).__name__


def _take_weights(watch: Watch) -> Callable[..., Any]:
    """A hook that takes the weights out of what an attention module returns."""

    def take(module: nn.Module, given: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, tuple) and len(output) > 1 and isinstance(output[1], Tensor) and output[1].ndim == 4:
            watch.attention(output[1], None, None, None)
            return (output[0], None, *output[2:])
        return output

    return take
