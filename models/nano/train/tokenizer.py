"""The byte-level BPE of the checkpoint, trained on the model's own text: `python tokenizer.py`.

Digits and capitals stay single on purpose: numbers in calls and printed text are then spelt symbol by symbol.
"""

import functools
import itertools
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import text_data
import written
from grammar import TOOLS, number, utterances
from small_talk import MORE_WORDS, small_talk
from work import folder

ROWS = 2048
SPECIALS = """<|endoftext|> <|endoftext10|> <|endoftext11|> <|endofprompt|> <|assistant|> <|end|> <|user|> <|system|> <|tool|>
    <|/tool|> <|tool_call|> <|/tool_call|> <|tool_response|> <|tag|>""".split()
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_ENDING = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
PATTERN = "|".join(
    [
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+{_ENDING}",
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*{_ENDING}",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    ]
)


def corpus(seed=1):
    rng = random.Random(seed)
    tools = "".join(c for c in json.dumps(TOOLS, ensure_ascii=False) if not c.isdigit())
    fixed = [text_data.SYSTEM, text_data.TRANSCRIBE, text_data.SORRY, text_data.UNCLEAR, text_data.DONE, text_data.FAILED]
    fixed += ["It says ", "Read the text in the image.", '{"ok": true}', '{"ok": false, "error": "', '{"ok": true, "text": "']
    yield from [tools] * 300 + fixed * 300
    yield from (number(n) for n in range(101) for _ in range(20))
    for item in itertools.islice(utterances(seed, none_share=0.3), 30000):
        yield item.text
        yield "".join(c for c in text_data.call_text(item.calls) if not c.isdigit())
    yield from (small_talk(rng) for _ in range(15000))
    yield from (f" {word}" for word in MORE_WORDS)


def train():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=ROWS - len(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_tokens([AddedToken(s, normalized=False, special=True) for s in SPECIALS])
    tokenizer.normalizer = written.normalizer()
    return tokenizer


@functools.cache
def load():
    """The tokenizer for prompts, which writes the user's words as they are spoken."""
    return Tokenizer.from_file(str(folder("base") / "tokenizer.json"))


@functools.cache
def load_exact():
    """The same for answers and for what is heard, which stay letter by letter."""
    tokenizer = Tokenizer.from_file(str(folder("base") / "tokenizer.json"))
    tokenizer.normalizer = None
    return tokenizer


def settings():
    """`tokenizer_config.json`"""
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "bos_token": SPECIALS[0],
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIALS[0],
        "model_max_length": 131072,
        "pad_token": SPECIALS[0],
        "tokenizer_class": "GPT2TokenizerFast",
        "unk_token": SPECIALS[0],
    }


if __name__ == "__main__":
    out = folder("base")
    trained = train()
    assert trained.get_vocab_size() == ROWS, trained.get_vocab_size()
    assert trained.token_to_id(SPECIALS[0]) == ROWS - len(SPECIALS)
    trained.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(settings(), indent=2) + "\n")
