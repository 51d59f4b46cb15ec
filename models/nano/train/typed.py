"""How people type a sentence: capitals, punctuation, digits, contractions, slips of a finger, stray blanks and line breaks.

`write(rng, text)` turns a spoken sentence of `grammar.py` into a typed one that means the same.
"""

import re

from grammar import _TENS, _UNITS

_NUMBERS = {word: i for i, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS) if i > 1}
_NUMBERS |= {f"{ten} {unit}": 10 * i + j for i, ten in enumerate(_TENS) if i > 1 for j, unit in enumerate(_UNITS[1:10], 1)}
_NUMBERS |= {"one hundred": 100, "a hundred": 100}
_NUMBER = re.compile(r"\b(" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + r")\b")
_NO_NUMBER = re.compile(r"\b(?:this|another|next|last|that|skip|one song|back one|a) one\b|\bone (?:song|back)\b|\b(?:back|skip back) one\b")
_UNITS_SHORT = {" percent": ["%", "%", " %", " percent", " per cent"], " degrees celsius": ["°C", " °C", " degrees C", " degrees celsius"]}
_UNITS_SHORT |= {" degrees": ["°", " degrees", " degrees", " deg", "°C"], " celsius": ["°C", " C", " celsius"]}
_UNITS_SHORT |= {" minutes": [" minutes", " min", " mins", "min"], " minute": [" minute", " min", "-minute"]}
_CONTRACTIONS = {
    "what is": "what's", "i would": "i'd", "do not": "don't", "can not": "can't", "i am": "i'm", "let us": "let's", "it is": "it's",
    "i will": "i'll", "that is": "that's", "we are": "we're", "who is": "who's", "where is": "where's", "how is": "how's",
}  # fmt: skip
_QUESTION = re.compile(r"^(?:\w+,? )?(what|who|where|how|can|could|would|will|is|are|did|do|have|when|why)\b")
_PAUSE = re.compile(r"^(please|hey|ok|um|uh|well|so|hello|hi|excuse me|okay now|now)\b ")
_POLITE = ["please {}", "{} please", "could you please {}", "would you {}", "{}, thanks", "hi, {}", "{} thx", "pls {}", "{} pls", "hey there, {}"]
_KEYS = ["qwertyuiop", "asdfghjkl", "zxcvbnm"]
_NEAR = {c: row[max(0, i - 1) : i] + row[i + 1 : i + 2] for row in _KEYS for i, c in enumerate(row)}
_STEADY = set("lock locked unlock unlocked open closed close front back night light day".split()) | {w for n in _NUMBERS for w in n.split()}


def _digits(rng, text):
    """Numbers as digits, all of them, with short units."""
    kept = []

    def keep(match):
        kept.append(match[0])
        return f"\0{len(kept) - 1}\0"

    text = _NUMBER.sub(lambda m: f"{_NUMBERS[m[0]]}", _NO_NUMBER.sub(keep, text))
    text = re.sub("\0(\\d+)\0", lambda m: kept[int(m[1])], text)
    for unit, ways in _UNITS_SHORT.items():
        text = re.sub(rf"(?<=\d){unit}\b", lambda _: rng.choice(ways), text)
    return text


def _slip(rng, text):
    """One letter of one longer word wrong, in a way that gives no other command."""
    words = text.split(" ")
    places = [i for i, w in enumerate(words) if len(w) > 3 and w.isalpha() and w.lower() not in _STEADY]
    if not places:
        return text
    i = rng.choice(places)
    word, at, kind = words[i], rng.randrange(1, len(words[i]) - 1), rng.random()
    if kind < 0.3:
        word = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    elif kind < 0.55:
        word = word[:at] + word[at + 1 :]
    elif kind < 0.75:
        word = word[:at] + word[at] + word[at:]
    elif near := _NEAR.get(word[at].lower()):
        word = word[:at] + rng.choice(near) + word[at + 1 :]
    words[i] = word
    return " ".join(words)


def _case(rng, text):
    chance = rng.random()
    if chance < 0.5:
        text = re.sub(r"\bi\b", "I", text)
        return re.sub(r"[a-z]", lambda m: m[0].upper(), text, count=1)
    if chance < 0.58:
        return re.sub(r"\b[a-z]", lambda m: m[0].upper(), text)
    if chance < 0.7:
        return text.upper()
    if chance < 0.78:
        words = text.split(" ")
        i = rng.randrange(len(words))
        words[i] = rng.choice([str.upper, str.capitalize])(words[i])
        return " ".join(words)
    return text


def _blanks(rng, text):
    chance, places = rng.random(), [i for i, c in enumerate(text) if c == " "]
    if places and chance < 0.16:
        i = rng.choice(places)
        text = text[:i] + ("  " if chance < 0.07 else "\n" if chance < 0.15 else "\t") + text[i + 1 :]
    elif chance < 0.2:
        text = rng.choice([f" {text}", f"{text} ", f"{text}\n"])
    return text


def write(rng, text, polite=False):
    """A typed form of the sentence; as it is in one case of eight. `polite`: it is a command, and takes more politeness."""
    if rng.random() < 0.12:
        return text
    if rng.random() < 0.55:
        text = _digits(rng, text)
    if rng.random() < 0.5:
        for long, short in _CONTRACTIONS.items():
            text = re.sub(rf"\b{long}\b", short, text)
    if polite and rng.random() < 0.12:
        text = rng.choice(_POLITE).format(text)
    question = _QUESTION.match(text)
    if rng.random() < 0.5:
        text = _PAUSE.sub(lambda m: f"{m[1]}, " if m[1] != "please" or rng.random() < 0.3 else m[0], text)
        text = re.sub(r"(?<=\w) (please|thanks|thank you)$", r", \1", text)
    if rng.random() < 0.15:
        text = _slip(rng, text)
    text = _case(rng, text)
    chance = rng.random()
    if question and chance < 0.7:
        text += "?"
    elif chance < 0.5:
        text += "."
    elif chance < 0.6:
        text += rng.choice(["!", "...", " .", "!!", ";"])
    return _blanks(rng, text)
