"""What happens to a voice on its way to the features: rate, room, band, noise, level, pauses; then masks on the log-mel frames.

Everything takes a strength from 0 to 1, so that a trainer can begin with clean sound.
"""

import numpy as np
import scipy.signal
import torch

from features import log_mel

RATE = 16000


class Augment:
    def __init__(self, clips, seed):
        """`clips`: int16 voices of which babble is made."""
        self.rng = np.random.default_rng(seed)
        self.clips = clips
        self.bank = [self._noise() for _ in range(60)]

    def _noise(self, seconds=8):
        """One of the noises of the bank: coloured, babble, hum, or knocks on a coloured floor; root mean square 1."""
        rng, n = self.rng, seconds * RATE
        kind = rng.random()
        if kind < 0.3:
            out = np.zeros(n, dtype=np.float32)
            for _ in range(rng.integers(2, 7)):
                clip = self.clips[rng.integers(len(self.clips))].astype(np.float32)
                clip = np.tile(clip, n // len(clip) + 1)
                out += rng.uniform(0.3, 1.0) * np.roll(clip, rng.integers(n))[:n]
        else:
            slope = rng.uniform(0.0, 1.2)
            spectrum = np.fft.rfft(rng.standard_normal(n)) / np.maximum(np.arange(n // 2 + 1), 20) ** slope
            out = np.fft.irfft(spectrum, n)
            out /= out.std()
            if kind < 0.5:
                base, t = rng.uniform(45, 180), np.arange(n) / RATE
                out = 0.4 * out + sum(rng.uniform(0, 1) * np.sin(2 * np.pi * base * k * t) for k in range(1, 6))
            elif kind < 0.7:
                knocks = np.zeros(n)
                for at in rng.integers(0, n - 2000, rng.integers(3, 16)):
                    knocks[at : at + 2000] += rng.uniform(2, 8) * rng.standard_normal(2000) * np.exp(-np.arange(2000) / rng.uniform(50, 600))
                out = 0.3 * out + knocks
        return (out / (out.std() + 1e-9)).astype(np.float32)

    def noise(self, n):
        out = self.bank[self.rng.integers(len(self.bank))]
        return np.roll(np.tile(out, n // len(out) + 1), self.rng.integers(len(out)))[:n]

    def room(self):
        """A room's impulse response: the direct sound and a decaying tail."""
        rng = self.rng
        n = int(RATE * rng.uniform(0.08, 0.4))
        tail = rng.standard_normal(n) * np.exp(-np.arange(n) * (6.9 / n))
        tail[: rng.integers(8, 160)] = 0.0
        tail *= rng.uniform(0.1, 0.8) / (np.sqrt((tail**2).sum()) + 1e-9)
        tail[0] = 1.0
        return tail

    def voice(self, pcm, strength):
        """int16 samples -> float samples as a microphone would give them."""
        rng = self.rng
        x = pcm.astype(np.float32) / 32768.0
        if rng.random() < 0.7 * strength:
            factor = 1.0 + strength * rng.uniform(-0.14, 0.16)
            x = np.interp(np.arange(0, len(x) - 1, factor), np.arange(len(x)), x).astype(np.float32)
        if rng.random() < 0.4 * strength:
            x = scipy.signal.fftconvolve(x, self.room()).astype(np.float32)
        if rng.random() < 0.3 * strength:
            x = self._band(x)
        before, after = (int(RATE * rng.uniform(0.02, 0.1 + 0.6 * strength)) for _ in range(2))
        x = np.pad(x, (before, after))
        level = np.sqrt((x**2).mean()) + 1e-6
        snr = rng.uniform(5, 30) if rng.random() < 0.6 * strength else rng.uniform(35, 60)
        x = x + self.noise(len(x)) * level * 10 ** (-snr / 20)
        return self._level(x, strength)

    def _band(self, x):
        rng = self.rng
        low, high = rng.uniform(50, 350), rng.uniform(2800, 7200)
        return scipy.signal.sosfilt(scipy.signal.butter(2, [low, high], "band", fs=RATE, output="sos"), x).astype(np.float32)

    def _level(self, x, strength):
        gain = 10 ** (self.rng.uniform(-24 * strength, 3) / 20)
        return np.clip(gain * x, -1.0, 1.0).astype(np.float32)

    def silence(self):
        """No voice: only noise, from a whisper to loud, 0.5 to 3 s."""
        rng = self.rng
        n = int(RATE * rng.uniform(0.5, 3.0))
        noise = self.noise(n) if rng.random() < 0.9 else np.zeros(n, dtype=np.float32)
        return np.clip(noise * 10 ** (rng.uniform(-70, -12) / 20), -1.0, 1.0).astype(np.float32)

    def masks(self, mel, strength):
        """A warp of the mel axis (a shorter or longer vocal tract) and masked bands and moments."""
        rng = self.rng
        if rng.random() < 0.5 * strength:
            at = np.clip(np.arange(80) * (1.0 + rng.uniform(-0.1, 0.1)), 0, 78.999)
            left, part = torch.from_numpy(at.astype(np.int64)), torch.from_numpy((at % 1.0).astype(np.float32))
            mel = mel[:, left] * (1 - part) + mel[:, left + 1] * part
        mean = mel.mean()
        for _ in range(2):
            if rng.random() < 0.6 * strength:
                width = int(rng.integers(2, 14))
                start = int(rng.integers(0, 80 - width))
                mel[:, start : start + width] = mean
            if rng.random() < 0.4 * strength and len(mel) > 60:
                width = int(rng.integers(2, 16))
                start = int(rng.integers(0, len(mel) - width))
                mel[start : start + width] = mean
        return mel

    def features(self, pcm, strength):
        """[T, 80]; `pcm` None stands for no voice at all."""
        sound = self.silence() if pcm is None else self.voice(pcm, strength)
        return self.masks(log_mel(sound), strength)
