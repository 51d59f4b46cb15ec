"""Attention by plain matrix products, for training: on CPUs the fused kernel's backward pass takes several times as long."""

import copy

import torch
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def _by_products(module, query, key, value, attention_mask=None, scaling=None, dropout=0.0, **_):
    """[b, heads, s, d] queries over [b, kv heads, t, d] keys; causal where no mask is given.

    A `module.prefix`, keys and values [1, kv heads, p, d], stands before every row of the batch, without a copy for each.
    """
    prefix = getattr(module, "prefix", None)
    batch, heads, length, dim = query.shape
    kv_heads, total = key.shape[1:3]
    group = heads // kv_heads
    q = (query * scaling).reshape(batch, kv_heads, group * length, dim).transpose(0, 1)  # heads first: the prefix's are the same for all
    key, value = key.transpose(0, 1), value.transpose(0, 1)
    scores = (q @ key.transpose(2, 3)).reshape(kv_heads, batch, group, length, total)
    if attention_mask is None or prefix is not None:
        attention_mask = torch.ones(total, total, dtype=torch.bool).tril()[total - length :]
    else:
        attention_mask = attention_mask.transpose(0, 1)[:, :, None]
    scores = scores.masked_fill(~attention_mask, float("-inf"))
    if prefix is None:
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        out = weights.reshape(kv_heads, batch, group * length, total) @ value
    else:
        before = q.reshape(kv_heads, batch * group * length, dim) @ prefix[0][0].transpose(1, 2)
        scores = torch.cat([before.reshape(kv_heads, batch, group, length, -1), scores], dim=-1)
        weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
        first, own = weights.split([before.shape[-1], total], dim=-1)
        out = own.reshape(kv_heads, batch, group * length, total) @ value
        out = out + (first.reshape(kv_heads, batch * group * length, -1) @ prefix[1][0]).reshape(out.shape)
    out = out.transpose(0, 1).reshape(batch, heads, length, dim)
    return out.transpose(1, 2).contiguous(), None


class AfterPrefix:
    """Stands for the cache of a batch that follows a prefix, whose keys and values `attention.use`d modules hold meanwhile."""

    def __init__(self, model, cache):
        self.length, self.modules = cache.get_seq_length(), [layer.self_attn for layer in model.model.layers]
        for module, layer in zip(self.modules, cache.layers):
            module.prefix = (layer.keys, layer.values)

    def get_seq_length(self, *_):
        return self.length

    def update(self, key, value, *_, **__):
        return key, value

    def close(self):
        for module in self.modules:
            module.prefix = None


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
