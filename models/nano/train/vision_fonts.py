"""The font families of the picture tasks: which are for training, which are held out, and how to get them.

All come as `@fontsource/*` packages of npm (OFL-1.1 unless said in LICENCES), installed into a work folder, never into the repo.
"""

import os
import re
import subprocess
import sys
from functools import cache, lru_cache
from pathlib import Path

from PIL import ImageFont

TRAIN = """roboto noto-sans source-sans-3 nunito nunito-sans quicksand ubuntu fira-sans pt-sans montserrat raleway poppins
    work-sans barlow barlow-condensed barlow-semi-condensed inter oswald bebas-neue anton archivo archivo-narrow cabin
    rubik mulish titillium-web josefin-sans hind dm-sans manrope ibm-plex-sans ibm-plex-mono ibm-plex-serif roboto-mono
    roboto-condensed source-code-pro jetbrains-mono inconsolata space-mono share-tech-mono overpass overpass-mono arvo
    rokkitt bitter josefin-slab crete-round merriweather lora playfair-display libre-baskerville eb-garamond noto-serif
    pt-serif vollkorn alfa-slab-one fjalla-one teko rajdhani orbitron pathway-gothic-one staatliches signika comfortaa
    varela-round m-plus-rounded-1c vt323 share-tech courier-prime cutive-mono special-elite patrick-hand black-ops-one
    saira-stencil-one asap oxygen maven-pro catamaran heebo public-sans lexend sora urbanist figtree red-hat-display
    slabo-27px kreon noticia-text aleo antic-slab dseg7 dseg14""".split()
# Faces that few signs have; they are drawn seldom.
ODD = """orbitron vt323 share-tech courier-prime cutive-mono special-elite patrick-hand black-ops-one saira-stencil-one dseg7 dseg14
    comfortaa playfair-display alfa-slab-one space-mono staatliches josefin-sans josefin-slab eb-garamond""".split()
ODD_SHARE = 0.12
# Never used in training: the four that the acceptance table names, and four of our own choice.
HELD_OUT = "lato open-sans roboto-slab dosis exo-2 karla zilla-slab saira-condensed".split()
LICENCES = {
    "roboto-slab": "Apache-2.0",
    "special-elite": "Apache-2.0",
    "antic-slab": "MIT packaging of an OFL-1.1 font",
    "dseg7": "MIT packaging of an OFL-1.1 font",
    "dseg14": "MIT packaging of an OFL-1.1 font",
    "ubuntu": "UFL-1.0",
}
WEIGHTS = "latin-(400|500|700|900)-normal"
SEGMENT_STYLE = "(classic|modern|classic-mini|modern-mini)-(400|700)-normal"
DIGITS_ONLY = {"dseg7"}
SIZES = [14, 16, 19, 23, 27, 33, 39, 47, 56, 67, 81, 97, 116, 139]


def work_dir() -> Path:
    return Path(os.environ.get("NANO_WORK", "nano-work"))


def install():
    """Downloads every family with npm into `$NANO_WORK/fonts`."""
    folder = work_dir() / "fonts"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "package.json").write_text('{"private": true}')
    packages = [f"@fontsource/{name}" for name in TRAIN + HELD_OUT]
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", *packages], cwd=folder, check=True)


@cache
def files(family) -> list:
    """The upright font files of one family."""
    folder = work_dir() / "fonts/node_modules/@fontsource" / family / "files"
    style = SEGMENT_STYLE if family.startswith("dseg") else WEIGHTS
    found = [p for p in sorted(folder.glob("*.woff")) if re.fullmatch(f"{family}-{style}.woff", p.name)]
    if not found:
        raise FileNotFoundError(f"no font file of {family} in {folder}: run vision_fonts.py")
    return found


@lru_cache(maxsize=4000)
def load(path, size):
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


@cache
def cap_ratio(path):
    """Height of a capital letter as a part of the font size."""
    left, top, right, bottom = load(path, 97).getbbox("8" if "dseg" in str(path) else "H")
    return (bottom - top) / 97


def nearest(path, cap):
    """The font at the smallest listed size whose capitals are at least `cap` pixels high."""
    wanted = cap / cap_ratio(path)
    size = next((s for s in SIZES if s >= wanted), SIZES[-1])
    return load(path, size)


def pick(rng, families):
    """A font file; the odd families together get their share, the others are equally likely."""
    odd = rng.random() < ODD_SHARE
    usual = [f for f in families if (f in ODD) == odd] or families
    choice = files(usual[rng.integers(len(usual))])
    return choice[rng.integers(len(choice))]


def has_letters(path):
    return "dseg7" not in str(path)


if __name__ == "__main__":
    install()
    for name in TRAIN + HELD_OUT:
        print(name, len(files(name)), LICENCES.get(name, "OFL-1.1"), file=sys.stderr)
