"""Speaks random commands with several engines and many voices: `python tts.py ENGINE SPLIT SHARDS`.

Splits: `train` (training voices, training sentences), `words` (training voices, words in no order), `talk` (training voices, near
misses and other English), `two` (training voices, two commands in one sentence), `seen` (training voices, held-out sentences), `heldout` (voices and sentences never trained on). Shards of 50 utterances, `NANO_WORK/tts/ENGINE/SPLIT-0000.npz` + `.jsonl`, 16 kHz int16; those
that exist are kept, so a run can be stopped and started again. The engine `piper` has a held-out voice only.
"""

import io
import itertools
import json
import os
import random
import subprocess
import sys
import wave

import numpy as np
import soxr

import negatives
import voices
from grammar import Utterance, is_held_out, utterances, word_strings
from work import folder, seed_of

RATE = 16000
SHARD = 50


def trim(pcm, keep=0.06):
    """Cuts silence at both ends down to `keep` seconds."""
    loud = np.flatnonzero(np.abs(pcm) > max(0.01 * np.abs(pcm).max(), 1e-4))
    if not len(loud):
        return pcm
    pad = int(keep * RATE)
    return pcm[max(0, loud[0] - pad) : loud[-1] + pad]


def _wav(data):
    with wave.open(io.BytesIO(data)) as w:
        # A WAV written to a pipe has no length in its header: take what is there.
        pcm = np.frombuffer(w.readframes(len(data) // 2), dtype=np.int16)
        return pcm.astype(np.float32) / 32768.0, w.getframerate()


def phonemes(text, accent):
    """IPA with stress marks, as the neural engines want it."""
    out = subprocess.run(["espeak-ng", "-q", "--ipa", "-v", accent, text], capture_output=True, text=True, check=True)
    return " ".join(out.stdout.split()).replace("\u200d", "").replace("\u0361", "")


class Espeak:
    def speak(self, text, voice, rng):
        rate, pitch = rng.randint(120, 215), rng.randint(25, 75)
        command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(rate), "-p", str(pitch), text]
        return _wav(subprocess.run(command, capture_output=True, check=True).stdout)


class Flite:
    def speak(self, text, voice, rng):
        command = ["flite", "-voice", voice, "--setf", f"duration_stretch={rng.uniform(0.8, 1.2):.2f}"]
        if rng.random() < 0.6:
            mean = rng.uniform(80, 150) if voice in ("kal", "kal16", "awb", "rms") else rng.uniform(130, 220)
            command += ["--setf", f"int_f0_target_mean={mean:.0f}"]
        path = f"{folder('tts', 'flite')}/{os.getpid()}.tmp.wav"
        subprocess.run([*command, "-t", text, "-o", path], check=True)
        with open(path, "rb") as f:
            data = f.read()
        os.unlink(path)
        return _wav(data)


class Kokoro:
    """Kokoro-82M, int8: `models/kokoro.onnx`, `models/kokoro-voices/*.bin` and the symbols of the `kokoro-onnx` package."""

    def __init__(self):
        import importlib.util
        from pathlib import Path

        package = Path(importlib.util.find_spec("kokoro_onnx").origin).parent
        self.symbols = json.loads((package / "config.json").read_text())["vocab"]
        self.session = _session(folder("models") / "kokoro.onnx")
        self.inputs = {i.name: i.type for i in self.session.get_inputs()}
        self.styles = {}

    def style(self, name):
        if name not in self.styles:
            data = np.fromfile(folder("models", "kokoro-voices") / f"{name}.bin", dtype=np.float32)
            self.styles[name] = data.reshape(510, 1, 256)
        return self.styles[name]

    def speak(self, text, voice, rng):
        """A voice `a+b` is the mean of two."""
        names = voice.split("+")
        accent = "en-gb" if names[0].startswith("b") else "en-us"
        ids = [self.symbols[c] for c in phonemes(text, accent) + rng.choice(["", ".", "!"]) if c in self.symbols]
        style = np.mean([self.style(name)[len(ids)] for name in names], axis=0)
        speed = np.array([rng.uniform(0.9, 1.3)], dtype=np.float32)
        feed = {"style": style, "speed": speed}
        feed["tokens" if "tokens" in self.inputs else "input_ids"] = np.array([[0, *ids, 0]], dtype=np.int64)
        return self.session.run(None, feed)[0].reshape(-1), 24000


class Piper:
    """The voice that is only ever used for evaluation."""

    def __init__(self):
        base = folder("models") / "en_US-joe-medium.onnx"
        self.session = _session(base)
        self.config = json.loads(base.with_suffix(".onnx.json").read_text())

    def speak(self, text, voice, rng):
        table, ids = self.config["phoneme_id_map"], []
        for symbol in ["^", *phonemes(text, "en-us"), "$"]:
            ids += table.get(symbol, [])
            ids += table["_"] if symbol != "$" else []
        scales = np.array([0.667, rng.uniform(0.9, 1.15), 0.8], dtype=np.float32)
        feed = {"input": np.array([ids]), "input_lengths": np.array([len(ids)]), "scales": scales}
        return self.session.run(None, feed)[0].reshape(-1), self.config["audio"]["sample_rate"]


def _session(path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


ENGINES = {"espeak": Espeak, "flite": Flite, "kokoro": Kokoro, "piper": Piper}


def speak(engine, text, voice, rng, keep=0.06):
    """16 kHz float samples, silence at the ends cut to `keep` seconds, peak at 0.7."""
    pcm, rate = engine.speak(text, voice, rng)
    pcm = trim(soxr.resample(pcm, rate, RATE).astype(np.float32), keep)
    return 0.7 * pcm / max(np.abs(pcm).max(), 1e-3)


def talk(seed):
    """Endless sentences that are no command, as they are spoken."""
    rng = random.Random(seed)
    kinds = [negatives.near_miss, negatives.near_miss, negatives.jumble, lambda r: negatives.spoken(negatives.english(r))]
    while True:
        words = rng.choice(kinds)(rng)
        if words and not is_held_out(words):
            yield Utterance(words, [], "talk")


def sentences(split, seed):
    if split == "words":
        return word_strings(seed)
    if split == "talk":
        return talk(seed)
    if split == "two":
        return utterances(seed, none_share=0.0, double_share=1.0)
    return utterances(seed, held_out=split != "train")


def make_shard(name, engine, split, index):
    path = folder("tts", name) / f"{split}-{index:04}.npz"
    if path.exists():
        return
    seed = seed_of(name, split, index)
    rng, items = random.Random(seed), sentences(split, seed)
    clips, lines = [], []
    for item in itertools.islice(items, SHARD):
        voice = voices.pick(rng, name, split)
        pcm = speak(engine, item.text, voice, rng)
        clips.append((pcm * 32767).astype(np.int16))
        lines.append(dict(text=item.text, calls=item.calls, kind=item.kind, voice=voice, engine=name))
    ends = np.cumsum([len(c) for c in clips])
    path.with_suffix(".jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    partial = path.with_name(f"{path.stem}.part.npz")
    np.savez(partial, pcm=np.concatenate(clips), ends=ends)
    partial.rename(path)


def load(name, split, limit=None):
    """[(int16 samples, line)] of the shards that exist."""
    out = []
    for path in sorted(folder("tts", name).glob(f"{split}-*.npz"))[:limit]:
        if path.stem.endswith(".part"):
            continue
        data = np.load(path)
        lines = [json.loads(line) for line in path.with_suffix(".jsonl").read_text().splitlines()]
        out += zip(np.split(data["pcm"], data["ends"][:-1]), lines)
    return out


if __name__ == "__main__":
    engine_name, split_name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    engine_object = ENGINES[engine_name]()
    for number in range(count):
        make_shard(engine_name, engine_object, split_name, number)
        print(engine_name, split_name, number, flush=True)
