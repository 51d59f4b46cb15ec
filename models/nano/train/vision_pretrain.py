"""Stage A: the vision tower learns to tell characters and their places from dense labels; the head is dropped afterwards.

`python vision_pretrain.py --until 04:25` trains to a time of day (the learning rate falls to zero there) and can be resumed.
"""

import argparse
import datetime
import json
import math
import time

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

import attention
import phi4mm
import vision_data as data
import vision_fonts as fonts
import vision_text as texts

CLASSES = len(texts.ALPHABET) + 1
# (rows, columns) to the patch that each head looks at first; layers, then heads.
OFFSETS = [[(0, -1), (0, 1), (-1, 0)], [(1, 0), (0, -1), (0, 1)], [(-1, 0), (1, 0), (0, -2)], [(0, 2), (0, -1), (0, 1)]]
FOCUS = 1.8


class Reader(nn.Module):
    """The tower, 2x2 pooling and a linear head over the pooled cells."""

    def __init__(self, config):
        super().__init__()
        self.image_embed = phi4mm.build_image(config)
        attention.use_in_tower(self.image_embed.img_processor)
        self.head = nn.Linear(config.vision_config.hidden_size, data.SLOTS * CLASSES)

    def features(self, pixels, masks):
        x = phi4mm.vision_tower(self.image_embed.img_processor, pixels, masks)
        return F.avg_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)

    def forward(self, pixels, masks):
        return self.head(self.features(pixels, masks)).reshape(len(pixels), -1, data.SLOTS, CLASSES)


@torch.no_grad()
def good_start(tower):
    """Patches as their cosine transform, positions as sines, attention that looks at its neighbours: quicker than noise."""
    patch, dim = tower.embeddings.patch_embedding, tower.embeddings.patch_embedding.weight.shape[0]
    size = patch.weight.shape[-1]
    n = torch.arange(size, dtype=torch.float32)
    basis = torch.cos(math.pi / size * (n[None] + 0.5) * n[:, None])
    basis /= basis.norm(dim=1, keepdim=True)
    order = sorted(((u, v) for u in range(size) for v in range(size)), key=lambda p: p[0] ** 2 + p[1] ** 2)[:dim]
    grey = torch.tensor([0.3, 0.59, 0.11])
    for i, (u, v) in enumerate(order):
        wave = torch.outer(basis[u], basis[v]) * (0.12 + 0.25 * math.hypot(u, v))
        patch.weight[i] = grey[:, None, None] * wave
    patch.weight.add_(torch.randn_like(patch.weight) * 0.005)
    patch.bias.zero_()
    side = int(tower.embeddings.position_embedding.weight.shape[0] ** 0.5)
    quarter = dim // 4
    rate = torch.exp(torch.linspace(math.log(2.0), math.log(0.1), quarter))
    angle = torch.arange(side)[:, None] * rate
    waves = torch.cat([angle.sin(), angle.cos()], 1)
    both = torch.cat([waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)], -1)
    tower.embeddings.position_embedding.weight.copy_(0.45 * both.reshape(side * side, dim))
    for layer, offsets in zip(tower.encoder.layers, OFFSETS):
        look_at(layer.self_attn, rate, offsets, dim)


@torch.no_grad()
def look_at(attention, rate, offsets, dim):
    """Each head starts by looking at the patch so many rows and columns away, found by turning the sines of its own place."""
    size, quarter = dim // len(offsets), dim // 4
    attention.q_proj.weight.mul_(0.3)
    attention.k_proj.weight.mul_(0.3)
    used = torch.linspace(0, quarter - 1, size // 4).round().long()
    for head, offset in enumerate(offsets):
        for axis, shift in enumerate(offset):
            sin, cos = 2 * quarter * axis + used, 2 * quarter * axis + quarter + used
            rows = head * size + axis * size // 2 + torch.arange(size // 4)
            turn = rate[used] * shift
            for weight, c, s in ((attention.q_proj.weight, turn.cos(), turn.sin()), (attention.k_proj.weight, 1.0, 0.0)):
                weight[rows, sin] += FOCUS * c
                weight[rows, cos] += FOCUS * s
                weight[rows + size // 4, sin] -= FOCUS * s
                weight[rows + size // 4, cos] += FOCUS * c
    nn.init.orthogonal_(attention.v_proj.weight, 0.8)
    nn.init.orthogonal_(attention.out_proj.weight, 0.4)


def prepare(pixels, rng=None):
    """uint8 crops -> [-1, 1]; for training with channels shuffled, colours inverted and contrast changed at random."""
    x = pixels.float().div_(127.5).sub_(1.0)
    if rng is None:
        return x
    for i in range(len(x)):
        if rng.random() < 0.5:
            x[i] = x[i][torch.from_numpy(rng.permutation(3))]
        gain = rng.uniform(0.6, 1.1) * (-1 if rng.random() < 0.4 else 1)
        x[i].mul_(gain).add_(rng.uniform(-0.2, 0.2))
    return x.clamp_(-1, 1)


def loss_of(scores, labels):
    weight = torch.ones(CLASSES)
    weight[0] = 0.08
    return F.cross_entropy(scores.flatten(0, 2), labels.flatten().long(), weight, ignore_index=data.NO_LABEL)


@torch.no_grad()
def measure(reader, held):
    """Of the character slots of unseen tiles: (loss, share right, false alarms a tile)."""
    pixels, masks, labels = held
    scores = torch.cat([reader(prepare(p), m).float() for p, m in zip(pixels.split(64), masks.split(64))])
    guess, true = scores.argmax(-1), labels.long()
    there = true > 0
    return loss_of(scores, labels).item(), (guess == true)[there].float().mean().item(), (guess[true == 0] > 0).sum().item() / len(pixels)


class Stream:
    """Random batches from the shards; a newly drawn shard is taken up as soon as it is there."""

    def __init__(self, rng, batch):
        self.rng, self.batch, self.loaded, self.checked = rng, batch, {}, 0.0

    def refresh(self):
        files = {p.stem: p for p in sorted(data.shard_dir().glob("*.pt"))[-10:]}
        for gone in set(self.loaded) - set(files):
            del self.loaded[gone]
        for name in set(files) - set(self.loaded):
            self.loaded[name] = torch.load(files[name])
        self.checked = time.time()

    def next(self):
        while not self.loaded or time.time() - self.checked > 20:
            self.refresh()
            if not self.loaded:
                time.sleep(3)
        names = list(self.loaded)
        pixels, masks, labels = self.loaded[names[self.rng.integers(len(names))]]
        rows = torch.from_numpy(self.rng.choice(len(pixels), self.batch, replace=False))
        return prepare(pixels[rows], self.rng), masks[rows], labels[rows]


def deadline(clock):
    today = datetime.datetime.now().replace(microsecond=0)
    hour, minute = map(int, clock.split(":"))
    return today.replace(hour=hour, minute=minute, second=0).timestamp()


def rate(peak, begin, end, warm=40.0):
    """Warm-up, then a cosine to zero at a time of day."""
    now = time.time()
    part = min(1.0, max(0.0, (now - begin) / (end - begin)))
    return peak * min(1.0, (now - begin) / warm + 0.02) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * part)))


