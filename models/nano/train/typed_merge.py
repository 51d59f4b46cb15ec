"""Adds what `typed_lora.py` learnt to the base weights, and takes it off again in the adapters: `python typed_merge.py CHECKPOINT TARGET [RANK]`.

What speech and pictures give stays the same, since base plus adapter does: the adapters' rank grows by that of the change. RANK is the speech
adapter's afterwards; where it is less than the sum, the best product of that rank over the inputs that speech brings is taken. With `more/`
(`speech_more.py`) its speech adapter takes the place of the checkpoint's.
"""

import json
import shutil
import sys
from pathlib import Path

import torch

import attention
import phi4mm
import typed_lora
from phi4mm import LoraLinear
from work import folder

CALIBRATION = 6  # batches of clips


def linears(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, LoraLinear)}


@torch.no_grad()
def inputs(model, checkpoint):
    """Each linear's mean of x x' over spoken commands, where there are any."""
    import speech_more

    sums, hooks = {}, []
    for name, module in linears(model).items():

        def note(_, args, name=name):
            x = args[0].reshape(-1, args[0].shape[-1]).double()
            sums[name] = sums.get(name, 0.0) + x.T @ x

        hooks.append(module.register_forward_pre_hook(note))
    trainer = speech_more.Trainer(checkpoint)
    trainer.model = model
    trainer.audio = model.model.embed_tokens_extend.audio_embed
    phi4mm.set_adapter(model, "speech")
    for turn in range(CALIBRATION):
        trainer.steps = 4 * turn
        trainer.step(1.0)
    for hook in hooks:
        hook.remove()
    return sums


def narrowed(matrix, rank, second=None):
    """(up, down) of the given rank whose product is nearest to the matrix over inputs of that second moment."""
    root = torch.eye(matrix.shape[1], dtype=torch.double)
    if second is not None:
        mean = second.trace() / len(second)
        root = torch.linalg.cholesky(second + 1e-3 * mean * torch.eye(len(second), dtype=torch.double))
    u, s, v = torch.linalg.svd(matrix.double() @ root, full_matrices=False)
    half = s[:rank].sqrt()
    down = torch.linalg.solve_triangular(root.T, (half[:, None] * v[:rank]).T, upper=True).T
    return u[:, :rank] * half, down


@torch.no_grad()
def main(checkpoint, target, rank=None):
    config = phi4mm.load_config(checkpoint)
    model = phi4mm.load_orig(phi4mm.build(config), checkpoint)
    phi4mm.add_adapter(model, typed_lora.NAME, typed_lora.RANK)
    kept = torch.load(folder("typed") / "lora.pt", weights_only=True)
    if (folder("more") / "lora.pt").exists():
        kept |= torch.load(folder("more") / "lora.pt", weights_only=True)
    missing = model.load_state_dict(kept, strict=False)
    assert not missing.unexpected_keys, missing.unexpected_keys
    attention.use(model)
    ranks = {"vision": config.orig["vision_lora"]["r"] + typed_lora.RANK, "speech": config.orig["speech_lora"]["r"] + typed_lora.RANK}
    seconds = {}
    if rank and rank < ranks["speech"]:
        ranks["speech"], seconds = rank, inputs(model, checkpoint)
    for name, module in linears(model).items():
        change = module.scaling[typed_lora.NAME] * module.lora_B[typed_lora.NAME].weight @ module.lora_A[typed_lora.NAME].weight
        before = module.base_layer.weight.clone()
        module.base_layer.weight.copy_((before + change).bfloat16())
        for adapter, r in ranks.items():
            wanted = module.scaling[adapter] * module.lora_B[adapter].weight @ module.lora_A[adapter].weight - change
            up, down = narrowed(wanted, r, seconds.get(name) if adapter == "speech" else None)
            module.lora_A[adapter].weight = torch.nn.Parameter(down.float())
            module.lora_B[adapter].weight = torch.nn.Parameter((up / module.scaling[adapter]).float())
        del module.lora_A[typed_lora.NAME], module.lora_B[typed_lora.NAME]
    for adapter, r in ranks.items():
        sizes = config.orig[f"{adapter}_lora"]
        sizes["lora_alpha"] = round(sizes["lora_alpha"] * r / sizes["r"])
        sizes["r"] = r
    phi4mm.save_orig(model, target)
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json", "capabilities.json"):
        shutil.copy(Path(checkpoint) / name, target / name)
    (target / "model.safetensors").chmod(0o644)
    print(json.dumps(ranks), f"{sum(f.stat().st_size for f in target.iterdir()) / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else None)
