"""Draws signs on backgrounds, with the place of every character, cheaply enough to train on the fly.

A picture is a `Scene`: the RGB image, its text, and for each character (class, x, y, cap height) in image pixels.
"""

import io
from dataclasses import dataclass, field

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

import vision_fonts as fonts
import vision_text as texts
from features import layout

BASE, MAX_CROPS = 224, 4
MIN_CAP = 15.0  # pixels of a capital letter, at the resolution of the tiles
CLASSES = {c: i + 1 for i, c in enumerate(texts.ALPHABET)}  # 0 is "no character centre here"


@dataclass
class Scene:
    image: Image.Image
    text: str
    chars: list = field(default_factory=list)


# ------------------------------------------------------------------------------------------------------ backgrounds


def colour(rng, dark=None):
    """A colour: any, or one of the dark or of the light half."""
    c = rng.integers(0, 256, 3)
    if rng.random() < 0.35:  # greys, black and white are frequent on signs
        c = np.full(3, one_of(rng, [0, 10, 40, 128, 200, 235, 255]) if dark is None else rng.integers(0, 256))
    if dark is True:
        c = c * rng.uniform(0.0, 0.45)
    elif dark is False:
        c = 255 - (255 - c) * rng.uniform(0.0, 0.45)
    return tuple(int(v) for v in c)


def one_of(rng, options):
    return options[rng.integers(len(options))]


def luminance(c):
    return 0.3 * c[0] + 0.59 * c[1] + 0.11 * c[2]


def contrasting(rng, back, least=75):
    """An ink that stands out from `back`."""
    for _ in range(20):
        ink = colour(rng, dark=bool(luminance(back) > rng.uniform(90, 165)))
        if abs(luminance(ink) - luminance(back)) >= least:
            return ink
    return (0, 0, 0) if luminance(back) > 128 else (255, 255, 255)


def smooth_noise(rng, width, height, cells):
    small = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def background(rng, width, height):
    """Something like a wall, a landscape, a desk: blobs, gradients, stripes, shapes, grain; never characters."""
    kind = rng.integers(5)
    if kind == 0:
        image = Image.new("RGB", (width, height), colour(rng))
    elif kind == 1:
        image = smooth_noise(rng, width, height, 2)
    else:
        image = smooth_noise(rng, width, height, int(one_of(rng, [3, 5, 8, 14, 30])))
        flat = Image.new("RGB", (width, height), colour(rng))
        image = Image.blend(image, flat, rng.uniform(0.2, 0.9))
    if rng.random() < 0.6:
        clutter(rng, image, int(rng.integers(1, 9)))
    if rng.random() < 0.2:
        stripes(rng, image)
    return image


def clutter(rng, image, count):
    """Boxes, discs, lines and polygons."""
    draw, (width, height) = ImageDraw.Draw(image), image.size
    for _ in range(count):
        x, y = rng.uniform(-0.1, 1.0, 2) * (width, height)
        w, h = rng.uniform(0.03, 0.7, 2) * (width, height)
        fill = colour(rng) if rng.random() < 0.7 else None
        line = colour(rng) if fill is None or rng.random() < 0.3 else None
        box, thick = [x, y, x + w, y + h], int(rng.integers(1, 7))
        kind = rng.integers(5)
        if kind < 2:
            draw.rectangle(box, fill, line, thick)
        elif kind == 2:
            draw.ellipse(box, fill, line, thick)
        elif kind == 3:
            draw.line(box, colour(rng), thick)
        else:
            draw.polygon([tuple(p) for p in rng.uniform(0, 1, (int(rng.integers(3, 6)), 2)) * (w, h) + (x, y)], fill, line)


def stripes(rng, image):
    """Bars or a grid, like tiles, shelves, blinds, bar codes."""
    draw, (width, height) = ImageDraw.Draw(image), image.size
    x0, y0, x1, y1 = 0, 0, width, height
    if rng.random() < 0.5:
        x0, x1 = np.sort(rng.uniform(0, width, 2))
        y0, y1 = np.sort(rng.uniform(0, height, 2))
    ink, step = colour(rng), rng.uniform(5, 50)
    upright, grid = rng.random() < 0.5, rng.random() < 0.3
    place = 0.0
    while place < max(width, height):
        thick = int(rng.integers(1, max(2, int(step / 2))))
        if (upright or grid) and x0 + place < x1:
            draw.line([x0 + place, y0, x0 + place, y1], ink, thick)
        if (not upright or grid) and y0 + place < y1:
            draw.line([x0, y0 + place, x1, y0 + place], ink, thick)
        place += step * (rng.uniform(0.6, 1.4) if not grid else 1.0)


