"""The base decoder learns to listen: speech projector and speech adapter, `python speech_lora.py [MINUTES]`.

Base decoder and conformer stay as they are. For the first moments the projector learns to give the mixture of token embeddings
that the recogniser's head sees; after that it and the adapter learn from the answers alone.
"""

import random
import sys

import numpy as np
import torch
import torch.nn.functional as F

import attention
import dialogue
import evaluate_speech
import loop
import phi4mm
import speech_data
import text_data
import vision_text
from dialogue import Sample, answer, rows, text
from grammar import TOOLS, offered
from speech_ctc import Recogniser
from work import folder

BATCH = 32
IMITATE = 0.06  # share of the time in which the projector imitates the recogniser


def load(start=None):
    """(model with the base decoder and the trained conformer, both as exported; the recogniser).

    From the folders of the stages, or from a whole checkpoint, which knows no head of the recogniser.
    """
    config = phi4mm.load_config(folder("base") / "config.json")
    model = phi4mm.load_orig(phi4mm.build(config), start or folder("base"))
    audio, recogniser = model.model.embed_tokens_extend.audio_embed, Recogniser(config)
    if start:
        recogniser.encoder.load_state_dict(audio.encoder.state_dict())
    else:
        recogniser.load_state_dict(torch.load(folder("ctc") / "model.pt", weights_only=True))
    with torch.no_grad():
        for parameter in [*model.parameters(), *recogniser.encoder.parameters(), *recogniser.encoder.buffers()]:
            parameter.copy_(parameter.bfloat16())
    audio.encoder = recogniser.encoder
    attention.use(model)
    phi4mm.set_adapter(model, "speech")
    return model, recogniser.eval()


class Trainer:
    def __init__(self, seed=7, start=None):
        self.model, self.recogniser = load(start)
        self.audio = self.model.model.embed_tokens_extend.audio_embed
        self.voices = speech_data.Voices(seed)
        self.rng, self.numbers = random.Random(seed), np.random.default_rng(seed)
        self.steps = 0

    def trained(self):
        """The parameters to train; all others are frozen."""
        chosen = []
        for name, parameter in self.model.named_parameters():
            wanted = ".speech." in name or "_proj_for_speech" in name
            parameter.requires_grad_(wanted)
            chosen += [parameter] if wanted else []
        return chosen

    def frames(self, batch):
        """The conformer's output, without gradient: padded, and the count of each clip."""
        mels, lengths = speech_data.padded([mel for mel, _ in batch])
        with torch.no_grad():
            return phi4mm.conformer(self.audio.encoder, mels, lengths), (lengths + 7) // 8

    def imitation(self, batch):
        """How far the projector's rows are from the recogniser's mixture of embeddings, relative to their size."""
        frames, counts = self.frames(batch)
        valid = torch.arange(frames.shape[1]) < counts[:, None]
        frames = frames[valid].float()
        with torch.no_grad():
            table = self.model.model.embed_tokens.weight
            target = F.softmax(self.recogniser.head(frames), dim=-1) @ table
        rows_ = phi4mm.project_audio(self.audio, frames)
        return F.mse_loss(rows_, target) / target.var()

    def answers(self, batch, transcribe):
        frames, counts = self.frames(batch)
        heard = phi4mm.project_audio(self.audio, frames)
        heard = [h[:n] for h, n in zip(heard, counts)]
        if transcribe:
            samples = [self.transcript(h, line) for h, (_, line) in zip(heard, batch) if line]
            return dialogue.loss(self.model, samples) if samples else heard[0].sum() * 0.0
        tools = offered(self.rng) if self.rng.random() < 0.5 else TOOLS
        samples = [self.command(h, line, tools) for h, (_, line) in zip(heard, batch)]
        return dialogue.loss(self.model, samples, text_data.prefix(tools))

    def transcript(self, heard, line):
        question = text(f"{text_data.TRANSCRIBE}<|end|><|assistant|>")
        return Sample(text("<|user|>"), rows(heard), question, answer(f"{line['text']}<|end|>"))

    def command(self, heard, line, tools):
        turn = [rows(heard), text("<|end|><|assistant|>")]
        if line is None:
            return Sample(*turn, answer(f"{text_data.UNCLEAR}<|end|>"))
        names = {tool["name"] for tool in tools}
        calls = [call for call in line["calls"] if call["name"] in names]
        turn.append(answer(text_data.answer(calls)))
        if calls and self.rng.random() < 0.15:
            result, words = text_data.response(self.rng, calls, vision_text.text(self.numbers))
            turn += [text(result), answer(words)]
        return Sample(*turn)

    def step(self, progress):
        self.steps += 1
        if self.steps % 500 == 0:
            self.voices.refresh()
        batch = self.voices.batch(BATCH, min(1.0, 0.5 + progress))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            if progress < IMITATE:
                return self.imitation(batch)
            return self.answers(batch, transcribe=self.steps % 3 == 2)

    def evaluate(self):
        return evaluate_speech.table(self.model, limit=48)


def main(minutes):
    torch.set_num_threads(1)
    torch.manual_seed(3)
    trainer = Trainer()
    parameters = trainer.trained()
    trainer.model.train()
    trainer.recogniser.eval()
    loop.run("speech", trainer.model, [{"params": parameters, "lr": 1e-3}], trainer.step, minutes, trainer.evaluate, 300)
    phi4mm.save_orig(trainer.model, folder("speech"))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 40)
