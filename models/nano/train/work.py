"""The folder that holds everything a training run makes."""

import json
import os
import zlib
from pathlib import Path

HERE = Path(__file__).parent


def folder(*parts):
    """A folder below NANO_WORK (by default `work/` next to this file), created."""
    path = Path(os.environ.get("NANO_WORK", HERE / "work")).joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def seed_of(*parts):
    """The same number for the same words, on every machine."""
    return zlib.crc32(json.dumps(parts).encode())
