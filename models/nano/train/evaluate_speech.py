"""Exact calls and word errors on the evaluation sets in NANO_WORK: `python evaluate_speech.py CHECKPOINT [LIMIT]`."""

import json
import sys

import jiwer
import numpy as np
import torch

import attention
import dialogue
import phi4mm
import speech_data
import text_data
from augment import Augment
from dialogue import Sample, rows, text
from features import log_mel
from grammar import TOOLS

ENGINES = ("espeak", "flite", "kokoro")
SETS = {
    "seen": [(engine, "seen") for engine in ENGINES],
    "heldout": [(engine, "heldout") for engine in ENGINES],
    "unseen_engine": [("piper", "heldout")],
}


def noises(count=40):
    """Clips without voice, never the training's."""
    augment = Augment([np.zeros(16000, dtype=np.int16)], seed=99)
    return [log_mel(augment.silence()) for _ in range(count)]


@torch.no_grad()
def replies(model, mels, prefix, before, after, batch=16):
    """Greedy answers to clips, in order."""
    audio, order = model.model.embed_tokens_extend.audio_embed, sorted(range(len(mels)), key=lambda i: len(mels[i]))
    out = [None] * len(mels)
    for start in range(0, len(order), batch):
        part = order[start : start + batch]
        heard = phi4mm.encode_audios(audio, [mels[i] for i in part])
        samples = [Sample(text(before), rows(h), text(after)) for h in heard]
        for i, reply in zip(part, dialogue.reply(model, samples, prefix)):
            out[i] = reply
    return out


def calls(model, mels):
    answers = replies(model, mels, text_data.prefix(TOOLS), "", "<|end|><|assistant|>")
    return [text_data.parse(a) for a in answers]


def transcripts(model, mels):
    answers = replies(model, mels, "", "<|user|>", f"{text_data.TRANSCRIBE}<|end|><|assistant|>")
    return [a.replace("<|end|>", "").strip() for a in answers]


@torch.no_grad()
def table(model, limit=None, wrong=None, adapter="speech"):
    """The acceptance table's rows about speech; `wrong` collects what went wrong."""
    model.eval()
    if adapter:
        phi4mm.set_adapter(model, adapter)
    result, idle, voices = {}, [], {}
    for name, sources in SETS.items():
        share = limit and limit // len(sources)
        items = [item for source in sources for item in speech_data.evaluation(*source, share)]
        voices[name] = items
        asked = [(mel, line) for mel, line in items if line["calls"]]
        idle += [(mel, line) for mel, line in items if not line["calls"]]
        right, engines = 0, {}
        for (_, line), got in zip(asked, calls(model, [mel for mel, _ in asked])):
            ok = got == line["calls"]
            right += ok
            engines.setdefault(line["engine"], []).append(ok)
            if not ok and wrong is not None:
                wrong.append((name, line["voice"], line["text"], got))
        result[name] = round(right / max(1, len(asked)), 4)
        if len(engines) > 1:
            result |= {f"{name}_{e}": round(sum(v) / len(v), 4) for e, v in engines.items()}
    mels = [mel for mel, _ in idle] + noises()
    got = calls(model, mels)
    result["no_call"] = round(sum(g == [] for g in got) / len(got), 4)
    if wrong is not None:
        wrong += [("no_call", line["voice"], line["text"], g) for (_, line), g in zip(idle, got) if g != []]
    heldout = voices["heldout"]
    said = [line["text"] for _, line in heldout]
    result["transcribe_wer"] = round(jiwer.wer(said, transcripts(model, [mel for mel, _ in heldout])), 4)
    model.train()
    return result


if __name__ == "__main__":
    torch.set_num_threads(1)
    folder_ = sys.argv[1]
    loaded = phi4mm.load_orig(phi4mm.build(phi4mm.load_config(folder_)), folder_)
    attention.use(loaded)
    problems = []
    print(json.dumps(table(loaded, int(sys.argv[2]) if len(sys.argv) > 2 else None, problems), indent=1))
    for problem in problems:
        print(*problem)
