"""Small models of `transformers`, made on the spot: as they are before training, and with planted sinks and outliers.

In a planted model one token has a large element in dimension `DIMENSION` of its hidden state; one head has queries that
are all the same and keys that read this dimension, so that every query attends to that token; no value reads it.
"""

import math

import pytest

torch = pytest.importorskip("torch", reason="needs torch")
transformers = pytest.importorskip("transformers", reason="needs transformers (pip install transformers)")
tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers (pip install tokenizers)")

BYTES = {chr(code): at for at, code in enumerate([10, *range(32, 127)])} | {"</s>": 96, "[CLS]": 97, "[SEP]": 98}
WIDTH, HEADS, LAYERS, DIMENSION = 64, 4, 3, 7
SIZE = {"vocab_size": len(BYTES), "bos_token_id": 96, "eos_token_id": 96, "pad_token_id": 96}
SHAPE = {
    "hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
    "max_position_embeddings": 256, **SIZE,
}  # fmt: skip
MASSIVE = 400.0


def make_tokenizer(kind="decoder"):
    """One token for each printable character and for the line break; an encoder's puts [CLS] and [SEP] around them."""
    inner = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=BYTES, merges=[]))
    inner.decoder = tokenizers.decoders.Fuse()
    if kind == "encoder":
        around = [("[CLS]", BYTES["[CLS]"]), ("[SEP]", BYTES["[SEP]"])]
        inner.post_processor = tokenizers.processors.TemplateProcessing("[CLS] $A [SEP]", special_tokens=around)
        return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, cls_token="[CLS]", sep_token="[SEP]")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="</s>")


def make_model(kind, **changes):
    """A model before training. That of "bloom" computes attention in code of its own, that of "mamba" has none."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if kind == "gpt2":
            shape = SIZE | {"n_positions": 256, "n_embd": WIDTH, "n_layer": LAYERS, "n_head": HEADS}
            return transformers.GPT2LMHeadModel(transformers.GPT2Config(**shape | changes))
        if kind == "llama":
            shape = SHAPE | {"num_key_value_heads": 2, "attention_bias": True}
            return transformers.LlamaForCausalLM(transformers.LlamaConfig(**shape | changes))
        if kind == "mistral":
            return transformers.MistralForCausalLM(transformers.MistralConfig(**SHAPE, num_key_value_heads=2))
        if kind == "qwen2":
            return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**SHAPE, num_key_value_heads=2))
        if kind == "neox":
            return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SHAPE | changes))
        if kind == "bert":
            return transformers.BertModel(transformers.BertConfig(**SHAPE | changes))
        if kind == "mamba":
            return transformers.MambaForCausalLM(transformers.MambaConfig(**SIZE, hidden_size=16, num_hidden_layers=1))
        assert kind == "bloom"
        return transformers.BloomForCausalLM(transformers.BloomConfig(**SIZE, hidden_size=WIDTH, n_layer=2, n_head=4))


def save(model, folder, tokenizer="decoder"):
    """A checkpoint: the directory that the user would give."""
    model.save_pretrained(folder)
    make_tokenizer(tokenizer).save_pretrained(folder)
    return folder


@torch.no_grad()
def planted_gpt2(layer=1, head=2, score=8.0):
    """The first position is massive, and a sink of one head; a weight that writes into its dimension is an outlier."""
    model = make_model("gpt2")
    model.transformer.wpe.weight[0, DIMENSION] = MASSIVE
    attention, first = model.transformer.h[layer].attn, head * WIDTH // HEADS
    plant_head(attention.c_attn.weight.T, attention.c_attn.bias, 0, WIDTH, first, score)
    for block in model.transformer.h:
        block.attn.c_attn.weight[DIMENSION, 2 * WIDTH :] = 0
    block = model.transformer.h[0].mlp
    block.c_fc.weight[:, 3] = 0  # the outlier has nothing to write
    block.c_proj.weight[3, DIMENSION] = 60.0
    return model


@torch.no_grad()
def planted_llama(layer=1, head=1, score=8.0, token="."):
    """Every full stop is massive, and a sink of one head, wherever it stands."""
    model = make_model("llama", num_key_value_heads=HEADS)
    model.model.embed_tokens.weight[BYTES[token], DIMENSION] = MASSIVE
    attention = model.model.layers[layer].self_attn
    first = head * WIDTH // HEADS + WIDTH // HEADS // 2 - 1  # the rotary pair that turns the least
    attention.q_proj.weight[first], attention.q_proj.bias[first] = 0, math.sqrt(WIDTH // HEADS)
    attention.k_proj.weight[first] = 0
    attention.k_proj.weight[first, DIMENSION] = score / math.sqrt(WIDTH)
    for block in model.model.layers:
        block.self_attn.v_proj.weight[:, DIMENSION] = 0
    return model


@torch.no_grad()
def planted_bert(layer=0, head=3, position=5, score=8.0):
    """One position is a sink of one head. Its hidden state cannot be massive: the norm comes after the branches."""
    model = make_model("bert")
    model.embeddings.position_embeddings.weight[position, DIMENSION] = MASSIVE
    attention, first = model.encoder.layer[layer].attention.self, head * WIDTH // HEADS
    attention.query.weight[first], attention.query.bias[first] = 0, math.sqrt(WIDTH // HEADS)
    attention.key.weight[first] = 0
    attention.key.weight[first, DIMENSION] = score / math.sqrt(WIDTH)
    for block in model.encoder.layer:
        block.attention.self.value.weight[:, DIMENSION] = 0
    return model


def plant_head(weight, bias, queries, keys, first, score):
    """In a joint projection (outputs, width): constant queries, and keys that read the dimension."""
    weight[queries + first], bias[queries + first] = 0, math.sqrt(WIDTH // HEADS)
    weight[keys + first] = 0
    weight[keys + first, DIMENSION] = score / math.sqrt(WIDTH)