# ------------------------------------------------------------------------------------------------------------- text


def set_lines(rng, lines, path, cap):
    """Lays lines out: ((width, height), [(string, x, y)], [(char, x, y)], font, spacing), in pixels of the font used."""
    font = fonts.nearest(path, cap)
    cap_height = fonts.cap_ratio(path) * font.size
    spacing = 0.0 if rng.random() < 0.6 else rng.uniform(0.0, 0.25) * cap_height
    leading = cap_height * rng.uniform(1.35, 2.2)
    lengths = [font.getlength(s) + spacing * (len(s) - 1) for s in lines]
    width, height = max(lengths), cap_height + leading * (len(lines) - 1)
    top = font.getbbox("H")[1] if fonts.has_letters(path) else font.getbbox("8")[1]
    side, runs, chars = rng.choice([0.0, 0.5, 0.5, 0.5, 1.0]), [], []
    for row, (string, length) in enumerate(zip(lines, lengths)):
        x, y = side * (width - length), row * leading
        if spacing == 0.0:
            runs.append((string, x, y - top))
        for i, c in enumerate(string):
            before = font.getlength(string[:i]) + spacing * i
            if spacing > 0.0:
                runs.append((c, x + before, y - top))
            chars.append((c, x + before + font.getlength(c) / 2, y + cap_height / 2))
        if row + 1 < len(lines):
            chars.append(("\n", x + length, y + cap_height / 2))
    return (width, height), runs, chars, font, cap_height


def draw_sign(rng, layout_of_text, back):
    """An RGBA sign around the laid-out text: (image, offset of the text)."""
    (width, height), runs, _, font, cap_height = layout_of_text
    margin = cap_height * rng.uniform(0.35, 1.3)
    panel = rng.random() < 0.75
    size = (int(width + 2 * margin) + 2, int(height + 2 * margin) + 2)
    face = colour(rng) if panel else back
    ink = contrasting(rng, face)
    image = Image.new("RGBA", size, (*(face if panel else ink), 255 if panel else 0))
    draw = ImageDraw.Draw(image)
    if panel and rng.random() < 0.4:
        inset, thick = int(margin * rng.uniform(0.0, 0.4)), max(1, int(cap_height * rng.uniform(0.03, 0.15)))
        draw.rectangle([inset, inset, size[0] - 1 - inset, size[1] - 1 - inset], None, contrasting(rng, face, 30), thick)
    bold = {"stroke_width": 1, "stroke_fill": ink} if cap_height > 30 and rng.random() < 0.1 else {}
    for string, x, y in runs:
        draw.text((margin + x, margin + y), string, ink, font, **bold)
    return image, margin


def homography(source, target):
    """3x3 matrix that takes four points to four points."""
    rows = []
    for (x, y), (u, v) in zip(source, target):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    h = np.linalg.solve(np.array(rows, float), np.array(target, float).reshape(-1))
    return np.append(h, 1.0).reshape(3, 3)


def apply(matrix, points):
    p = np.column_stack([np.asarray(points, float), np.ones(len(points))]) @ matrix.T
    return p[:, :2] / p[:, 2:]


def paste(image, sign, matrix):
    """Warps the sign into the picture."""
    w, h = sign.size
    corners = apply(matrix, [(0, 0), (w, 0), (w, h), (0, h)])
    x0, y0 = np.floor(corners.min(0)).astype(int)
    x1, y1 = np.ceil(corners.max(0)).astype(int)
    x0, y0, x1, y1 = max(x0, 0), max(y0, 0), min(x1, image.width), min(y1, image.height)
    shift = np.array([[1, 0, x0], [0, 1, y0], [0, 0, 1.0]])
    inverse = np.linalg.inv(matrix) @ shift
    inverse /= inverse[2, 2]
    warped = sign.transform((x1 - x0, y1 - y0), Image.Transform.PERSPECTIVE, inverse.reshape(-1)[:8], Image.Resampling.BILINEAR)
    image.paste(warped, (int(x0), int(y0)), warped)


