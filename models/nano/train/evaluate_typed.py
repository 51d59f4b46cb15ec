"""Exact answers to the typed sets and to results that have to be repeated: `python evaluate_typed.py CHECKPOINT [LIMIT]`.

Beside `typed_sets.py` there are `other_tools` (the typed set, each with other tools offered) and `repeats` (a sign's text after a
tool's result), which `outpost eval` has no form for.
"""

import json
import random
import sys

import numpy as np
import torch

import attention
import dialogue
import other_tools
import phi4mm
import text_data
import typed_sets
import vision_text
from dialogue import Sample, text
from grammar import TOOLS

BATCH = 16


def _answers(model, prompts, tools):
    out = []
    for start in range(0, len(prompts), BATCH):
        out += dialogue.reply(model, [Sample(text(p)) for p in prompts[start : start + BATCH]], text_data.prefix(tools), 110)
    return out


def repeats(model, count):
    """Share of signs that the sentence after the result repeats exactly."""
    numbers, camera = np.random.default_rng(98), [tool for tool in TOOLS if tool["name"] == "read_camera"]
    signs = ["EXIT 4"] + [vision_text.text(numbers) for _ in range(count - 1)]
    asked = f"what does the sign say<|end|><|assistant|>{text_data.answer([{'name': 'read_camera', 'arguments': {}}])}"
    result = "<|tool_response|>{}<|end|><|assistant|>"
    prompts = [asked + result.format(json.dumps({"ok": True, "text": sign})) for sign in signs]
    got = _answers(model, prompts, TOOLS if count < 100 else camera) if count else []
    return sum(g == f"It says {s}.<|end|>" for g, s in zip(got, signs)) / count


@torch.no_grad()
def table(model, limit=None, wrong=None):
    result, sets = {}, typed_sets.load()
    for name, items in sets.items():
        items = items[:limit]
        got = _answers(model, [f"{words}<|end|><|assistant|>" for words, _ in items], TOOLS)
        right = [text_data.parse(g) == calls for g, (_, calls) in zip(got, items)]
        result[name] = round(sum(right) / len(right), 4)
        if wrong is not None:
            wrong += [(name, words, g) for ok, g, (words, _) in zip(right, got, items) if not ok]
    rng, right = random.Random(7), []
    items = sets["typed"][: limit and limit // 2]
    for start in range(0, len(items), 8):
        tools = TOOLS + rng.sample(other_tools.OTHERS, rng.randint(1, 4))
        rng.shuffle(tools)
        part = items[start : start + 8]
        got = _answers(model, [f"{words}<|end|><|assistant|>" for words, _ in part], tools)
        right += [text_data.parse(g) == calls for g, (_, calls) in zip(got, part)]
        if wrong is not None:
            wrong += [("other_tools", words, g) for g, (words, calls) in zip(got, part) if text_data.parse(g) != calls]
    result["other_tools"] = round(sum(right) / len(right), 4)
    result["repeats"] = round(repeats(model, min(limit or 96, 96)), 4)
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    loaded = phi4mm.load_orig(phi4mm.build(phi4mm.load_config(sys.argv[1])), sys.argv[1])
    attention.use(loaded)
    phi4mm.set_adapter(loaded, None)
    problems = []
    print(json.dumps(table(loaded, int(sys.argv[2]) if len(sys.argv) > 2 else None, problems), indent=1))
    for problem in problems:
        print(*map(repr, problem))
