"""Writes a GGUF file of random weights for llama.cpp, with the sizes and the words of a checkpoint of the Phi-4 family:
random_gguf.py CHECKPOINT FILE [--plain]. Matrices are Q4_0 and the tied embedding Q6_K, the choice of `llama-quantize`.

--plain is for forks that know neither a tied head nor rotary embeddings over a part of a head: it has a head of its own, and
rotates whole heads."""

import json
import math
import os
import pathlib
import struct
import sys

checkpoint, file = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
plain = "--plain" in sys.argv
config = json.loads((checkpoint / "config.json").read_text())
tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
hidden, inner = config["hidden_size"], config["intermediate_size"]
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
layers, vocab = config["num_hidden_layers"], config["vocab_size"]
head = hidden // heads
rotary = head if plain else int(head * config["partial_rotary_factor"])

ALIGNMENT = 32
# Type numbers of the format, and for matrices the values and bytes of a block.
F32, Q4_0, Q6_K = 0, 2, 14
BLOCKS = {F32: (1, 4), Q4_0: (32, 18), Q6_K: (256, 210)}
UINT32, FLOAT32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def uint(value):
    return struct.pack("<II", UINT32, value)


def array(kind, items):
    return struct.pack("<IIQ", ARRAY, kind, len(items)) + b"".join(items)


def metadata():
    phi3 = {
        "vocab_size": uint(vocab),
        "context_length": uint(config["max_position_embeddings"]),
        "rope.scaling.original_context_length": uint(config["original_max_position_embeddings"]),
        "embedding_length": uint(hidden),
        "feed_forward_length": uint(inner),
        "block_count": uint(layers),
        "attention.head_count": uint(heads),
        "attention.head_count_kv": uint(kv_heads),
        "attention.layer_norm_rms_epsilon": struct.pack("<If", FLOAT32, config["rms_norm_eps"]),
        "rope.dimension_count": uint(rotary),
        "rope.freq_base": struct.pack("<If", FLOAT32, config["rope_theta"]),
    }
    words = {index: word for word, index in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = [special.get(index) or words.get(index) or f"[PAD{index}]" for index in range(vocab)]
    normal, control = 1, 3
    kinds = [control if index in special else normal for index in range(vocab)]
    end = next(index for index, word in special.items() if word == "<|endoftext|>")
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    return {
        "general.architecture": struct.pack("<I", STRING) + string("phi3"),
        "general.file_type": uint(Q4_0),
        **{f"phi3.{name}": value for name, value in phi3.items()},
        "tokenizer.ggml.model": struct.pack("<I", STRING) + string("gpt2"),
        "tokenizer.ggml.pre": struct.pack("<I", STRING) + string("gpt-4o"),
        "tokenizer.ggml.tokens": array(STRING, [string(token) for token in tokens]),
        "tokenizer.ggml.token_type": array(UINT32 + 1, [struct.pack("<i", kind) for kind in kinds]),
        "tokenizer.ggml.merges": array(STRING, [string(merge) for merge in merges]),
        "tokenizer.ggml.bos_token_id": uint(end),
        "tokenizer.ggml.eos_token_id": uint(end),
        "tokenizer.ggml.add_bos_token": struct.pack("<I?", BOOL, False),
    }


def tensors():
    """Name, rows, columns and type of each tensor; what is no matrix has no rows."""
    yield "token_embd.weight", vocab, hidden, Q6_K
    if plain:
        yield "output.weight", vocab, hidden, Q6_K
    yield "output_norm.weight", 0, hidden, F32
    if not plain:
        yield "rope_factors_long.weight", 0, rotary // 2, F32
        yield "rope_factors_short.weight", 0, rotary // 2, F32
    for layer in range(layers):
        yield f"blk.{layer}.attn_norm.weight", 0, hidden, F32
        yield f"blk.{layer}.attn_qkv.weight", (heads + 2 * kv_heads) * head, hidden, Q4_0
        yield f"blk.{layer}.attn_output.weight", hidden, hidden, Q4_0
        yield f"blk.{layer}.ffn_norm.weight", 0, hidden, F32
        yield f"blk.{layer}.ffn_up.weight", 2 * inner, hidden, Q4_0
        yield f"blk.{layer}.ffn_down.weight", hidden, inner, Q4_0


def size(rows, columns, kind):
    values, width = BLOCKS[kind]
    return max(rows, 1) * columns // values * width


def vector(name, columns):
    for side in ("long", "short"):
        if side in name:
            return struct.pack(f"<{columns}f", *config["rope_scaling"][f"{side}_factor"])
    return struct.pack("<f", 1.0) * columns


def blocks(columns, kind, count):
    """Random blocks whose scales are such that signals keep their size from layer to layer."""
    width = BLOCKS[kind][1]
    data = bytearray(os.urandom(count * width))
    if kind == Q4_0:
        # A half-precision scale before 32 codes, which have a standard deviation of 4.6.
        start, scale = 0, struct.pack("<e", 1 / 4.6 / math.sqrt(columns))
    else:
        # 16 scales of 8 bits and their own scale, behind codes with a standard deviation of 18.5.
        start, scale = 192, bytes([64] * 16) + struct.pack("<e", 1 / 18.5 / 64 / math.sqrt(columns))
    for offset, byte in enumerate(scale):
        data[start + offset :: width] = bytes([byte]) * count
    return data


def matrix(sink, rows, columns, kind):
    """Repeats some random rows: what matters to a clock is where bytes lie, not what they are."""
    part = min(rows, 256)
    data = blocks(columns, kind, part * columns // BLOCKS[kind][0])
    for _ in range(rows // part):
        sink.write(data)
    sink.write(data[: size(rows, columns, kind) % len(data)])


def padding(length):
    return bytes(-length % ALIGNMENT)


def main():
    listed = list(tensors())
    header = bytearray(b"GGUF")
    entries = metadata()
    header += struct.pack("<IQQ", 3, len(listed), len(entries))
    for name, value in entries.items():
        header += string(name) + value
    offset = 0
    for name, rows, columns, kind in listed:
        shape = (columns, rows) if rows else (columns,)
        header += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
        header += struct.pack("<IQ", kind, offset)
        length = size(rows, columns, kind)
        offset += length + len(padding(length))
    partial = file.with_suffix(".partial")
    with partial.open("wb") as sink:
        sink.write(header + padding(len(header)))
        for name, rows, columns, kind in listed:
            if rows:
                matrix(sink, rows, columns, kind)
            else:
                sink.write(vector(name, columns))
            sink.write(padding(size(rows, columns, kind)))
    partial.rename(file)


main()
