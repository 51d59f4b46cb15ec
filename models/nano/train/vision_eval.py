"""The committed picture sets (fonts never trained on) and the sample sign; and the accuracy of a model on any such set.

`python vision_eval.py make` writes `eval/ocr_*.jsonl` with their PNGs and `samples/sign.png`;
`python vision_eval.py measure` scores `$NANO_WORK/vision` on them, and on more pictures drawn on the fly.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import vision_fonts as fonts
import vision_render as render

NANO = Path(__file__).resolve().parent.parent
GRIDS = [(1, 1), (1, 1), (1, 1), (2, 1), (2, 1), (1, 2), (2, 2)]
FOUR = fonts.HELD_OUT[:4]


def small_png(image, path):
    """A palette of 64 colours keeps noise from filling the repository."""
    image.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


def scenes(rng, count, empty=False):
    for i in range(count):
        grid = GRIDS[i % len(GRIDS)]
        if empty:
            yield render.empty_scene(rng, grid)
        else:
            family = fonts.HELD_OUT[i % 4] if i % 5 else fonts.HELD_OUT[4 + i // 5 % 4]
            yield render.sign_scene(rng, [family], grid, effort=0.8)


def write_set(name, made):
    folder = NANO / "eval" / name
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for i, scene in enumerate(made):
        small_png(scene.image, folder / f"{i:03d}.png")
        lines.append({"image": f"{name}/{i:03d}.png", "task": "ocr", "expect_text": scene.text or "NO TEXT"})
    (NANO / "eval" / f"{name}.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))


def sample_sign(text="EXIT 4"):
    """A corridor wall with a door, and a sign beside it."""
    rng = np.random.default_rng(44)
    image = Image.new("RGB", (448, 336), (206, 200, 188))
    draw = ImageDraw.Draw(image)
    for y in range(336):  # light falls from the upper left
        draw.line([0, y, 448, y], tuple(int(v - 0.09 * y) for v in (214, 208, 196)))
    draw.rectangle([0, 296, 448, 336], (112, 100, 90))
    draw.line([0, 296, 448, 296], (84, 74, 66), 4)
    draw.rectangle([262, 44, 410, 296], (88, 60, 42))
    draw.rectangle([272, 54, 400, 296], (128, 90, 62))
    for box in ([288, 72, 384, 160], [288, 182, 384, 278]):
        draw.rectangle(box, (118, 82, 56), (96, 66, 46), 3)
    draw.ellipse([280, 168, 292, 180], (212, 190, 120), (120, 100, 60))
    draw.rectangle([40, 84, 222, 166], (16, 20, 20))
    sign = Image.new("RGB", (176, 76), (22, 112, 66))
    pen = ImageDraw.Draw(sign)
    pen.rectangle([3, 3, 172, 72], None, (240, 244, 240), 2)
    font = fonts.load(next(p for p in fonts.files("lato") if "700" in p.name), 46)
    left, top, right, bottom = font.getbbox(text)
    pen.text((88 - (left + right) / 2, 38 - (top + bottom) / 2), text, (244, 248, 244), font)
    corners = [(43, 88), (218, 86), (219, 160), (43, 163)]
    matrix = render.homography([(0, 0), (176, 0), (176, 76), (0, 76)], corners)
    render.paste(image, sign.convert("RGBA"), matrix)
    x = np.asarray(image.filter(ImageFilter.GaussianBlur(0.6))).astype(np.float32)
    return Image.fromarray(np.clip(x + rng.normal(0, 3, x.shape), 0, 255).astype(np.uint8))


def make():
    write_set("ocr_heldout_fonts", scenes(np.random.default_rng(2024), 60))
    write_set("ocr_no_text", scenes(np.random.default_rng(2025), 60, empty=True))
    (NANO / "samples").mkdir(exist_ok=True)
    small_png(sample_sign(), NANO / "samples/sign.png")


def edits(a, b):
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1]


def score(read, pairs, show=0):
    """`read` takes pictures to texts; pairs of (picture, expected)."""
    answers = read([image for image, _ in pairs])
    wrong = [(want, got) for (_, want), got in zip(pairs, answers) if want != got]
    errors = sum(edits(want, got) for (_, want), got in zip(pairs, answers))
    for want, got in wrong[:show]:
        print(f"  {want!r} read as {got!r}")
    return {"n": len(pairs), "exact": round(1 - len(wrong) / len(pairs), 4), "cer": round(errors / sum(len(w) for _, w in pairs), 4)}


def committed(name):
    lines = [json.loads(x) for x in (NANO / "eval" / f"{name}.jsonl").read_text().splitlines()]
    return [(Image.open(NANO / "eval" / x["image"]).convert("RGB"), x["expect_text"]) for x in lines]


def drawn(count, seed=99, empty=False):
    return [(s.image, s.text or "NO TEXT") for s in scenes(np.random.default_rng(seed), count, empty)]


def measure(read):
    """All sets; the drawn ones are of the same kind as the committed ones, only more of them."""
    table = {name: score(read, committed(name), show=12) for name in ("ocr_heldout_fonts", "ocr_no_text")}
    table["drawn_heldout"] = score(read, drawn(210))
    table["drawn_no_text"] = score(read, drawn(70, empty=True))
    sign = Image.open(NANO / "samples/sign.png").convert("RGB")
    table["sign"] = read([sign])[0]
    return table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["make", "measure"])
    args = parser.parse_args()
    if args.what == "make":
        make()
        return
    from vision_train import load_reader

    for name, row in measure(load_reader().read).items():
        print(name, row)


if __name__ == "__main__":
    main()
