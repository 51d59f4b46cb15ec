"""Exact answers to typed commands of held-out sentences, all tools offered: `python evaluate_text.py CHECKPOINT [COUNT]`."""

import itertools
import json
import sys

import torch

import attention
import dialogue
import phi4mm
import text_data
from dialogue import Sample, text
from grammar import TOOLS, utterances


def table(model, count):
    """Share of exactly right answers, of each kind of sentence and of all that ask for one call."""
    phi4mm.set_adapter(model, None)
    items, right = list(itertools.islice(utterances(17, held_out=True), count)), {}
    for start in range(0, count, 24):
        part = items[start : start + 24]
        samples = [Sample(text(f"{item.text}<|end|><|assistant|>")) for item in part]
        for item, reply in zip(part, dialogue.reply(model, samples, text_data.prefix(TOOLS))):
            right.setdefault(item.kind, []).append(text_data.parse(reply) == item.calls)
    single = [ok for kind, oks in right.items() if kind not in ("none", "double") for ok in oks]
    return {"calls": sum(single) / len(single)} | {kind: sum(v) / len(v) for kind, v in sorted(right.items())}


if __name__ == "__main__":
    torch.set_num_threads(1)
    loaded = phi4mm.load_orig(phi4mm.build(phi4mm.load_config(sys.argv[1])), sys.argv[1])
    attention.use(loaded)
    result = table(loaded, int(sys.argv[2]) if len(sys.argv) > 2 else 240)
    print(json.dumps({key: round(value, 3) for key, value in result.items()}, indent=1))
