"""What Phi-4-multimodal sees: log-mel frames of a sound and tiles of a picture.

Both follow the released checkpoint's own pre-processing; where the port in `transformers` differs (mel bin 246,
resampling of pictures), the checkpoint wins.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

MELS = 80
PATCH = 14
MAX_CROPS = 36


def _mel(hz):
    return 1127.0 * math.log(1.0 + hz / 700.0)


@functools.cache
def mel_filters():
    """[257, 80] triangles, equally wide on the mel scale, over the bins of a 512-point spectrum at 16 kHz."""
    step = _mel(7690.0) / (MELS + 1)
    bins = np.array([_mel(31.25 * b) for b in range(257)])
    centres = step * np.arange(1, MELS + 1)
    weights = np.maximum(0.0, 1.0 - np.abs(centres[None, :] - bins[:, None]) / step)
    weights[0] = 0.0
    weights[246:] = 0.0
    return torch.from_numpy(weights.astype(np.float32))


def log_mel(pcm, rate=16000):
    """Samples in [-1, 1] -> [frames, 80]. At 8 kHz the upper half of the spectrum is silence ("fill zero")."""
    if rate not in (8000, 16000):
        raise ValueError(f"{rate} Hz: resample to 16000 Hz first")
    window, hop, n_fft = (400, 160, 512) if rate == 16000 else (200, 80, 256)
    pcm = torch.as_tensor(pcm, dtype=torch.float32)
    if pcm.numel() < window:
        raise ValueError(f"{pcm.numel()} samples are less than one window of {window}")
    frames = pcm.unfold(0, window, hop)
    previous = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
    frames = (frames - 0.97 * previous) * 32768.0
    hamming = torch.hamming_window(window, periodic=False, dtype=torch.float64)
    spectrum = torch.fft.rfft(frames * hamming, n=n_fft).to(torch.complex64)
    power = spectrum.abs() ** 2
    if rate == 8000:
        power = F.pad(power[:, :-1], (0, 129))
    return torch.log(torch.clamp(power @ mel_filters(), min=1.0))


@dataclass
class Tiles:
    """A picture cut for the vision tower: the global view first, then the crops row by row."""

    pixels: torch.Tensor  # [1 + rows * cols, 3, base, base], in [-1, 1] (the global view may overshoot)
    mask: torch.Tensor  # [1 + rows * cols, side, side] bool, False where a patch is only padding
    size: tuple  # (height, width) of the padded picture
    tokens: int


def choose_grid(width, height, base, max_crops=MAX_CROPS):
    """(columns, rows) of crops."""
    cols, rows = math.ceil(width / base), math.ceil(height / base)
    if cols * rows <= max_crops:
        return cols, rows
    grids = [(i, j) for i in range(1, max_crops + 1) for j in range(1, max_crops + 1) if i * j <= max_crops]
    best, best_error = (1, 1), float("inf")
    for i, j in sorted(grids, key=lambda g: g[0] * g[1]):
        error = abs(width / height - i / j)
        larger_fits = error == best_error and width * height > 0.5 * base * base * i * j
        if error < best_error or larger_fits:
            best, best_error = (i, j), error
    return best


def layout(width, height, base, max_crops=MAX_CROPS):
    """(grid, resized (w, h), padding (w, h)) of a picture."""
    cols, rows = choose_grid(width, height, base, max_crops)
    full_w, full_h = base * cols, base * rows
    ratio_w, ratio_h = full_w / width, full_h / height
    if ratio_w < ratio_h:
        new_w, new_h = full_w, int(height * ratio_w)
    else:
        new_w, new_h = int(width * ratio_h), full_h
    if min(new_w, new_h) < 10:
        raise ValueError(f"a picture of {width}x{height} is too narrow")
    return (cols, rows), (new_w, new_h), (full_w - new_w, full_h - new_h)


def tile(image: Image.Image, base=448, max_crops=MAX_CROPS) -> Tiles:
    side = base // PATCH
    (cols, rows), new, (pad_w, pad_h) = layout(*image.size, base, max_crops)
    resized = image.convert("RGB").resize(new, Image.Resampling.BILINEAR)
    canvas = Image.new("RGB", (base * cols, base * rows), (255, 255, 255))
    canvas.paste(resized, (0, 0))
    hd = torch.from_numpy(np.array(canvas)).permute(2, 0, 1).float().div(255.0).sub(0.5).div(0.5)

    mask = torch.ones(side * rows, side * cols, dtype=torch.bool)
    if pad_w >= PATCH:
        mask[:, -(pad_w // PATCH) :] = False
    if pad_h >= PATCH:
        mask[-(pad_h // PATCH) :, :] = False

    whole = F.interpolate(hd[None], size=(base, base), mode="bicubic", align_corners=False, antialias=False)
    crops = hd.reshape(3, rows, base, cols, base).permute(1, 3, 0, 2, 4).reshape(-1, 3, base, base)
    masks = mask.reshape(rows, side, cols, side).permute(0, 2, 1, 3).reshape(-1, side, side)
    masks = torch.cat([torch.ones(1, side, side, dtype=torch.bool), masks])
    useful_h, useful_w = useful(mask)
    pooled = side // 2
    tokens = pooled * (pooled + 1) + 1 + useful_h * (useful_w + 1)
    return Tiles(torch.cat([whole, crops]), masks, (base * rows, base * cols), tokens)


def useful(mask):
    """Rows and columns of pooled (2x2) patches that hold some picture, of a [rows, cols] patch mask."""
    return math.ceil(int(mask[:, 0].sum()) / 2), math.ceil(int(mask[0].sum()) / 2)