def placement(rng, size, scale, frame, effort):
    """Where the sign goes: scaled, turned a little, seen a little from the side, anywhere it fits; or None."""
    w, h = size
    half = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) * scale / 2
    angle = np.deg2rad(rng.normal(0, 4.0)) * effort * (rng.random() < 0.7)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = half @ turn.T
    if rng.random() < 0.5 * effort:
        corners = corners * (1 + rng.normal(0, 0.05, (4, 2)) * (1.0, min(1.0, w / h) * 1.0))
    low, high = corners.min(0), corners.max(0)
    room = np.array(frame) - (high - low)
    if (room < 0).any():
        return None
    return homography([(0, 0), (w, 0), (w, h), (0, h)], corners - low + rng.uniform(0, 1, 2) * room)


# ----------------------------------------------------------------------------------------------------------- scenes


def degrade(rng, image, effort):
    """Blur, exposure, sensor noise, JPEG."""
    if rng.random() < 0.4 * effort:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))
    if rng.random() < 0.5 * effort:
        x = np.asarray(image).astype(np.float32)
        x = (x - 128) * rng.uniform(0.65, 1.15) + 128 + rng.uniform(-25, 25)
        if rng.random() < 0.7:
            x += rng.standard_normal(x.shape, dtype=np.float32) * rng.uniform(1, 13)
        image = Image.fromarray(np.clip(x, 0, 255).astype(np.uint8))
    if rng.random() < 0.35 * effort:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(35, 95)))
        image = Image.open(buffer).convert("RGB")
    return image


FRAMES = {
    (1, 1): [(224, 224), (224, 168), (168, 224), (200, 150), (224, 126), (192, 192), (160, 120)],
    (2, 1): [(448, 224), (400, 200), (448, 168), (320, 160), (384, 216), (300, 150)],
    (1, 2): [(224, 448), (160, 320), (200, 400), (216, 384)],
    (2, 2): [(448, 336), (320, 240), (448, 448), (400, 300), (448, 252), (640, 480), (336, 448), (300, 300)],
}


def frame_size(rng, grid):
    """A picture size that the tiling cuts by this grid; sometimes a common one, sometimes an odd one."""
    while True:
        if rng.random() < 0.5:
            return one_of(rng, FRAMES[grid])
        cols, rows = grid
        w, h = int(rng.integers(120, 225) + BASE * (cols - 1)), int(rng.integers(100, 225) + BASE * (rows - 1))
        if layout(w, h, BASE, MAX_CROPS)[0] == grid:
            return w, h


def sign_scene(rng, families, grid, effort=1.0, draw=True):
    """A picture with one sign; `effort` in 0..1 scales everything that makes it hard. Without `draw`, only where the
    characters are."""
    width, height = frame_size(rng, grid)
    scale = layout(width, height, BASE, MAX_CROPS)[1][0] / width  # frame pixels to tile pixels
    image = background(rng, width, height) if draw and rng.random() < 0.3 + 0.7 * effort else Image.new("RGB", (width, height), colour(rng))
    while True:
        text = texts.text(rng)
        path = fonts.pick(rng, families)
        if not fonts.has_letters(path) and not text.replace("-", "").isdigit():
            continue
        strings = texts.lines(rng, text)
        cap = MIN_CAP / scale * np.exp(rng.uniform(0.0, 1.1) if rng.random() < 0.85 else rng.uniform(1.0, 1.7))
        laid = set_lines(rng, strings, path, cap)
        (w, h), _, chars, _, cap_height = laid
        zoom = min(cap / cap_height, 0.97 * width / (w + cap_height), 0.97 * height / (h + cap_height))
        if zoom * cap_height * scale < MIN_CAP:
            continue
        place = image.resize((1, 1)).getpixel((0, 0)) if draw else (0, 0, 0)
        if draw:
            sign, margin = draw_sign(rng, laid, place)
        else:
            margin = cap_height * rng.uniform(0.35, 1.3)
            sign = Image.new("RGBA", (int(w + 2 * margin) + 2, int(h + 2 * margin) + 2), (0, 0, 0, 255))
        matrix = placement(rng, sign.size, zoom, (width, height), effort)
        if matrix is None:
            continue
        if sign.getpixel((1, 1))[3] == 0:  # painted on the wall: the wall must be calm there
            image = Image.blend(image, Image.new("RGB", image.size, place), rng.uniform(0.75, 1.0))
        if draw:
            paste(image, sign, matrix)
        points = apply(matrix, [(margin + x, margin + y) for _, x, y in chars])
        placed = [(CLASSES[" " if c == "\n" else c], x, y, zoom * cap_height) for (c, _, _), (x, y) in zip(chars, points) if c != "\n"]
        return Scene(degrade(rng, image, effort) if draw else image, text, placed)


