"""Puts the checkpoint together from the stages' results, whatever is there: `python export.py [TARGET [START]]`.

Base decoder from `base/`, speech parts from `speech/` or `joint/`, vision parts from `vision/`; what is not trained yet is taken
from the checkpoint START, or else keeps its random start, so that the layout is complete from the first export on.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file

import phi4mm
import tokenizer
from work import HERE, folder

SPEECH = (".speech.", "audio_embed.encoder.")
VISION = (".vision.", "image_embed.")
LIMIT = 40 * 1024 * 1024


def stored(name):
    """A stage's weights by checkpoint name: the finished ones, or else the state of its training so far."""
    files = sorted(folder(name).glob("*.safetensors"), key=lambda f: f.stat().st_mtime)
    if files:
        return load_file(files[-1])
    if not (folder(name) / "state.pt").exists():
        return {}
    state = torch.load(folder(name) / "state.pt", weights_only=True)["module"]
    root = f"{phi4mm.AUDIO}" if name == "ctc" else ""
    return {phi4mm.orig_name(f"{root}{n}"): t for n, t in state.items()}


def gather(model, start):
    """(tensors by checkpoint name, names of the parts that are untrained)."""
    state, missing = phi4mm.orig_state(model), []
    state.update(load_file(Path(start) / "model.safetensors") if start else {})
    base, speech, vision = stored("base"), stored("ctc") | stored("speech") | stored("joint"), stored("vision")
    for name in state:
        source = vision if any(m in name for m in VISION) else speech if any(m in name for m in SPEECH) else base
        if name in source:
            assert source[name].shape == state[name].shape, name
            state[name] = source[name]
        else:
            missing.append(name)
    return state, missing


def main(target, start=None):
    torch.manual_seed(0)
    model = phi4mm.build(phi4mm.load_config(folder("base") / "config.json"))
    state, missing = gather(model, start)
    partial = target.with_name(f"{target.name}.part")
    partial.mkdir(parents=True, exist_ok=True)
    with torch.no_grad():
        for name, tensor in phi4mm.orig_state(model).items():
            tensor.copy_(state[name])
    phi4mm.save_orig(model, partial)
    end, text_end = (tokenizer.load().token_to_id(t) for t in ("<|end|>", "<|endoftext|>"))
    generation = {"bos_token_id": text_end, "eos_token_id": [end, text_end], "pad_token_id": text_end}
    (partial / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder("base") / name, partial / name)
    shutil.copy(HERE.parent / "checkpoint" / "capabilities.json", partial)
    (partial / "model.safetensors").chmod(0o644)
    size = sum(f.stat().st_size for f in partial.iterdir())
    assert size < LIMIT, size
    with safe_open(partial / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys()
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    print(f"{target.name}: {size / 2**20:.1f} MiB, untrained: {len(missing)} tensors {missing[:3]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "checkpoint", *sys.argv[2:3])
