"""Writes a GGUF file of random weights for llama.cpp, of the sizes and with the words of a checkpoint of the Phi-4 family:
random_gguf.py CHECKPOINT FILE. Matrices are Q4_0 and the tied embedding Q6_K, as `llama-quantize` writes them for Q4_0."""

import json
import pathlib
import sys

import numpy
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter, LlamaFileType, TokenType

checkpoint, file = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
config = json.loads((checkpoint / "config.json").read_text())
tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
hidden, inner = config["hidden_size"], config["intermediate_size"]
heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
layers, vocab = config["num_hidden_layers"], config["vocab_size"]
head = hidden // heads
rotary = int(head * config["partial_rotary_factor"])
random = numpy.random.default_rng(0)


def bits(count):
    """Random bytes."""
    return numpy.frombuffer(random.bytes(count), numpy.uint8)


def half(value):
    return numpy.frombuffer(numpy.float16(value).tobytes(), numpy.uint8)


def q4_0(rows, columns):
    """Blocks of 32 codes behind a scale, such that signals keep their size from layer to layer."""
    blocks = bits(rows * columns // 32 * 18).reshape(-1, 18).copy()
    blocks[:, :2] = half(columns**-0.5 / 4.7)
    return blocks.reshape(rows, -1)


def q6_k(rows, columns):
    """Blocks of 256 codes, 16 scales of 8 bits, and the scale of these."""
    blocks = bits(rows * columns // 256 * 210).reshape(-1, 210).copy()
    blocks[:, 192:208] = 64
    blocks[:, 208:] = half(columns**-0.5 / 18.5 / 64)
    return blocks.reshape(rows, -1)


def floats(values):
    return numpy.asarray(values, numpy.float32)


def metadata(writer):
    writer.add_file_type(LlamaFileType.MOSTLY_Q4_0)
    writer.add_vocab_size(vocab)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_rope_scaling_orig_ctx_len(config["original_max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(inner)
    writer.add_block_count(layers)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(rotary)
    writer.add_rope_freq_base(config["rope_theta"])


def words(writer):
    known = {index: word for word, index in tokenizer["model"]["vocab"].items()}
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    tokens = [special.get(i) or known.get(i) or f"[PAD{i}]" for i in range(vocab)]
    kinds = [TokenType.CONTROL if i in special else TokenType.NORMAL for i in range(vocab)]
    end = next(i for i, word in special.items() if word == "<|endoftext|>")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-4o")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(False)


def tensors():
    """Name, shape, format and maker of each tensor; made only when it is written."""
    yield "token_embd.weight", (vocab, hidden), Kind.Q6_K, q6_k
    yield "output_norm.weight", (hidden,), Kind.F32, lambda n: floats(numpy.ones(n))
    for side in ("long", "short"):
        factors = config["rope_scaling"][f"{side}_factor"]
        yield f"rope_factors_{side}.weight", (rotary // 2,), Kind.F32, lambda n, f=factors: floats(f)
    for layer in range(layers):
        for norm in ("attn_norm", "ffn_norm"):
            yield f"blk.{layer}.{norm}.weight", (hidden,), Kind.F32, lambda n: floats(numpy.ones(n))
        for name, rows, columns in (
            ("attn_qkv", (heads + 2 * kv_heads) * head, hidden),
            ("attn_output", hidden, hidden),
            ("ffn_up", 2 * inner, hidden),
            ("ffn_down", hidden, inner),
        ):
            yield f"blk.{layer}.{name}.weight", (rows, columns), Kind.Q4_0, q4_0


BLOCKS = {Kind.F32: (1, 4), Kind.Q4_0: (32, 18), Kind.Q6_K: (256, 210)}


def main():
    partial = file.with_suffix(".partial")
    writer = GGUFWriter(partial, "phi3")
    metadata(writer)
    words(writer)
    for name, shape, kind, _ in tensors():
        per, width = BLOCKS[kind]
        size = int(numpy.prod(shape)) // per * width
        if kind == Kind.F32:
            writer.add_tensor_info(name, shape, numpy.dtype(numpy.float32), size)
        else:
            stored = (*shape[:-1], shape[-1] // per * width)
            writer.add_tensor_info(name, stored, numpy.dtype(numpy.uint8), size, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for _, shape, _, make in tensors():
        writer.write_tensor_data(make(*shape))
    writer.close()
    partial.rename(file)


main()
