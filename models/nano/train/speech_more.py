"""The speech adapter alone goes on: `python speech_more.py MINUTES CHECKPOINT`.

Conformer and projector stay, so their rows are kept and used several times. What is new against the earlier stages: near misses and other
English that ask for nothing, two commands in one sentence, other tools beside the bundled ones, and results that have to be repeated.
"""

import random
import sys

import numpy as np
import torch

import attention
import dialogue
import evaluate_speech
import loop
import other_tools
import phi4mm
import speech_data
import text_data
import tts
import typed_lora
import vision_text
from augment import Augment
from dialogue import Sample, answer, rows, text
from grammar import TOOLS
from work import folder

BATCH = 32
KEPT = 6000  # clips' rows
FRESH = 3  # steps between two batches of new rows
ENGINES = {"espeak": 0.36, "flite": 0.22, "kokoro": 0.42}
SPLITS = {"train": 0.62, "talk": 0.22, "two": 0.11, None: 0.05}  # None: nobody speaks


class Clips:
    """Clips by split and engine, those that are there so far."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.refresh()
        self.augment = Augment([pcm for pcm, _ in self.clips["train", "espeak"][:500]], seed)

    def refresh(self):
        self.clips = {(split, engine): tts.load(engine, split) for split in SPLITS if split for engine in ENGINES}

    def draw(self):
        while True:
            (split,) = self.rng.choices(list(SPLITS), list(SPLITS.values()))
            (engine,) = self.rng.choices(list(ENGINES), list(ENGINES.values()))
            if split is None:
                return None, None
            if self.clips[split, engine]:
                return self.rng.choice(self.clips[split, engine])

    def batch(self, strength):
        return [(self.augment.features(pcm, strength), line) for pcm, line in (self.draw() for _ in range(BATCH))]


class Trainer:
    def __init__(self, start, seed=31):
        self.model = phi4mm.load_orig(phi4mm.build(phi4mm.load_config(start)), start).train()
        attention.use(self.model)
        phi4mm.set_adapter(self.model, "speech", composed=True)
        self.audio = self.model.model.embed_tokens_extend.audio_embed
        self.rng, self.clips = random.Random(seed), Clips(seed)
        self.source, self.camera = typed_lora.Source(seed), [tool for tool in TOOLS if tool["name"] == "read_camera"]
        self.kept, self.steps = [], 0

    def trained(self):
        chosen = []
        for name, parameter in self.model.named_parameters():
            wanted = "lora_" in name and ".speech." in name
            parameter.requires_grad_(wanted)
            chosen += [parameter] if wanted else []
        return chosen

    @torch.no_grad()
    def listen(self):
        """A batch of new clips' rows."""
        batch = self.clips.batch(1.0)
        mels, lengths = speech_data.padded([mel for mel, _ in batch])
        heard = phi4mm.project_audio(self.audio, phi4mm.conformer(self.audio.encoder, mels, lengths))
        new = [(h[:n].float().clone(), line) for h, n, (_, line) in zip(heard, (lengths + 7) // 8, batch)]
        self.kept = self.kept[-KEPT:] + new
        return new

    def command(self, heard, line, tools):
        turn = [rows(heard), text("<|end|><|assistant|>")]
        if line is None:
            return Sample(*turn, answer(f"{text_data.UNCLEAR}<|end|>"))
        names = {tool["name"] for tool in tools}
        calls = [call for call in line["calls"] if call["name"] in names]
        if 0 < len(calls) < len(line["calls"]):
            return None
        turn.append(answer(text_data.answer(calls)))
        reads = any(call["name"] == "read_camera" for call in calls)
        if calls and self.rng.random() < (0.8 if reads else 0.12):
            result, said = text_data.response(self.rng, calls, self.source.found())
            turn += [text(result), answer(said)]
        return Sample(*turn)

    def reading(self, heard):
        calls = [{"name": "read_camera", "arguments": {}}]
        result, said = text_data.response(self.rng, calls, self.source.found())
        return Sample(rows(heard), text(f"<|end|><|assistant|>{text_data.answer(calls)}{result}"), answer(said))

    def transcript(self, heard, line):
        question = text(f"{text_data.TRANSCRIBE}<|end|><|assistant|>")
        return Sample(text("<|user|>"), rows(heard), question, answer(f"{line['text']}<|end|>"))

    def step(self, progress):
        self.steps += 1
        if self.steps % 200 == 0:
            self.clips.refresh()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            new = self.listen() if self.steps % FRESH == 1 or len(self.kept) < 10 * BATCH else []
            batch = new[: BATCH // 2] + self.rng.sample(self.kept, BATCH - len(new[: BATCH // 2]))
            turn = self.steps % 8
            if turn in (2, 6):
                return dialogue.loss(self.model, [self.transcript(h, line) for h, line in batch if line and line["kind"] != "talk"])
            if turn == 4:
                asked = [h for h, line in self.kept[-3000:] if line and line["kind"] == "read_camera"] or [batch[0][0]]
                return dialogue.loss(self.model, [self.reading(self.rng.choice(asked)) for _ in range(BATCH)], text_data.prefix(self.camera))
            tools = TOOLS if self.rng.random() < 0.55 else other_tools.offered(self.rng)
            samples = [self.command(h, line, tools) for h, line in batch]
            return dialogue.loss(self.model, [s for s in samples if s], text_data.prefix(tools))

    def repeats(self, count=24):
        """Share of signs that the sentence after the result repeats exactly."""
        numbers = np.random.default_rng(97)
        asked = [h for h, line in self.kept if line and line["kind"] == "read_camera"][:count]
        signs = [vision_text.text(numbers) for _ in asked]
        call = text_data.answer([{"name": "read_camera", "arguments": {}}])
        after = [f'<|end|><|assistant|>{call}<|tool_response|>{{"ok": true, "text": "{s}"}}<|end|><|assistant|>' for s in signs]
        got = dialogue.reply(self.model, [Sample(rows(h), text(a)) for h, a in zip(asked, after)], text_data.prefix(TOOLS))
        return sum(g == f"It says {s}.<|end|>" for g, s in zip(got, signs)) / max(1, len(signs))

    def evaluate(self):
        self.model.eval()
        phi4mm.set_adapter(self.model, "speech", composed=True)
        table = evaluate_speech.table(self.model, limit=60, adapter=None) | {"repeats": self.repeats()}
        self.model.train()
        return table


def main(minutes, start):
    torch.set_num_threads(1)
    torch.manual_seed(32)
    trainer = Trainer(start)
    matrices = trainer.trained()
    kept = torch.nn.ModuleDict({"lora": torch.nn.ParameterList(matrices)})
    muon = [{"params": matrices, "lr": 4e-4}]
    loop.run("more", kept, [], trainer.step, minutes, trainer.evaluate, 600, muon=muon)
    torch.save({n: p for n, p in trainer.model.state_dict().items() if "lora_" in n and ".speech." in n}, folder("more") / "lora.pt")


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2])
