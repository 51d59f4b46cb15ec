"""The mean of two checkpoints' weights, `python mean.py A B TARGET`: two ends of a stage's training often read better together."""

import shutil
import sys
from pathlib import Path

from safetensors.torch import load_file, save_file


def main(first, second, target):
    a, b = (load_file(Path(folder) / "model.safetensors") for folder in (first, second))
    shutil.copytree(first, target)
    mean = {name: ((a[name].float() + b[name].float()) / 2).to(a[name].dtype) for name in a}
    save_file(mean, Path(target) / "model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    main(*sys.argv[1:4])