def empty_scene(rng, grid):
    """A picture without text, often with a blank sign, lamps, arrows and the like."""
    image = background(rng, *frame_size(rng, grid))
    clutter(rng, image, int(rng.integers(0, 12)))
    if rng.random() < 0.5:
        w, h = image.size
        x, y = rng.uniform(0.02, 0.5, 2) * (w, h)
        box = [x, y, x + rng.uniform(0.2, 0.5) * w, y + rng.uniform(0.1, 0.45) * h]
        ImageDraw.Draw(image).rectangle(box, colour(rng), colour(rng), int(rng.integers(0, 6)))
    if rng.random() < 0.25:
        stripes(rng, image)
    return Scene(degrade(rng, image, 1.0), "")


def dense_scene(rng, families, effort=1.0):
    """One tile full of text rows of many sizes and fonts, some cut by the edge: much to learn from for one picture."""
    size = 320
    flat = rng.random() < 0.9 - 0.6 * effort
    canvas = Image.new("RGB", (size, size), colour(rng)) if flat else background(rng, size, size)
    if not flat:
        canvas = Image.blend(canvas, Image.new("RGB", (size, size), colour(rng)), rng.uniform(0.3, 0.9))
    chars, y = [], rng.uniform(-10, 40)
    middle = rng.uniform(16, 36) if rng.random() < 0.75 else rng.uniform(30, 70)
    while y < size:
        path = fonts.pick(rng, families)
        cap = float(np.clip(middle * np.exp(rng.normal(0, 0.2 * effort)), 14, 100))
        alphabet = "0123456789-" if not fonts.has_letters(path) else texts.ALPHABET
        row = texts.text(rng) if alphabet is texts.ALPHABET and rng.random() < 0.3 else texts.string(rng, alphabet, 5, 22).strip() or "A"
        if not fonts.has_letters(path):
            row = texts.string(rng, alphabet, 2, 9)
        laid = set_lines(rng, [row], path, cap)
        (w, h), runs, placed, font, cap_height = laid
        x = rng.uniform(min(0, size - w), max(0, size - w))
        if rng.random() < 0.5:
            ImageDraw.Draw(canvas).rectangle([0, y - 0.4 * cap, size, y + cap_height + 0.4 * cap], colour(rng))
        there = canvas.crop((40, int(y), size - 40, int(y + cap_height) + 1)).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
        ink = contrasting(rng, there)
        draw = ImageDraw.Draw(canvas)
        for string, dx, dy in runs:
            draw.text((x + dx, y + dy), string, ink, font)
        chars += [(CLASSES[c], x + cx, y + cy, cap_height) for c, cx, cy in placed]
        y += cap_height * rng.uniform(1.4, 2.2)
    corner = rng.uniform(0, size - BASE, 2)
    box = np.array([(0, 0), (BASE, 0), (BASE, BASE), (0, BASE)], float)
    turn = np.deg2rad(rng.normal(0, 4.0)) * effort * (rng.random() < 0.7)
    rotated = (box - 112) @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) + 112 + corner
    rotated += rng.normal(0, 5.0, (4, 2)) * effort * (rng.random() < 0.5)
    matrix = homography(box, rotated)
    image = canvas.transform((BASE, BASE), Image.Transform.PERSPECTIVE, (matrix / matrix[2, 2]).reshape(-1)[:8], Image.Resampling.BILINEAR)
    points = apply(np.linalg.inv(matrix), [(x, y) for _, x, y, _ in chars])
    chars = [(c, x, y, cap) for (c, _, _, cap), (x, y) in zip(chars, points)]
    return Scene(degrade(rng, image, effort), "", chars)
