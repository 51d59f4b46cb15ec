"""Training tiles for the tower: drawn ahead by a separate process into a ring of shards, with a label for every character.

The labels are dense: a pooled cell (28 x 28 pixels, what one image token stands for) has 2 x 4 slots of 14 x 7 pixels, and a
slot's class is the character whose centre lies in it. So the tower learns where which character is, for all of them at once.
`python vision_data.py --shards 400` draws; the trainer takes what is there.
"""

import argparse
import json
import time

import numpy as np
import torch

import vision_fonts as fonts
import vision_render as render
from features import tile

BASE, CELLS, SLOT_ROWS, SLOT_COLS = render.BASE, 8, 2, 4
SLOTS = SLOT_ROWS * SLOT_COLS
NO_LABEL = -100
READABLE = 12.0  # capitals lower than this in a tile carry no label: few could tell
RING = 14


def slots(chars, origin=(0, 0), scale=(1.0, 1.0)):
    """[64, 8] classes of one tile that shows the part of a picture from `origin` (in scaled pixels)."""
    out = np.zeros((CELLS * CELLS, SLOTS), np.int8)
    for kind, x, y, cap in chars:
        x, y = x * scale[0] - origin[0], y * scale[1] - origin[1]
        if not (0 <= x < BASE and 0 <= y < BASE):
            continue
        row, col = int(y // 14), int(x // 7)
        cell, slot = row // 2 * CELLS + col // 4, row % 2 * SLOT_COLS + col % 4
        out[cell, slot] = kind if cap * scale[1] >= READABLE else NO_LABEL
    return out


def views(scene):
    """(origin, scale) of all tiles of a scene, the global view first."""
    (cols, rows), (new_w, new_h), _ = render.layout(*scene.image.size, BASE, render.MAX_CROPS)
    sx, sy = new_w / scene.image.width, new_h / scene.image.height
    crops = [((c * BASE, r * BASE), (sx, sy)) for r in range(rows) for c in range(cols)]
    return [((0, 0), (sx / cols, sy / rows)), *crops]


def scene_labels(scene):
    """The labels of all tiles of a scene, [1 + crops, 64, 8], the global view first."""
    return torch.from_numpy(np.stack([slots(scene.chars, *view) for view in views(scene)]))


def guesses(scene, rng):
    """What a tower would say of a scene: (cells, slots, classes, shares), cells counted through all tiles.

    A centre near the edge of a slot is shared out between the slots, and now and then a character may be another one, too.
    """
    found, chars = [], np.array(scene.chars, dtype=float).reshape(-1, 4)
    for number, (origin, scale) in enumerate(views(scene)):
        cap = chars[:, 3] * scale[1]
        seen = chars[(cap >= READABLE) & (rng.random(len(chars)) > 0.01)]
        blur = 0.7 + 0.035 * seen[:, 3] * scale[1]
        x, y = (rng.normal(seen[:, i] * scale[i - 1] - origin[i - 1], blur / 2) for i in (1, 2))
        doubt = np.where(rng.random(len(seen)) < 0.08, rng.uniform(0, 0.5, len(seen)), 0.0)
        other = rng.integers(1, len(render.CLASSES) + 1, len(seen))
        for row, up in _shares(y, blur, 14):
            for col, across in _shares(x, blur, 7):
                share = up * across * (row >= 0) * (row < 16) * (col >= 0) * (col < 32)
                cell, slot = number * CELLS**2 + row // 2 * CELLS + col // 4, row % 2 * SLOT_COLS + col % 4
                found += [(cell, slot, kind, share * part) for kind, part in ((seen[:, 0], 1 - doubt), (other, doubt))]
    columns = [np.concatenate(column) for column in zip(*found)]
    kept = columns[3] > 0.01
    return [column[kept] for column in columns]


def _shares(centre, blur, step):
    """[(indices, shares)] of the two intervals in which each centre may lie, by a flat guess: simple, and as good as any."""
    first = ((centre - blur) // step).astype(int)
    inside = np.clip(0.5 + 0.5 * ((first + 1) * step - centre) / blur, 0.0, 1.0)
    return (first, inside), (first + 1, 1.0 - inside)


def scene_tiles(scene):
    """A scene cut as the model will see it: (uint8 crops [n, 3, s, s], masks, labels), the global view first."""
    tiles = tile(scene.image, BASE, render.MAX_CROPS)
    pixels = ((tiles.pixels + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels, tiles.mask, scene_labels(scene)


def training_tiles(rng, effort):
    """A few tiles for the tower: mostly dense ones, some of real scenes (crops with nothing on them only now and then)."""
    if rng.random() < 0.9 - 0.2 * effort:
        scene = render.dense_scene(rng, fonts.TRAIN, effort)
        pixels = torch.from_numpy(np.array(scene.image)).permute(2, 0, 1)
        return [(pixels, torch.ones(16, 16, dtype=torch.bool), torch.from_numpy(slots(scene.chars)))]
    grid = render.one_of(rng, [(1, 1), (1, 1), (2, 1), (1, 2), (2, 2)])
    scene = render.empty_scene(rng, grid) if rng.random() < 0.1 else render.sign_scene(rng, fonts.TRAIN, grid, effort)
    pixels, masks, labels = scene_tiles(scene)
    keep = [i for i in range(len(pixels)) if (labels[i] > 0).any() or rng.random() < 0.12]
    return [(pixels[i], masks[i], labels[i]) for i in keep]


def shard_dir():
    folder = fonts.work_dir() / "vision/tiles"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write_shard(number, size, ramp):
    rng = np.random.default_rng([7, number])
    rows, most = [], min(1.0, number / ramp)
    while len(rows) < size:
        rows += training_tiles(rng, most * rng.uniform(0.3, 1.0))
    pixels, masks, labels = (torch.stack(x) for x in zip(*rows[:size]))
    folder = shard_dir()
    torch.save((pixels, masks, labels), folder / "part.tmp")
    (folder / "part.tmp").rename(folder / f"{number:05d}.pt")
    old = folder / f"{number - RING:05d}.pt"
    old.unlink(missing_ok=True)


def consumed(log):
    """Samples the trainer has taken so far."""
    return json.loads(log.read_text().splitlines()[-1])["samples"] if log.exists() else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=60)
    parser.add_argument("--size", type=int, default=768)
    parser.add_argument("--ramp", type=int, default=22, help="shards until the full range of distortions")
    args = parser.parse_args()
    torch.set_num_threads(1)
    log = fonts.work_dir() / "vision/pretrain.jsonl"
    present = [int(p.stem) for p in shard_dir().glob("*.pt")]
    for number in range(max(present, default=-1) + 1, args.shards):
        while number * args.size > 0.6 * consumed(log) + 4 * args.size:
            time.sleep(5)
        start = time.time()
        write_shard(number, args.size, args.ramp)
        print(number, f"{time.time() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
