"""The base decoder learns how people type: `python typed_lora.py MINUTES CHECKPOINT [PROCESSES]`.

An adapter of the base weights alone is trained, which `typed_merge.py` adds to them and takes off again in the speech and the
vision adapter: what those hear and see stays exactly as it was.
"""

import os
import random
import sys

import numpy as np
import torch

import attention
import dialogue
import evaluate_typed
import loop
import negatives
import other_tools
import phi4mm
import text_data
import typed
import vision_text
from dialogue import Sample, answer, text
from grammar import TOOLS, expected, utterances
from work import folder

NAME, RANK = "typed", 64
BATCH = 32


class Source:
    """Random typed requests, the calls they mean, and what is said about the calls' results."""

    def __init__(self, seed):
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.items = utterances(seed, none_share=0.06, double_share=0.2)

    def found(self):
        """What a camera may have read."""
        rng, chance = self.rng, self.rng.random()
        sign = vision_text.text(self.numbers)
        if chance < 0.75:
            return sign
        if chance < 0.85:
            return rng.choice([str.lower, str.title])(sign)
        if chance < 0.88:
            return "NO TEXT"
        return negatives.english(rng).replace('"', "")[:40].strip()

    def idle(self):
        rng, chance = self.rng, self.rng.random()
        if chance < 0.5:
            return typed.write(rng, negatives.near_miss(rng))
        if chance < 0.7:
            return typed.write(rng, negatives.jumble(rng))
        clause = negatives.english(rng)
        return clause if chance < 0.85 else typed.write(rng, negatives.spoken(clause))

    def request(self, tools):
        """(words, calls)"""
        rng = self.rng
        if rng.random() < 0.24:
            return self.idle(), []
        while True:
            item = next(self.items)
            calls = expected(item, tools)
            unserved = item.calls and len(calls) < len(item.calls)
            if len(calls) in (0, len(item.calls)) and not (unserved and rng.random() < 0.6):
                return typed.write(rng, item.text, polite=bool(item.calls)), calls

    def sample(self, tools):
        words, calls = self.request(tools)
        pieces = [text(f"{words}<|end|><|assistant|>"), answer(text_data.answer(calls))]
        reads = any(call["name"] == "read_camera" for call in calls)
        if calls and self.rng.random() < (0.9 if reads else 0.15):
            result, said = text_data.response(self.rng, calls, self.found())
            pieces += [text(result), answer(said)]
        return Sample(*pieces)

    def reading(self):
        """A question about a sign, its call, the result: the sentence has to repeat it."""
        words, calls = typed.write(self.rng, self.rng.choice(QUESTIONS)), [{"name": "read_camera", "arguments": {}}]
        result, said = text_data.response(self.rng, calls, self.found())
        return Sample(text(f"{words}<|end|><|assistant|>{text_data.answer(calls)}{result}"), answer(said))


QUESTIONS = ["what does the sign say", "read the label", "what is written there", "read this", "what does it say", "read the sign"]


def main(minutes, start, workers=1):
    """`workers` processes change the same weights, each with a step's delay of the others at most (Hogwild)."""
    torch.set_num_threads(1)
    torch.manual_seed(21)
    model = phi4mm.load_orig(phi4mm.build(phi4mm.load_config(start)), start).train()
    phi4mm.add_adapter(model, NAME, RANK)
    phi4mm.set_adapter(model, NAME, composed=True)
    attention.use(model)
    matrices = [parameter.share_memory_() for parameter in phi4mm.freeze_all_but(model, lambda name: f".{NAME}." in name)]
    worker = 0
    while worker < workers - 1 and os.fork():
        worker += 1
    worker = (worker + 1) % workers  # the first process is the last to leave the loop, and number 0
    source, camera = Source(22 + 1000 * worker), [tool for tool in TOOLS if tool["name"] == "read_camera"]

    def step(progress):
        if source.rng.random() < 0.15:
            return dialogue.loss(model, [source.reading() for _ in range(BATCH)], text_data.prefix(camera))
        tools = other_tools.offered(source.rng)
        return dialogue.loss(model, [source.sample(tools) for _ in range(BATCH)], text_data.prefix(tools))

    def evaluate():
        model.eval()
        table = evaluate_typed.table(model, 32)
        model.train()
        return table

    kept = torch.nn.ModuleDict({"lora": torch.nn.ParameterList(matrices)})
    muon = [{"params": matrices, "lr": 2e-3}]
    if worker:
        loop.run(f"typed-{worker}", kept, [], step, minutes, muon=muon)
        return
    loop.run("typed", kept, [], step, minutes, evaluate, 1500, muon=muon)
    torch.save({n: p for n, p in model.state_dict().items() if f".{NAME}." in n}, folder("typed") / "lora.pt")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:4]))
