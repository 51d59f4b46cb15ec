"""Batches of spoken sentences: clips of all engines, drawn by weight, augmented, of similar length within a batch."""

import random

import numpy as np
import torch

import tts
from augment import Augment
from features import log_mel

WEIGHTS = {"espeak": 0.42, "flite": 0.16, "kokoro": 0.42}
NO_VOICE = 0.05  # share of clips that hold no speech
TALK = 0.1  # share of clips drawn from sentences without a call alone, which are a fifth of the others
STRINGS = 0.15  # share of clips of words in no order, where there are any
POOL = 8  # batches that are cut from one sorted draw


class Voices:
    """Training clips; call `refresh` to pick up shards that were spoken in the meantime."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.refresh()
        self.augment = Augment([pcm for pcm, _ in self.clips["espeak"][:500]], seed)
        self.waiting = []

    def refresh(self):
        loaded = {name: tts.load(name, "train") for name in WEIGHTS}
        self.clips = {name: clips for name, clips in loaded.items() if clips}
        self.talk = {name: [clip for clip in clips if not clip[1]["calls"]] for name, clips in self.clips.items()}
        self.strings = {name: tts.load(name, "words") for name in self.clips}
        self.weights = [WEIGHTS[name] for name in self.clips]

    def draw(self):
        """(int16 samples, line); no voice: (None, None)."""
        if self.rng.random() < NO_VOICE:
            return None, None
        name = self.rng.choices(list(self.clips), self.weights)[0]
        if self.strings[name] and self.rng.random() < STRINGS:
            return self.rng.choice(self.strings[name])
        return self.rng.choice(self.talk[name] if self.rng.random() < TALK else self.clips[name])

    def batch(self, size, strength):
        """[(log-mel, line)], lines None where nobody speaks."""
        if not self.waiting:
            drawn = [self.draw() for _ in range(size * POOL)]
            drawn.sort(key=lambda d: 0 if d[0] is None else len(d[0]))
            self.waiting = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            self.rng.shuffle(self.waiting)
        return [(self.augment.features(pcm, strength), line) for pcm, line in self.waiting.pop()]


def padded(mels):
    """([b, T, 80], lengths); T in steps of 64, since every new shape costs the making of new kernels."""
    out = torch.nn.utils.rnn.pad_sequence(mels, batch_first=True)
    out = torch.nn.functional.pad(out, (0, 0, 0, -out.shape[1] % 64))
    return out, torch.tensor([len(m) for m in mels])


def evaluation(name, split, limit=None):
    """[(log-mel, line)] as spoken, with a little silence around."""
    pad = np.zeros(3200, dtype=np.float32)
    return [
        (log_mel(np.concatenate([pad, pcm / np.float32(32768), pad])), line)
        for pcm, line in tts.load(name, split)[:limit]
    ]

