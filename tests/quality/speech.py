"""How well the microphone's endpointing finds speech in noise, beside silero's own pipeline on onnxruntime.

    pip install onnxruntime numpy && pip download --no-deps silero-vad==6.2.3 moonshine-voice==0.1.5 && unzip both
    python tests/quality/speech.py target/debug/outpost silero_vad/data/silero_vad.onnx models/nano/eval/wav [moonshine_voice/assets]

For each signal-to-noise ratio the clips are put one after the other into noise, 1.5 s apart, half of it white and half of it a low
hum with breath; `outpost listen` and the reference then say where somebody speaks. A clip is heard if half of it is in an utterance. The
last argument adds recordings of people reading, which pause: for them it is the part of the speech that counts.
"""

import json
import pathlib
import subprocess
import sys
import tempfile
import wave

import numpy as np
import onnxruntime

RATE, FRAME, CONTEXT, GAP = 16000, 512, 64, 1.5


def read(path):
    with wave.open(str(path)) as file:
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768
        sound = sound.reshape(-1, file.getnchannels()).mean(1)
        rate = file.getframerate()
    length = int(len(sound) * RATE / rate)
    return np.interp(np.arange(length) * rate / RATE, np.arange(len(sound)), sound).astype(np.float32)


def write(path, sound):
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, RATE, 0, "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())


def mix(clips, snr, rng):
    """The clips in noise, at this ratio of their own power to it, and where they are."""
    gap = np.zeros(int(GAP * RATE), np.float32)
    parts, truth, at = [gap], [], len(gap)
    loud = np.concatenate(clips)
    power = np.mean(loud[np.abs(loud) > 0.02] ** 2)
    for clip in clips:
        parts += [clip, gap]
        truth.append((at / RATE, (at + len(clip)) / RATE))
        at += len(clip) + len(gap)
    speech = np.concatenate(parts)
    white, low = rng.normal(size=(2, len(speech)))
    low = np.convolve(low, np.ones(40) / 40, "same")
    noise = white / np.std(white) + low / np.std(low)
    noise *= np.sqrt(power / 10 ** (snr / 10)) / np.std(noise)
    mixed = speech + noise
    return (mixed * min(1, 0.95 / np.abs(mixed).max())).astype(np.float32), truth


def reference(session, sound):
    """Silero's own rule: from 0.5 on, down to 0.35, over pauses of less than 600 ms, not shorter than 200 ms."""
    state, context, speech = np.zeros((2, 1, 128), np.float32), np.zeros(CONTEXT, np.float32), []
    for start in range(0, len(sound) - FRAME + 1, FRAME):
        frame = sound[start : start + FRAME]
        out, state = session.run(None, {"input": np.concatenate([context, frame])[None], "state": state, "sr": np.array(RATE)})
        context = frame[-CONTEXT:]
        speech.append(float(out[0, 0]))
    segments, begun, quiet = [], None, 0
    for index, probability in enumerate(speech):
        if begun is None and probability >= 0.5:
            begun, last = index, index
        elif begun is not None:
            last = index if probability >= 0.35 else last
            if (index - last) * FRAME / RATE >= 0.6:
                segments.append((begun * FRAME / RATE, (last + 1) * FRAME / RATE))
                begun = None
    if begun is not None:
        segments.append((begun * FRAME / RATE, (last + 1) * FRAME / RATE))
    return [segment for segment in segments if segment[1] - segment[0] >= 0.2]


def outpost(program, path, vad):
    output = subprocess.run([program, "listen", "--file", path, "--vad", vad, "--seconds", "100000", "--json"], check=True, capture_output=True)
    heard = [json.loads(line) for line in output.stdout.splitlines()]
    return [(one["start"], one["start"] + one["seconds"]) for one in heard if one.get("heard") == "utterance"]


def overlap(a, b):
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def score(truth, heard):
    covered = [sum(overlap(one, clip) for one in heard) / (clip[1] - clip[0]) for clip in truth]
    missed = sum(part < 0.5 for part in covered)
    false = sum(all(overlap(one, clip) == 0 for clip in truth) for one in heard)
    return f"{missed:3d} missed, {false:3d} false, {100 * np.mean(covered):5.1f} %"


def table(name, program, session, clips, folder):
    print(f"{name}: {len(clips)} clips")
    for snr in (0, 5, 10, 15, 20, 30):
        sound, truth = mix(clips, snr, np.random.default_rng(snr))
        path = folder / f"{snr}.wav"
        write(path, sound)
        columns = [score(truth, outpost(program, path, vad)) for vad in ("silero", "energy")]
        print(f"| {snr} dB | {' | '.join([score(truth, reference(session, read(path))), *columns])} |", flush=True)


def main(program, graph, speech, people=None):
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    clips = [read(path) for path in sorted(pathlib.Path(speech).glob("*.wav"))]
    with tempfile.TemporaryDirectory() as folder:
        table(speech, program, session, clips, pathlib.Path(folder))
        if people:
            names = ("two_cities", "beckett")
            table(people, program, session, [read(pathlib.Path(people) / f"{name}.wav") for name in names], pathlib.Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
