"""Single words, spoken by many voices and strung together, so that the place of every word is known: `python speech_words.py` speaks them.

CTC from the first step sits on the all-blank plateau for thousands of steps; cross entropy against known places has none.
"""

import collections
import itertools
import json
import random

import numpy as np
import torch

import tokenizer
import tts
import voices
from features import log_mel
from grammar import utterances
from work import folder

VOICES = 18
COMMON = 3  # times that a word must occur in SENTENCES to be spoken
SENTENCES = 20000
POOL = 8  # batches that are cut from one sorted draw
FRAME = 1280  # samples of a frame of the conformer
CENTRE = 200  # a frame's place is its first mel window's middle


def lexicon():
    counts = collections.Counter()
    for item in itertools.islice(utterances(1, False, none_share=0.2), SENTENCES):
        counts.update(item.text.split())
    return sorted(word for word, count in counts.items() if count >= COMMON)


def speak_all():
    rng, words, engine = random.Random(6), lexicon(), tts.Espeak()
    place = folder("tts", "words")
    for number in range(VOICES):
        path = place / f"{number:02}.npz"
        if path.exists():
            continue
        voice = voices.pick(rng, "espeak", "train")
        clips = [(32767 * tts.speak(engine, word, voice, rng, keep=0.01)).astype(np.int16) for word in words]
        path.with_suffix(".json").write_text(json.dumps(words))
        np.savez(path, pcm=np.concatenate(clips), ends=np.cumsum([len(c) for c in clips]))
        print(number, voice, flush=True)


class Strings:
    """Sentences of words strung together, each by one voice."""

    def __init__(self, seed):
        self.rng, self.items = random.Random(seed), utterances(seed, False, none_share=0.2)
        self.numbers = np.random.default_rng(seed)
        self.speakers, self.waiting = [], []
        for path in sorted(folder("tts", "words").glob("*.npz")):
            data, words = np.load(path), json.loads(path.with_suffix(".json").read_text())
            self.speakers.append(dict(zip(words, np.split(data["pcm"], data["ends"][:-1]))))

    def one(self, blank):
        """(log-mel, one row's id a frame)."""
        speaker, rng = self.rng.choice(self.speakers), self.rng
        words = next(self.items).text.split()
        while not all(word in speaker for word in words):
            words = next(self.items).text.split()
        parts, spans, at = [], [], 0
        for word in words:
            gap = int(16000 * rng.choice([0.0, 0.0, 0.02, rng.uniform(0.0, 0.15)])) + (rng.randrange(4000) if not parts else 0)
            clip = speaker[word].astype(np.float32) / 32768
            spans += _spread(f" {word}", at + gap, len(clip))
            parts += [np.zeros(gap, dtype=np.float32), clip * 10 ** rng.uniform(-0.2, 0.0)]
            at += gap + len(clip)
        sound = np.concatenate([*parts, np.zeros(rng.randrange(800, 5000), dtype=np.float32)])
        sound += self.numbers.standard_normal(len(sound)).astype(np.float32) * 10 ** rng.uniform(-4, -2.3)
        mel = log_mel(sound * 10 ** rng.uniform(-0.8, 0.1))
        places = np.arange(-(-len(mel) // 8)) * FRAME + CENTRE
        labels = np.full(len(places), blank)
        for token, start, end in spans:
            labels[(places >= start) & (places < end)] = token
        return mel, torch.from_numpy(labels)

    def batch(self, size, blank):
        """Of similar length."""
        if not self.waiting:
            drawn = sorted((self.one(blank) for _ in range(size * POOL)), key=lambda pair: len(pair[0]))
            self.waiting = [drawn[i : i + size] for i in range(0, len(drawn), size)]
            self.rng.shuffle(self.waiting)
        return self.waiting.pop()


def _spread(word, start, length):
    """(token, start, end) of a word's tokens, its duration shared out by their letters."""
    encoded = tokenizer.load_exact().encode(word)
    letters = np.array([len(tokenizer.load().id_to_token(i)) for i in encoded.ids])
    ends = start + np.cumsum(letters) / letters.sum() * length
    return list(zip(encoded.ids, [start, *ends[:-1]], ends))


if __name__ == "__main__":
    speak_all()
