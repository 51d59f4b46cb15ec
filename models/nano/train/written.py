"""Written sentences as the model would have heard them, as the `normalizer` of `tokenizer.json`.

The model learnt words as they are spoken: small letters, numbers in words, no stops. This rewrites "Set the volume to 30%." to "set the volume to
thirty percent" before it is cut into tokens. Tool lists, calls and results are JSON, in which every part is followed by a quote or a bracket;
they stay as they are, and so do the model's own prompts. `python written.py` puts it into the tokenizer of `base/`.
"""

import json

from tokenizers import Regex, Tokenizer, normalizers

import text_data
from grammar import _TENS, _UNITS, TOOLS, number
from work import folder

NEAR = 2000  # how far a quote or a bracket is looked for
PROSE = rf'(?!(?>[^"{{}}\[\]]{{0,{NEAR}}})["{{}}\[\]])'
_OWN = [text_data.SYSTEM, text_data.TRANSCRIBE, text_data.READ_TEXT]
CAPITAL, NUMBER, TENS, SHORT = "\ue000\ue001\ue002\ue003"  # marks, put before what the next steps replace


def _regex(pattern, content):
    return normalizers.Replace(Regex(pattern + PROSE), content)


def _blanks_and_stops():
    kept = "".join(rf"(?<!{text[-12:-1]})" for text in _OWN)
    return [
        _regex(r"(?:\s{2,}|[\t\r\n\x{a0}])", " "),
        _regex(r"\A\s+(?=\S)", ""),
        _regex(r"(?<=[a-zA-Z.!?;%°\d])\s+\z", ""),
        _regex(rf"{kept}(?<![\"\]}}])\s?[.!?;:,]+\z", ""),
        _regex(r"(?<![\"\]}])\s?[.!?;:,]+(?=\s\w)", ""),
    ]


def _small_letters():
    own = "|".join(text[:-1] for text in _OWN)
    letters = [normalizers.Replace(CAPITAL + chr(c), chr(c + 32)) for c in range(ord("A"), ord("Z") + 1)]
    return [_regex(rf"(?:\A|(?<=[\sA-Z°\d'-]))(?=[A-Z])(?!{own})", CAPITAL), *letters]


def _numbers():
    end = r"(?![\da-z]|[.,:]\d)"
    units = [
        _regex(r"(?<=\d)\s?mins?(?=\stimer)", " minute"),
        _regex(r"(?<=\d)\s?mins?\b", " minutes"),
        _regex(r"(?<=\d)-?(?=minute|percent|degree)", " "),
        _regex(r"\s?(?:°(?:\s?c\b)?|\bdeg\b)", " degrees"),
        _regex(r"(?<=degrees) c\b", " celsius"),
        _regex(r"(?<=\d)\s?c\b", " celsius"),
        _regex(r"\s?(?:%|\bper cent\b)", " percent"),
        _regex(r"(?<=ty)-(?=(?:one|two|three|four|five|six|seven|eight|nine)\b)", " "),
    ]
    # Beside a word only: the digits of a call come here alone where the grammar leaves no choice.
    beside = lambda number: rf"(?:(?<=[a-z] )(?={number}{end})|(?<![\w.,:\ue002])(?={number}{end}\s?[a-z]))"  # noqa: E731
    marks = [_regex(beside(r"[2-9]\d"), TENS), _regex(beside(r"(?:100|1?\d)"), NUMBER)]
    tens = [normalizers.Replace(f"{TENS}{i}", f"{_TENS[i]} {NUMBER}") for i in range(2, 10)]
    words = [normalizers.Replace(f"y {NUMBER}0", "y")]  # "twenty" and a 0
    words += [normalizers.Replace(f"{NUMBER}{i}", _UNITS[i]) for i in range(19, 9, -1)]
    words += [normalizers.Replace(f"{NUMBER}{i}", _UNITS[i]) for i in range(10)]
    return [*units, *marks, *tens, normalizers.Replace(f"{NUMBER}100", "one hundred"), *words]


def _short_forms():
    said = {f"{word}{SHORT}'s": f"{word} is" for word in "what that it who where how here there he she".split()}
    said |= {f"let{SHORT}'s": "let us", f"can{SHORT}'t": "can not", f"won{SHORT}'t": "will not"}
    said |= {f"n{SHORT}'t": " not", f"{SHORT}'d": " would", f"{SHORT}'m": " am", f"{SHORT}'re": " are", f"{SHORT}'ll": " will", f"{SHORT}'ve": " have", SHORT: ""}
    typed = {r"\b(?:pls|plz)\b": "please", r"\b(?:thx|tnx)\b": "thanks", r"\x{2019}": "'"}
    mark = _regex(r"(?='(?:s|d|m|re|ll|ve|t)\b)", SHORT)
    return [*(_regex(p, c) for p, c in typed.items()), mark, *(normalizers.Replace(a, b) for a, b in said.items())]


def normalizer():
    return normalizers.Sequence(_blanks_and_stops() + _small_letters() + _short_forms() + _numbers())


EXAMPLES = {
    "Lock the front door.": "lock the front door",
    "UNLOCK THE\nFRONT DOOR!": "unlock the front door",
    "Set the volume to 30%.": "set the volume to thirty percent",
    "Make it 21°C, please.": "make it twenty one degrees please",
    "Set a 10min timer, I'd say": "set a ten minute timer i would say",
    "What's on the sign ??": "what is on the sign",
    "gate 5B at 7:30 for 3.5": "gate 5b at 7:30 for 3.5",
    '{"ok": true, "text": "EXIT 4. A, b "}': '{"ok": true, "text": "EXIT 4. A, b "}',
    ', "celsius": ': ', "celsius": ',
    "0": "0",
    '"Living': '"Living',
    "00}": "00}",
}


def check(rewrite):
    """Fails unless the examples, all numbers and the texts that must stay come out right."""
    fixed = [json.dumps(TOOLS), *_OWN]
    wanted = EXAMPLES | {text: text for text in fixed} | {f"make it {i}": f"make it {number(i)}" for i in range(101)}
    for text, spoken in wanted.items():
        assert rewrite(text) == spoken, (text, rewrite(text))


if __name__ == "__main__":
    check(normalizer().normalize_str)
    path = str(folder("base") / "tokenizer.json")
    kept = Tokenizer.from_file(path)
    kept.normalizer = normalizer()
    kept.save(path)
