"""The sets of typed requests that `outpost eval` reads: `python typed_sets.py TARGET [SEED]`. No sentence of them is ever trained on.

| set | what |
| --- | --- |
| `typed` | one call, as people type: capitals, stops, digits, slips, line breaks |
| `typed_plain` | one call, small letters and number words alone |
| `typed_opposites` | pairs that differ in on/off, lock/unlock, open/closed |
| `typed_two` | two commands in one sentence |
| `typed_no_call` | near misses of unseen patterns, words in no order, small talk, sentences of this repository's documents |
"""

import itertools
import json
import random
import re
import sys
from pathlib import Path

import grammar
import negatives
import typed
from grammar import TOOL_NAMES, Utterance, is_held_out, utterances
from small_talk import small_talk
from work import HERE

SEED = 251
DOCUMENTS = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "docs/models.md", "docs/devices.md", "docs/tools.md"]


def _held_out(make):
    """Distinct sentences of the held-out side from `make()`."""
    seen = set()
    while True:
        made = make()
        words = made.text if isinstance(made, Utterance) else made
        if is_held_out(words) and words not in seen:
            seen.add(words)
            yield made


def singles(rng):
    names = itertools.cycle(TOOL_NAMES)
    return _held_out(lambda: grammar.command(rng, next(names)))


def opposites(rng):
    """Sentences of tools with opposite states, and the same sentence with the other word where there is one."""
    names = itertools.cycle(["set_lock", "set_light", "set_blinds"])
    swap = {"locked": (True, False), "state": ("on", "off"), "position": ("open", "closed")}
    words = {"lock": "unlock", "locked": "unlocked", "on": "off", "open": "close"}
    words |= {b: a for a, b in words.items()} | {"closed": "open", "up": "down", "down": "up", "raise": "lower", "lower": "raise"}

    def make():
        item = grammar.command(rng, next(names))
        arguments = item.calls[0]["arguments"]
        key = next(k for k in swap if k in arguments)
        found = [w for w in item.text.split() if w in words]
        if "brightness" in arguments or len(found) != 1 or item.text.startswith(("lock up", "open up", "put the lock on")):
            return item
        other = " ".join(words[w] if w == found[0] else w for w in item.text.split())
        if found[0] == "open" and not re.search(r"\bopen (?:the|\w+ blinds|\w+ room blinds)", item.text):
            other = re.sub(r"\bopen\b", "closed", item.text)
        turned = arguments | {key: next(v for v in swap[key] if v != arguments[key])}
        return Utterance(item.text, [item.calls, [{"name": item.kind, "arguments": turned}], other], "pair")

    for item in _held_out(make):
        if item.kind != "pair":
            continue
        calls, turned, other = item.calls
        if not is_held_out(other):
            continue
        yield Utterance(item.text, calls, "opposite")
        yield Utterance(other, turned, "opposite")


def doubles(rng):
    return _held_out(lambda: grammar.double(rng))


def documents():
    """Sentences of 4 to 14 words of this repository's documents, in no order."""
    out = set()
    for name in DOCUMENTS:
        text = re.sub(r"```.*?```|^\|.*?$|^#.*?$", "", (HERE.parents[2] / name).read_text(), flags=re.S | re.M)
        for sentence in re.split(r"(?<=[.!?])\s+|\n\n|\n- ", text):
            sentence = " ".join(sentence.split())
            if 4 <= len(sentence.split()) <= 14 and re.fullmatch(r"[A-Z][A-Za-z ,.'-]+", sentence):
                out.add(sentence)
    return sorted(out, key=lambda s: negatives.zlib.crc32(s.encode()))


def idle(rng):
    near = _held_out(lambda: negatives.near_miss(rng, held_out=True))
    talk = _held_out(lambda: small_talk(rng))
    mixed = _held_out(lambda: negatives.jumble(rng))
    written = iter(documents())
    for kind in itertools.cycle("nntjd"):
        if kind == "d":
            yield next(written, None) or typed.write(rng, next(near))
        else:
            yield typed.write(rng, next({"n": near, "t": talk, "j": mixed}[kind]))


def draw(seed, counts=(160, 80, 120, 80, 150)):
    """{name: [(text, calls)]}"""
    rng = random.Random(seed)
    one, plain, turned, two, none = counts
    written = lambda items, n: [(typed.write(rng, i.text, polite=True), i.calls) for i in itertools.islice(items, n)]  # noqa: E731
    return {
        "typed": written(singles(rng), one),
        "typed_plain": [(i.text, i.calls) for i in itertools.islice((u for u in utterances(seed, True, 0.0, 0.0)), plain)],
        "typed_opposites": written(opposites(rng), turned),
        "typed_two": written(doubles(rng), two),
        "typed_no_call": [(text, []) for text in itertools.islice(idle(rng), none)],
    }


def load(folder=HERE.parent / "eval"):
    """The committed sets, as `draw` gives them."""
    out = {}
    for path in sorted(folder.glob("typed*.jsonl")):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        calls = [[] if not (c := line["expect_call"]) else c if isinstance(c, list) else [c] for line in lines]
        out[path.stem] = [(line["text"], c) for line, c in zip(lines, calls)]
    return out


def main(target, seed=SEED):
    for name, items in draw(seed).items():
        lines = [{"text": t, "expect_call": None if not c else c[0] if len(c) == 1 else c} for t, c in items]
        (target / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        print(name, len(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