def two_optimizers(reader, peak):
    """Muon for the matrices of the layers, which learn markedly quicker with it, AdamW for all else."""
    layers = reader.image_embed.img_processor.encoder.layers[:-1]
    matrices = [p for p in layers.parameters() if p.ndim == 2]
    taken = {id(p) for p in matrices}
    others = [p for p in reader.parameters() if id(p) not in taken]
    muon = torch.optim.Muon(matrices, lr=peak, weight_decay=0.02, adjust_lr_fn="match_rms_adamw")
    return muon, torch.optim.AdamW(others, lr=peak, weight_decay=0.01, betas=(0.9, 0.98))


def save(folder, reader, optimizers, step, samples, name="pretrain"):
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(dict(reader=reader.state_dict(), optimizers=[o.state_dict() for o in optimizers], step=step, samples=samples), folder / "tmp.pt")
    (folder / "tmp.pt").rename(folder / f"{name}.pt")


@torch.no_grad()
def start_from(module, file):
    """Takes a module's weights from a `model.safetensors` of the released layout, where it has them."""
    stored = load_file(file)
    for name, tensor in phi4mm.orig_state(module).items():
        if name in stored:
            tensor.copy_(stored[name])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", default=str(fonts.Path(__file__).with_name("config.json")))
    parser.add_argument("--until", required=True, help="HH:MM")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak", type=float, default=1.5e-3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", help="go on from the tower of this model.safetensors; only the head starts from scratch")
    args = parser.parse_args()
    torch.manual_seed(1)
    torch.set_num_threads(args.threads)
    folder = fonts.work_dir() / "vision"
    reader = Reader(phi4mm.load_config(args.config)).train()
    good_start(reader.image_embed.img_processor)
    if args.start:
        start_from(reader.image_embed, args.start)
    optimizers = two_optimizers(reader, args.peak)
    step = samples = 0
    if (folder / "pretrain.pt").exists():
        kept = torch.load(folder / "pretrain.pt")
        reader.load_state_dict(kept["reader"])
        for optimizer, state in zip(optimizers, kept["optimizers"]):
            optimizer.load_state_dict(state)
        step, samples = kept["step"], kept["samples"]
    rng = np.random.default_rng([11, step])
    stream = Stream(rng, args.batch)
    held_rng, rows = np.random.default_rng(5), []
    while len(rows) < 128:
        rows += data.training_tiles(held_rng, 1.0)
    held = [torch.stack(x) for x in zip(*rows[:128])]
    begin, end, saved, running = time.time(), deadline(args.until), time.time(), []
    while time.time() < end:
        for optimizer in optimizers:
            optimizer.zero_grad()
            optimizer.param_groups[0]["lr"] = rate(args.peak, begin, end)
        pixels, masks, labels = stream.next()
        with torch.autocast("cpu", torch.bfloat16):
            scores = reader(pixels, masks)
        loss = loss_of(scores.float(), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(reader.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step, samples = step + 1, samples + args.batch
        running.append(loss.item())
        if step % 100 == 0:
            with torch.autocast("cpu", torch.bfloat16):
                held_loss, right, false = measure(reader, held)
            line = dict(step=step, samples=samples, seconds=round(time.time() - begin), loss=round(float(np.mean(running)), 4),
                        held_loss=round(held_loss, 4), right=round(right, 4), false=round(false, 2), shards=max(map(int, stream.loaded)))  # fmt: skip
            running = []
            print(json.dumps(line), flush=True)
            with open(folder / "pretrain.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
        if time.time() - saved > 120:
            save(folder, reader, optimizers, step, samples)
            saved = time.time()
    save(folder, reader, optimizers, step, samples)


if __name__ == "__main__":
    main()
