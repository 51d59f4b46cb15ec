"""The training loop that all stages share: a budget of wall time, cosine decay over it, checkpoints and a learning curve."""

import csv
import math
import time

import torch

from work import folder

WARM_UP = 100  # steps
SAVE_EVERY = 120  # seconds
PAUSE = 8  # seconds; what a step takes longer is a pause of the process, not training


def run(name, module, groups, step, minutes, evaluate=None, evaluate_every=300, muon=()):
    """Calls `step(progress)` -> loss until the budget is spent; `groups` are AdamW's, `muon` Muon's, each with its own `lr`.

    The state is kept in NANO_WORK/`name`/state.pt, from where an interrupted run goes on. `evaluate()` gives numbers for
    the learning curve, NANO_WORK/`name`/curve.csv.
    """
    place = folder(name)
    optimizers = [torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)] if groups else []
    if muon:
        optimizers.append(torch.optim.Muon(muon, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"))
    rated = [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]
    spent, steps = 0.0, 0
    if (place / "state.pt").exists():
        state = torch.load(place / "state.pt", weights_only=True)
        module.load_state_dict(state["module"])
        for optimizer, kept in zip(optimizers, state["optimizers"]):
            optimizer.load_state_dict(kept)
        spent, steps = state["spent"], state["steps"]
    parameters = [p for group, _ in rated for p in group["params"]]
    mean, tick, saved, evaluated = None, time.monotonic(), spent, spent

    def save():
        torch.save(dict(module=module.state_dict(), optimizers=[o.state_dict() for o in optimizers], spent=spent, steps=steps), place / "state.part")
        (place / "state.part").rename(place / "state.pt")

    while spent < 60 * minutes:
        progress = spent / (60 * minutes)
        factor = min(1.0, (steps + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))
        for group, peak in rated:
            group["lr"] = peak * factor
        loss = step(progress)
        for parameter in parameters:
            parameter.grad = None
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        steps += 1
        mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
        now = time.monotonic()
        spent, tick = spent + min(now - tick, PAUSE), now
        if steps % 50 == 0:
            print(f"{name} {steps} {spent / 60:.1f}min loss {mean:.4f}", flush=True)
        if spent - saved > SAVE_EVERY:
            save()
            saved = spent
        if spent - evaluated > evaluate_every or spent >= 60 * minutes:
            numbers = evaluate() if evaluate else {}
            _note(place / "curve.csv", dict(steps=steps, minutes=round(spent / 60, 2), loss=round(mean, 4)) | numbers)
            evaluated, tick = spent, time.monotonic()
    save()


def _note(path, row):
    print(row, flush=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, row)
        if new:
            writer.writeheader()
        writer.writerow(row)
