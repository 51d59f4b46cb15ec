"""Makes the seeds: for each reader files that it takes (`good-…`) and files that it must refuse (`bad-…`)."""

import json
import struct
from pathlib import Path

HERE = Path(__file__).resolve().parent
PRESETS = HERE.parents[1] / "presets"


def write(file, name, data):
    folder = HERE / file
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


# -------------------------------------------------------------------------------------------------------- safetensors


def safetensors(tensors, data, **more):
    header = json.dumps({name: {"dtype": d, "shape": s, "data_offsets": o} for name, (d, s, o) in tensors.items()} | more).encode()
    return struct.pack("<Q", len(header)) + header + data


def make_safetensors():
    file = "model.safetensors"
    two = struct.pack("<2f", 1, 2)
    good = {"a": ("F32", [1, 2], [0, 8]), "b": ("BF16", [2], [8, 12]), "c": ("F16", [1], [12, 14]), "d": ("F32", [0, 3], [14, 14])}
    write(file, "good-every-format", safetensors(good, two + b"\x80\x3f\x80\x3f\x00\x3c", __metadata__={"format": "pt"}))
    write(file, "good-none", safetensors({}, b""))
    for name, tensors, data in [
        ("wrong-format", {"a": ("I64", [1], [0, 8])}, two),
        ("nibbles", {"a": ("F4", [2], [0, 1])}, b"x"),
        ("unknown-format", {"a": ("Q3", [1], [0, 8])}, two),
        ("overlap", {"a": ("F32", [2], [0, 8]), "b": ("F32", [2], [4, 12])}, two + two[:4]),
        ("gap", {"a": ("F32", [1], [0, 4]), "b": ("F32", [1], [8, 12])}, two + two[:4]),
        ("backwards", {"a": ("F32", [2], [8, 0])}, two),
        ("beyond", {"a": ("F32", [4], [0, 16])}, two),
        ("surplus", {"a": ("F32", [1], [0, 4])}, two),
        ("huge-size", {"a": ("F32", [1 << 63], [0, 8])}, two),
        ("huge-product", {"a": ("F32", [1 << 32, 1 << 32], [0, 0])}, b""),
        ("hidden-product", {"a": ("F32", [0, 1 << 40, 1 << 40], [0, 0])}, b""),
        ("huge-offset", {"a": ("F32", [2], [(1 << 64) - 8, (1 << 64) - 1])}, two),
        ("negative", {"a": ("F32", [-1], [0, 8])}, two),
        ("not-a-number", {"a": ("F32", [2], [0, 8])}, struct.pack("<2f", 1, float("nan"))),
    ]:
        write(file, f"bad-{name}", safetensors(tensors, data))
    write(file, "bad-empty", b"")
    for name, length in [("header-of-100-mb", 100_000_000), ("header-of-all", (1 << 64) - 1), ("header-of-half", 1 << 63)]:
        write(file, f"bad-{name}", struct.pack("<Q", length) + b"{}")
    for name, header in [("deep", b"[" * 5000), ("deeper", b'{"a":' * 5000), ("no-object", b"3"), ("no-text", b"\xff\xfe{}")]:
        write(file, f"bad-{name}", struct.pack("<Q", len(header)) + header)


# --------------------------------------------------------------------------------------------------------------- GGUF

U32, U64, F32, TEXT, ARRAY = 4, 10, 6, 8, 9


def text(value):
    value = value.encode()
    return struct.pack("<Q", len(value)) + value


def value(kind, item):
    if kind == TEXT:
        return text(item)
    if kind == ARRAY:
        of, items = item
        return struct.pack("<IQ", of, len(items)) + b"".join(value(of, i) for i in items)
    return struct.pack({U32: "<I", U64: "<Q", F32: "<f"}[kind], item)


def gguf(metadata, tensors, data=None, version=3, counts=None):
    """`tensors`: name -> (dimensions, width first, type, bytes); `data` replaces them."""
    head = b"GGUF" + struct.pack("<IQQ", version, *(counts or (len(tensors), len(metadata))))
    for key, (kind, item) in metadata.items():
        head += text(key) + struct.pack("<I", kind) + value(kind, item)
    body = b""
    for name, (dimensions, kind, content) in tensors.items():
        body += bytes(-len(body) % 32)
        head += text(name) + struct.pack(f"<I{len(dimensions)}Q", len(dimensions), *dimensions)
        head += struct.pack("<IQ", kind, len(body))
        body += content
    return head + bytes(-len(head) % 32) + (body if data is None else data)


