"""Attention by plain matrix products, for training: on CPUs the fused kernel's backward pass takes several times as long."""

import copy

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def _by_products(module, query, key, value, attention_mask=None, scaling=None, dropout=0.0, **_):
    """[b, heads, s, d] queries over [b, kv heads, t, d] keys; causal where no mask is given."""
    batch, heads, length, dim = query.shape
    kv_heads, total = key.shape[1:3]
    group = heads // kv_heads
    q = (query * scaling).reshape(batch, kv_heads, group * length, dim)
    scores = (q @ key.transpose(2, 3)).reshape(batch, kv_heads, group, length, total)
    if attention_mask is None:
        attention_mask = torch.ones(total, total, dtype=torch.bool).tril()[total - length :]
    else:
        attention_mask = attention_mask[:, :, None]
    bias = torch.zeros(attention_mask.shape, dtype=scores.dtype).masked_fill(~attention_mask, float("-inf"))
    weights = torch.softmax(scores + bias, dim=-1).to(value.dtype)
    out = weights.reshape(batch, kv_heads, group * length, total) @ value
    return out.reshape(batch, heads, length, dim).transpose(1, 2).contiguous(), None


def _over_all(module, query, key, value, attention_mask=None, scaling=None, dropout=0.0, **_):
    """The same for an encoder: every query sees all keys, or those that the mask names."""
    scores = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    weights = torch.softmax(scores, dim=-1).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), None


def use_in_tower(tower):
    """Switches the vision tower over."""
    ALL_ATTENTION_FUNCTIONS.register("products_over_all", _over_all)
    own = copy.deepcopy(tower.encoder.layers[0].self_attn.config)
    own._attn_implementation = "products_over_all"
    for layer in tower.encoder.layers:
        layer.self_attn.config = own


def use(model):
    """Switches the decoder of a model over; the encoders keep theirs (a model's parts share one setting, hence the copy)."""
    ALL_ATTENTION_FUNCTIONS.register("products", _by_products)
    own = copy.deepcopy(model.config)
    own._attn_implementation = "products"
    for layer in model.model.layers:
        layer.self_attn.config = own
