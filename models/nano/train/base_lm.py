"""The base decoder, on text alone: `python base_lm.py [MINUTES [CHECKPOINT]]`. It is frozen afterwards.

A checkpoint folder gives the weights to start from where there is no state to go on with.

Beside clean text it learns to read what a CTC recogniser would have given: tokens now and then repeated, between runs of the
audio placeholder's row. The speech projector then only has to learn that language. Printed text is taught the same way.
"""

import itertools
import random
import sys

import numpy as np
import torch

import attention
import dialogue
import loop
import phi4mm
import text_data
import vision_text
from dialogue import Sample, answer, encode, text
from grammar import TOOLS, expected, offered, utterances
from work import HERE, folder

BATCH = 32
COPYING = 0.3  # share of the time for tasks without tools alone: they teach to look back at the user's words, and are cheap


def heard(rng, words):
    """Ids of a sentence as a recogniser's frames, one each 80 ms; `words` may be empty (noise)."""
    blank = encode(text_data.AUDIO)
    ids = blank * rng.randint(1, 6)
    for token in encode(f" {words}") if words else []:
        ids += [token] * rng.choice([1, 1, 1, 1, 2, 2, 3])
        ids += blank * rng.choice([0, 0, 1, 1, 2, 2, 3, 4, 6])
    ids += blank * rng.randint(0, 8 if words else 40)
    if rng.random() < 0.2:
        ids[rng.randrange(len(ids))] = rng.randrange(256, 2034)
    return ids


def seen(rng, words):
    """Ids of a picture's text as rows of cells, the whole text once or twice over."""
    blank, ids = encode(text_data.IMAGE), []
    for _ in range(rng.choice([1, 2, 2])):
        ids += blank * rng.randint(1, 8)
        for character in words:
            token = encode(character)
            ids += (blank if character == " " and rng.random() < 0.7 else token) * rng.choice([1, 1, 2])
            ids += blank * (rng.choice([0, 0, 0, 1]) if character != " " else rng.randint(0, 6))
    return ids + blank * rng.randint(0, 6)


class Source:
    """Random samples of every text task."""

    def __init__(self, seed, held_out=False):
        self.rng = random.Random(seed)
        self.numbers = np.random.default_rng(seed)
        self.items = utterances(seed, held_out, none_share=0.2, double_share=0.05)

    def sign(self):
        return vision_text.text(self.numbers)

    def command(self, tools):
        """A command, spoken or typed, under the given tools."""
        rng = self.rng
        if rng.random() < 0.05:
            return Sample((heard(rng, ""), False), text("<|end|><|assistant|>"), answer(f"{text_data.UNCLEAR}<|end|>"))
        while True:
            item = next(self.items)
            calls = expected(item, tools)
            unserved = item.calls and len(calls) < len(item.calls)
            if len(calls) in (0, len(item.calls)) and not (unserved and rng.random() < 0.4):
                break
        user = text(item.text) if rng.random() < 0.4 else (heard(rng, item.text), False)
        pieces = [user, text("<|end|><|assistant|>"), answer(text_data.answer(calls))]
        if calls and rng.random() < 0.25:
            result, words = text_data.response(rng, calls, self.sign())
            pieces += [text(result), answer(words)]
        return Sample(*pieces)

    def plain(self):
        """A task without tools: transcription or reading."""
        rng, chance = self.rng, self.rng.random()
        if chance < 0.45:
            words = next(self.items).text
            user = [text("<|user|>"), (heard(rng, words), False), text(text_data.TRANSCRIBE)]
            return Sample(*user, text("<|end|><|assistant|>"), answer(f"{words}<|end|>"))
        words = "" if rng.random() < 0.1 else self.sign()
        user = [text("<|user|>"), (seen(rng, words), False)]
        if chance < 0.6:
            user.append((heard(rng, rng.choice(["what does the sign say", "read the label", "what is written there"])), False))
        else:
            user.append(text(text_data.READ_TEXT))
        return Sample(*user, text("<|end|><|assistant|>"), answer(f"{words or 'NO TEXT'}<|end|>"))


def exact(model, seed, count=64):
    """Share of exactly right answers to unseen sentences: heard commands, transcripts and readings."""
    model.eval()
    source, right = Source(seed, held_out=True), {}
    jobs = {
        "commands": (text_data.prefix(TOOLS), [source.command(TOOLS) for _ in range(count)]),
        "plain": ("", [source.plain() for _ in range(count)]),
    }
    for name, (prefix, samples) in jobs.items():
        cut = [next(i for i, (_, is_answer) in enumerate(s.pieces) if is_answer) for s in samples]
        wanted = [dialogue.decode(s.pieces[i][0]) for s, i in zip(samples, cut)]
        got = dialogue.reply(model, [Sample(*s.pieces[:i]) for s, i in zip(samples, cut)], prefix)
        right[name] = sum(w == g for w, g in zip(wanted, got)) / count
    model.train()
    return right


def main(minutes, start=None):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    config = phi4mm.load_config(folder("base") / "config.json")
    model = phi4mm.build(config).train()
    if start:
        phi4mm.load_orig(model, start)
    phi4mm.set_adapter(model, None)
    attention.use(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora" not in name and "extend" not in name)
    parameters = [p for p in model.parameters() if p.requires_grad]
    source = Source(2)

    turn = itertools.count()

    def step(progress):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if progress < COPYING or next(turn) % 3 == 2:
                return dialogue.loss(model, [source.plain() for _ in range(BATCH)])
            tools = offered(source.rng)
            return dialogue.loss(model, [source.command(tools) for _ in range(BATCH)], text_data.prefix(tools))

    place = folder("base")
    loop.run("base", model, [{"params": parameters, "lr": 2e-3}], step, minutes, lambda: exact(model, 3), 240)
    phi4mm.save_orig(model, place)


if __name__ == "__main__":
    if not (folder("base") / "config.json").exists():
        (folder("base") / "config.json").write_text((HERE / "config.json").read_text())
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60, *sys.argv[2:3])