def model(architecture):
    sizes = {"embedding_length": 64, "feed_forward_length": 64, "block_count": 1, "context_length": 4096}
    sizes |= {"attention.head_count": 2, "attention.head_count_kv": 1}
    tokens = ["a", "b", "ab", "<|im_start|>", "<|im_end|>"]
    metadata = {"general.architecture": (TEXT, architecture), "general.license": (TEXT, "none")}
    metadata |= {f"{architecture}.{key}": (U32, size) for key, size in sizes.items()}
    metadata |= {
        f"{architecture}.rope.freq_base": (F32, 10000.0),
        "tokenizer.ggml.model": (TEXT, "gpt2"),
        "tokenizer.ggml.pre": (TEXT, "gpt-2"),
        "tokenizer.ggml.tokens": (ARRAY, (TEXT, tokens)),
        "tokenizer.ggml.merges": (ARRAY, (TEXT, ["a b"])),
        "tokenizer.ggml.token_type": (ARRAY, (U32, [1, 1, 1, 3, 3])),
        "tokenizer.ggml.eos_token_id": (U32, 4),
    }
    return metadata, {"token_embd.weight": ([64, 5], 8, bytes(5 * 68))}


def make_gguf():
    file = "model.gguf"
    metadata, tensors = model("llama")
    blocks = {0: (1, 4), 1: (1, 2), 30: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)}
    blocks |= {12: (256, 144), 13: (256, 176), 14: (256, 210)}
    every = {f"blk.0.{kind}": ([width], kind, bytes(size)) for kind, (width, size) in blocks.items()}
    write(file, "good-llama", gguf(metadata, tensors | every))
    write(file, "good-version-2", gguf(metadata, tensors, version=2))
    ones = struct.pack("<16f", *[1.0] * 16)
    factors = {f"rope_factors_{which}.weight": ([16], 0, ones) for which in ("long", "short")}
    phi, embedding = model("phi3")
    write(file, "good-phi3", gguf(phi | {"phi3.rope.scaling.original_context_length": (U32, 2048)}, embedding | factors))
    pieces = [("<unk>", 2), ("<s>", 3)] + [(f"<0x{byte:02X}>", 6) for byte in range(256)]
    pieces += [("\u2581", 1), ("a", 1), ("b", 1), ("ab", 1), ("\u2581ab", 1), ("<|im_start|>", 4), ("<|im_end|>", 4)]
    piece = {
        "tokenizer.ggml.model": (TEXT, "llama"),
        "tokenizer.ggml.bos_token_id": (U32, 1),
        "tokenizer.ggml.tokens": (ARRAY, (TEXT, [token for token, _ in pieces])),
        "tokenizer.ggml.token_type": (ARRAY, (U32, [kind for _, kind in pieces])),
        "tokenizer.ggml.scores": (ARRAY, (F32, [-float(place) for place in range(len(pieces))])),
    }
    write(file, "good-pieces", gguf(metadata | piece, tensors))
    long = piece | {"tokenizer.ggml.tokens": (ARRAY, (TEXT, [token if token != "ab" else "ab" * 20_000 for token, _ in pieces]))}
    write(file, "bad-long-piece", gguf(metadata | long, tensors))
    weight = ([32], 8, bytes(34))
    for name, data in [
        ("empty", b""),
        ("magic", b"GGML" + bytes(60)),
        ("version", gguf(metadata, tensors, version=4)),
        ("tensor-count", gguf({}, {}, counts=((1 << 64) - 1, 0))),
        ("pair-count", gguf({}, {}, counts=(0, 1 << 63))),
        ("overlap", gguf(metadata, tensors | {"a": weight}, data=bytes(352)).replace(struct.pack("<IQ", 8, 352), struct.pack("<IQ", 8, 0))),
        ("beyond", gguf(metadata, tensors, data=b"")),
        ("huge-size", gguf(metadata, tensors | {"a": ([1 << 63], 0, b"")})),
        ("hidden-product", gguf(metadata, tensors | {"a": ([1 << 40, 1 << 40, 0], 0, b"")})),
        ("unknown-format", gguf(metadata, tensors | {"a": ([32], 99, b"")})),
        ("five-dimensions", gguf(metadata, tensors | {"a": ([1] * 5, 0, bytes(4))})),
        ("half-a-block", gguf(metadata, tensors | {"a": ([33], 8, bytes(68))})),
        ("alignment", gguf(metadata | {"general.alignment": (U32, 0)}, tensors)),
        ("many-layers", gguf(metadata | {"llama.block_count": (U64, 1 << 60)}, tensors)),
        ("wide", gguf(metadata | {"llama.embedding_length": (U64, 1 << 63)}, tensors)),
        ("rotary", gguf(metadata | {"llama.rope.dimension_count": (U64, (1 << 64) - 1)}, tensors | {"rope_freqs.weight": ([16], 0, ones)})),
        ("no-merges", gguf({k: v for k, v in metadata.items() if "merges" not in k}, tensors)),
    ]:
        write(file, f"bad-{name}", data)
    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 1)
    write(file, "bad-text-of-all", head + struct.pack("<Q", (1 << 64) - 1) + b"x")
    write(file, "bad-list-of-all", head + text("a") + struct.pack("<IIQ", ARRAY, 0, 1 << 62) + bytes(64))
    write(file, "bad-list-of-lists", head + text("a") + struct.pack("<I", ARRAY) + struct.pack("<IQ", ARRAY, 1) * 100)


# --------------------------------------------------------------------------------------------------------------- JSON


