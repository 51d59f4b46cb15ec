"""Pages that are never drawn: only where their characters stand. They teach the order of reading, many characters for each picture.

A page has a few lines of up to 20 characters, of one size and slant, at the resolution of the tiles. What a learner meets
on signs (one to three lines) is the easy end of it.
"""

from types import SimpleNamespace

import numpy as np

import vision_render as render
import vision_text as texts

NARROW, WIDE = "I1-", "MW"


def line_of(rng, longest):
    """Words and numbers, or characters without any sense, which cannot be guessed."""
    if rng.random() < 0.4:
        return texts.text(rng, longest)
    groups = [texts.string(rng, texts.one(rng, [texts.LETTERS, texts.DIGITS, texts.LETTERS + texts.DIGITS]), 1, 8) for _ in range(rng.integers(1, 4))]
    return " ".join(groups)[:longest].strip()


def advances(rng, line, cap):
    """Width of each character: of a narrow or a wide face, proportional or not."""
    usual, even, spacing = rng.uniform(0.55, 1.05), rng.random() < 0.15, 0.0 if rng.random() < 0.6 else rng.uniform(0.0, 0.25)
    shape = [1.0 if even else 0.5 if c in NARROW else 0.45 if c == " " else 1.25 if c in WIDE else rng.uniform(0.85, 1.1) for c in line]
    return cap * (usual * np.array(shape) + spacing)


def page(rng, grid, most_lines):
    """A `Scene` without pixels: `image` knows its size only."""
    width, height = grid[0] * render.BASE, grid[1] * render.BASE
    if rng.random() < 0.5:
        width -= int(rng.integers(0, render.BASE // 2)) if grid[0] == 1 or rng.random() < 0.5 else 0
        height = max(60, height - int(rng.integers(0, render.BASE // 2)))
    cap = render.MIN_CAP * np.exp(rng.uniform(0.0, 0.9))
    leading = cap * rng.uniform(1.35, 2.2)
    fitting = int((height - cap) / leading) + 1
    count = int(min(rng.integers(1, most_lines + 1), fitting))
    longest = max(1, min(20, int(width / (0.8 * cap))))
    lines, side, rows = [], rng.choice([0.0, 0.5, 0.5, 1.0]), []
    for row in range(count):
        line = line_of(rng, longest)
        steps = advances(rng, line, cap)
        while steps.sum() > 0.97 * width:
            line, steps = line[:-1].rstrip(), steps[: len(line[:-1].rstrip())]
        if line:
            lines.append(line)
            rows.append((line, steps))
    extent = max((s.sum() for _, s in rows), default=0.0)
    tall = cap + leading * (len(rows) - 1)
    left, top = rng.uniform(0, 1, 2) * (width - extent, max(0.0, height - tall))
    slant = np.tan(np.deg2rad(rng.normal(0, 4.0) * (rng.random() < 0.7)))
    lean = rng.normal(0, 0.04) * (rng.random() < 0.5)
    chars = []
    for row, (line, steps) in enumerate(rows):
        x0 = left + side * (extent - steps.sum())
        y = top + cap / 2 + row * leading
        for c, end, step in zip(line, np.cumsum(steps), steps):
            x = x0 + end - step / 2
            across, down = x - left - extent / 2, y - top - tall / 2
            spot = (x - lean * down, np.clip(y + slant * across, 2, height - 2))
            chars.append((render.CLASSES[c], float(np.clip(spot[0], 1, width - 1)), float(spot[1]), cap))
    size = SimpleNamespace(size=(width, height), width=width, height=height)
    return render.Scene(size, " ".join(lines), chars)
