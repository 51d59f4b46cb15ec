"""Writes the evaluation sets about speech as manifests and 16-bit WAVs: `python make_eval.py TARGET [CLIPS_PER_SET LONGEST]`.

Without a count everything that was spoken for evaluation goes in; the committed sets are small and of short clips.
"""

import json
import random
import sys
import wave
from pathlib import Path

import numpy as np

import tts
from augment import Augment
from evaluate_speech import SETS

RATE = 16000
NAMES = {"seen": "seen_voices", "heldout": "heldout_voices", "unseen_engine": "unseen_engine"}


def write_wav(path, pcm):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as w:
        w.setnchannels(1)
        w.setsampwidth(2)
        w.setframerate(RATE)
        w.writeframes(pcm.astype("<i2").tobytes())


def choose(sources, count, longest):
    """Clips of a set, as many of each engine as there are, at random but the same every time."""
    chosen = []
    for source in sources:
        clips = [c for c in tts.load(*source) if len(c[1]["calls"]) < 2 and len(c[0]) <= longest * RATE]
        random.Random(4).shuffle(clips)
        speaking = [c for c in clips if c[1]["calls"]][: count and count // len(sources)]
        chosen += speaking + [c for c in clips if not c[1]["calls"]][: count and max(2, count // 8)]
    return chosen


def main(target, count=None, longest=99.0):
    idle, manifests, pad = [], {}, np.zeros(RATE // 10, dtype=np.int16)
    for name, sources in SETS.items():
        lines = manifests[NAMES[name]] = []
        for i, (pcm, line) in enumerate(choose(sources, count, longest)):
            audio = f"wav/{name}-{line['engine']}-{i:03}.wav"
            write_wav(target / audio, np.concatenate([pad, pcm, pad]))
            if line["calls"]:
                lines.append({"audio": audio, "expect_call": line["calls"][0]})
            else:
                idle.append({"audio": audio, "expect_call": None})
            if name == "heldout":
                spoken = {"audio": audio, "task": "transcribe", "expect_text": line["text"]}
                manifests.setdefault("transcribe", []).append(spoken)
    augment = Augment([np.zeros(RATE, dtype=np.int16)], seed=99)
    for i in range(min(60, count // 2) if count else 60):
        audio, sound = f"wav/noise-{i:03}.wav", augment.silence()[: int(RATE * (1.0 if count else 3.0))]
        write_wav(target / audio, sound * 32767)
        idle.append({"audio": audio, "expect_call": None})
    manifests["no_call"] = idle
    for name, lines in manifests.items():
        (target / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(name, len(lines))


if __name__ == "__main__":
    extra = [int(sys.argv[2]), float(sys.argv[3])] if len(sys.argv) > 3 else []
    main(Path(sys.argv[1]), *extra)