def make_config():
    file = "config.json"
    for preset in ("phi-4-mini", "phi-4-multimodal"):
        write(file, f"good-{preset}", (PRESETS / f"{preset}.json").read_bytes())
    small = {"vocab_size": 320, "hidden_size": 128, "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4}
    small |= {"num_key_value_heads": 2, "rms_norm_eps": 1e-5, "max_position_embeddings": 512}
    llama = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    write(file, "good-llama", small | {"rope_parameters": llama | {"rope_theta": 5e5}})
    large = json.loads((PRESETS / "phi-4-multimodal.json").read_text())
    audio, image = large["audio_processor"], large["embd_layer"]
    long = {"type": "longrope", "short_factor": [1.0] * 16, "long_factor": [2.0] * 16}
    for name, config in [
        ("layers", small | {"num_hidden_layers": 10**18}),
        ("width", small | {"hidden_size": 1 << 63}),
        ("zero", small | {"num_attention_heads": 0}),
        ("heads", small | {"num_attention_heads": (1 << 64) - 1, "head_dim": 1 << 63}),
        ("context", small | {"max_position_embeddings": 1 << 62}),
        ("negative", small | {"vocab_size": -1}),
        ("theta", small | {"rope_theta": 0}),
        ("rotary", small | {"partial_rotary_factor": 1e300}),
        ("original", small | {"rope_scaling": long, "original_max_position_embeddings": 1}),
        ("factors", small | {"rope_scaling": long | {"long_factor": [0.0] * 16}}),
        ("kind", small | {"rope_scaling": {"type": "yarn"}}),
        ("linear", small | {"hidden_size": 1 << 62, "rope_scaling": {"type": "linear", "factor": 2}}),
        ("rank", small | {"speech_lora": {"r": 1 << 60, "lora_alpha": 1}}),
        ("adapters", small | {"adapters": 3}),
        ("mels", large | {"audio_processor": {"config": audio["config"] | {"input_size": 1 << 40}}}),
        ("blocks", large | {"audio_processor": {"config": audio["config"] | {"num_blocks": 1 << 40}}}),
        ("crops", large | {"embd_layer": {"image_embd_layer": image["image_embd_layer"] | {"dynamic_hd": 1 << 40}}}),
        ("native", {"model_type": "phi4_multimodal"}),
        ("list", []),
        ("number", 3),
    ]:
        write(file, f"bad-{name}", config)
    write(file, "bad-empty", b"")
    write(file, "bad-deep", b'{"a":' * 5000)


def make_manifest():
    file = "manifest.json"
    good = {"format": 3, "quant": "int4", "source": {"name": "tiny", "files": {}}, "parts": {}}
    part = {"bytes": 0, "sha256": "0" * 64}
    write(file, "good-empty", good)
    for name, manifest in [
        ("format", good | {"format": 1 << 31}),
        ("no-format", {"quant": "int4"}),
        ("quant", good | {"quant": "int3"}),
        ("missing", good | {"parts": {"decoder.safetensors": part}}),
        ("outside", good | {"parts": {"../manifest.json": part}}),
        ("absolute", good | {"parts": {"/etc/hostname": part}}),
        ("folder", good | {"parts": {".": part}}),
        ("nul", good | {"parts": {"a\0b": part}}),
        ("huge", good | {"parts": {"manifest.json": part | {"bytes": (1 << 64) - 1}}}),
        ("list", []),
    ]:
        write(file, f"bad-{name}", manifest)
    write(file, "bad-empty", b"")
    write(file, "bad-deep", b"[" * 5000)


def make_tokenizer():
    file = "tokenizer.json"
    names = ["<|im_start|>", "<|im_end|>"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [{"id": 3 + n, "content": name} | flags for n, name in enumerate(names)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    bpe = {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}
    good = {"version": "1.0", "added_tokens": added, "pre_tokenizer": level, "decoder": level, "model": bpe}
    write(file, "good-bytes", good)
    fallback = {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}
    for name, tokenizer in [
        ("added", good | {"added_tokens": [3]}),
        ("added-id", good | {"added_tokens": [added[0] | {"id": 4_000_000_000}, added[1]]}),
        ("negative-id", good | {"added_tokens": [added[0] | {"id": -1}, added[1]]}),
        ("vocab-id", good | {"model": bpe | {"vocab": {"a": 1 << 62, "b": 1, "ab": 2}}}),
        ("byte", good | {"decoder": fallback, "model": bpe | {"vocab": {"<0xZZ>": 0, "b": 1}, "merges": []}}),
        ("short-byte", good | {"decoder": fallback, "model": bpe | {"vocab": {"<0x": 0, "b": 1}, "merges": []}}),
        ("merges", good | {"model": bpe | {"merges": ["x y"]}}),
        ("regex", good | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(" * 500}, "behavior": "Isolated", "invert": False}}),
        ("no-chat", good | {"added_tokens": []}),
        ("list", []),
    ]:
        write(file, f"bad-{name}", tokenizer)
    write(file, "bad-empty", b"")
    write(file, "bad-deep", b'{"a":' * 5000)


make_safetensors()
make_gguf()
make_config()
make_manifest()
make_tokenizer()
