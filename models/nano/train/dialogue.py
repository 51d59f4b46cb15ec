"""Batches of chats for the decoder, with the tool list of a batch computed once for all its samples."""

import torch
import torch.nn.functional as F
from transformers import DynamicCache

import attention
import phi4mm
import tokenizer

IGNORE, MEDIA = -100, -1


def encode(text):
    return tokenizer.load_exact().encode(text).ids


def decode(ids):
    return tokenizer.load().decode(ids, skip_special_tokens=False)


def embed(model, ids):
    return model.model.embed_tokens(torch.tensor(ids, dtype=torch.long))


class Sample:
    """What follows the prefix: pieces of (embeddings or ids, is it an answer)."""

    def __init__(self, *pieces):
        self.pieces = pieces


def text(string):
    """Part of a prompt, the user's words among it, as the runtime cuts it into tokens."""
    return tokenizer.load().encode(string).ids, False


def answer(string):
    return encode(string), True


def rows(tensor):
    """Embeddings that do not come from the token table."""
    return tensor, False


def assemble(model, samples):
    """Right-padded embeddings [b, s, hidden] and, per position, the token to predict there (IGNORE elsewhere)."""
    ids, labels, media = [], [], []
    for sample in samples:
        ids.append([])
        labels.append([])
        for content, is_answer in sample.pieces:
            is_rows = isinstance(content, torch.Tensor)
            media += [content] if is_rows else []
            ids[-1] += [MEDIA] * len(content) if is_rows else content
            labels[-1] += content if is_answer else [IGNORE] * len(content)
    ids, targets = _pad(ids, 0), _pad([row[1:] + [IGNORE] for row in labels], IGNORE)
    embeds = model.model.embed_tokens(ids.clamp(min=0))  # one look-up: its gradient is as large as the table
    if media:
        places = (ids == MEDIA).nonzero(as_tuple=True)
        embeds = embeds.index_put(places, torch.cat(media).to(embeds.dtype))
    return embeds, targets


def _pad(lists, value):
    """To a length in steps of 16, since every new shape costs the making of new kernels."""
    out = torch.nn.utils.rnn.pad_sequence([torch.tensor(x) for x in lists], batch_first=True, padding_value=value)
    return F.pad(out, (0, -out.shape[1] % 16), value=value)


def prefix_cache(model, prefix):
    """Keys and values of the prefix text, for every sample of a batch; gradients flow through it."""
    cache = DynamicCache(config=model.config)
    phi4mm.forward(model, embed(model, encode(prefix))[None], cache)
    return attention.AfterPrefix(model, cache)


def loss(model, samples, prefix=None):
    """Cross entropy over the answers' tokens, those that are still uncertain counting more: most of a call is boilerplate."""
    embeds, targets = assemble(model, samples)
    cache = prefix_cache(model, prefix) if prefix else None
    hidden = phi4mm.forward(model, embeds, cache)
    if cache:
        cache.close()
    chosen = targets != IGNORE
    each = F.cross_entropy(phi4mm.logits(model, hidden[chosen]).float(), targets[chosen], reduction="none")
    weights = 1.05 - torch.exp(-each.detach())
    return (weights * each).sum() / weights.sum()


@torch.no_grad()
def reply(model, samples, prefix="", max_new=72):
    """Greedy answers (texts with their special tokens) to samples that hold no answer yet."""
    prompts = []
    for sample in samples:
        parts = [c if isinstance(c, torch.Tensor) else embed(model, c) for c, _ in sample.pieces]
        head = [embed(model, encode(prefix))] if prefix else []
        prompts.append(torch.cat(head + parts))
    stop = encode("<|end|>") + encode("<|endoftext|>")
    return [decode(ids) for ids in phi4mm.generate_batch(model, prompts, max_new, stop)]
