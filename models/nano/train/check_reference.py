"""Checks the reference wrapper against known numbers and against the port's own forward pass. Run it: no output but `ok`s."""

import json
import tempfile
from pathlib import Path

import torch
from PIL import Image
from transformers import DynamicCache

import phi4mm
from features import layout, log_mel, mel_filters, tile

LONG_FACTOR = [float(x) for x in """1 1.118320672 1.250641126 1.398617824 1.564103225 1.74916897 1.956131817 2.187582649
    2.446418898 2.735880826 3.059592084 3.421605075 3.826451687 4.279200023 4.785517845 5.351743533 5.984965424
    6.693110555 7.485043894 8.370679318 9.36110372 10.4687158 11.70738129 13.09260651 14.64173252 16.37415215 18.31155283
    20.47818807 22.90118105 25.61086418 28.64115884 32.03 32.1 32.13 32.23 32.6 32.61 32.64 32.66 32.7 32.71 32.93 32.97
    33.28 33.49 33.5 44.16 47.77""".split()]  # fmt: skip


def released_config():
    """The parts of the released checkpoint's config.json that decide shapes and forward pass."""
    return {
        "architectures": ["Phi4MMForCausalLM"],
        "model_type": "phi4mm",
        "vocab_size": 200064,
        "hidden_size": 3072,
        "intermediate_size": 8192,
        "num_hidden_layers": 32,
        "num_attention_heads": 24,
        "num_key_value_heads": 8,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": True,
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "partial_rotary_factor": 0.75,
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 48, "long_factor": LONG_FACTOR},
        "bos_token_id": 199999,
        "eos_token_id": 199999,
        "pad_token_id": 199999,
        "vision_lora": {"r": 256, "lora_alpha": 512, "dp": 0.0},
        "speech_lora": {"r": 320, "lora_alpha": 640, "dp": 0.01},
        "embd_layer": {"image_embd_layer": {"crop_size": 448, "img_processor": None}},
        "audio_processor": {
            "name": "cascades",
            "config": {
                "attention_dim": 1024,
                "attention_heads": 16,
                "num_blocks": 24,
                "linear_units": 1536,
                "kernel_size": 3,
                "input_size": 80,
                "time_reduction": 8,
                "nemo_conv_settings": {"conv_channels": 1024},
                "relative_attention_bias_args": {"type": "t5", "t5_bias_max_distance": 500},
                "ext_pw_out_channel": 1024,
                "depthwise_seperable_out_channel": 1024,
            },
        },
    }


def small_config():
    config = released_config()
    config |= dict(vocab_size=320, hidden_size=64, intermediate_size=96, num_hidden_layers=2)
    config |= dict(num_attention_heads=4, num_key_value_heads=2, bos_token_id=0, eos_token_id=0, pad_token_id=0)
    config |= dict(original_max_position_embeddings=512, max_position_embeddings=4096)
    config["rope_scaling"] = {"type": "longrope", "short_factor": [1.0] * 6, "long_factor": [1.0, 1.5, 2, 3, 4, 6]}
    config["vision_lora"] = config["speech_lora"] = {"r": 8, "lora_alpha": 16}
    config["embd_layer"]["image_embd_layer"] = {
        "crop_size": 448,
        "img_processor": phi4mm.SIGLIP
        | dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2),
    }
    config["audio_processor"]["config"] |= dict(
        attention_dim=32,
        attention_heads=2,
        num_blocks=2,
        linear_units=48,
        nemo_conv_settings={"conv_channels": 16},
        ext_pw_out_channel=32,
        depthwise_seperable_out_channel=32,
    )
    return config


def load(config, added_tokens=None):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        if added_tokens:
            (Path(folder) / "tokenizer.json").write_text(json.dumps({"added_tokens": added_tokens}))
        return phi4mm.load_config(folder)


def close(got, want, tolerance=1e-4):
    got, want = torch.as_tensor(got), torch.as_tensor(want)
    error = (got - want).abs().max().item()
    assert got.shape == want.shape and error <= tolerance, (got, want)


def check_released_shapes():
    with torch.device("meta"):
        model = phi4mm.build(load(released_config()))
        state = phi4mm.orig_state(model)
    assert sum(t.numel() for t in state.values()) == 5_574_460_384
    assert sum(n.startswith(phi4mm.AUDIO) for n in state) == 887
    assert state["model.layers.31.mlp.gate_up_proj.lora_B.speech.weight"].shape == (16384, 320)
    assert state[phi4mm.AUDIO + "encoder.encoders.23.feed_forward_in.net.0.linear.weight"].shape == (3072, 1024)


def check_rope():
    config = load(released_config())
    rope = phi4mm.hf.Phi4MultimodalRotaryEmbedding(config)
    close(rope.attention_scaling, 1.1902380714)
    close(rope.inv_freq[[0, 1, 23]], [1.0, 0.8254041853, 0.01211527659], 1e-7)
    rope(torch.zeros(1), torch.tensor([[4095]]))
    close(rope.inv_freq[[1, 47]], [0.8254041853, 1.211527659e-4], 1e-7)
    rope(torch.zeros(1), torch.tensor([[4096]]))
    close(rope.inv_freq[[1, 23, 47]], [0.7380746918, 9.253525321e-4, 2.536168429e-6], 1e-7)


def check_log_mel():
    close(mel_filters()[1, 0], 0.575650)
    close(mel_filters()[54:59, 40], [0.012901, 0.436996, 0.855646, 0.731009, 0.322838])
    assert mel_filters()[:, 79].nonzero().flatten().tolist() == list(range(231, 246))
    n = torch.arange(16000, dtype=torch.float64)
    mel = log_mel(0.5 * torch.sin(2 * torch.pi * 440 * n / 16000))
    assert mel.shape == (98, 80)
    want = "11.4617 12.0308 12.8103 13.1932 12.3140 11.6078 12.4549 13.7383 14.4123 14.1660 11.4922 12.3908"
    close(mel[0, :12], [float(x) for x in want.split()], 1e-3)
    close(mel[0, [20, 40, 60, 79]], [15.8796, 13.4962, 12.3488, 12.1886], 1e-3)
    close(mel[1, [0, 1, 2, 3, 79]], [13.6488, 14.1418, 14.8628, 14.8498, 11.6814], 1e-3)
    mel = log_mel(0.5 * torch.sin(2 * torch.pi * 440 * n[:8000] / 8000), 8000)
    close(mel[0, [0, 1, 2, 3, 58, 59, 60, 79]], [11.6381, 12.0468, 12.6931, 13.3152, 12.9020, 12.9060, 12.9575, 0.0], 1e-3)


def check_layout():
    for size, grid, resized, pad, tokens in [
        ((448, 448), (1, 1), (448, 448), (0, 0), 545),
        ((449, 449), (2, 2), (896, 896), (0, 0), 1329),
        ((640, 480), (2, 2), (896, 672), (0, 224), 1065),
        ((1024, 768), (3, 2), (1194, 896), (150, 0), 1681),
        ((1280, 720), (3, 2), (1344, 756), (0, 140), 1596),
        ((1920, 1080), (5, 3), (2240, 1260), (0, 84), 3918),
        ((3000, 2000), (7, 5), (3136, 2090), (0, 150), 8748),
        ((4000, 3000), (4, 3), (1792, 1344), (0, 0), 3393),
        ((3024, 4032), (3, 4), (1344, 1792), (0, 0), 3409),
        ((100, 1000), (1, 3), (134, 1344), (314, 0), 561),
        ((5000, 1000), (12, 3), (5376, 1075), (0, 269), 7800),
    ]:
        assert layout(*size, 448) == (grid, resized, pad), size
        assert tile(picture(*size)).tokens == tokens, size


def picture(width, height):
    return Image.radial_gradient("L").resize((width, height)).convert("RGB")


def check_against_port():
    """The same prompt through the port's own forward pass, both modalities, and the wrapper."""
    torch.manual_seed(0)
    added = [{"content": "<|endoftext10|>", "id": 10}, {"content": "<|endoftext11|>", "id": 11}]
    model = phi4mm.build(load(small_config(), added))
    tiles = tile(picture(600, 500))
    mel = 3 * torch.rand(203, 80)
    ids = torch.tensor([5, 6] + [10] * tiles.tokens + [11] * 26 + [7])
    for module in model.modules():
        getattr(module, "config", model.config)._attn_implementation = "eager"
    with torch.no_grad():
        want = model(
            input_ids=ids[None],
            image_pixel_values=tiles.pixels[None],
            image_sizes=torch.tensor([tiles.size]),
            image_attention_mask=tiles.mask[None].float(),
            audio_input_features=mel[None],
            audio_embed_sizes=torch.tensor([26]),
        ).logits[0]
        for module in model.modules():
            getattr(module, "config", model.config)._attn_implementation = "sdpa"
        images, audios, mode = phi4mm.encode(model, [tiles], [mel])
        embeds = phi4mm.merge(model, ids, images, audios)
        got = phi4mm.logits(model, phi4mm.forward(model, embeds[None]))[0]
        assert mode == "vision_speech"
        close(got, want, 1e-4)


def check_batching():
    """Padded batches, the KV cache and the batched generation change nothing."""
    torch.manual_seed(1)
    model = phi4mm.build(load(small_config()))
    audio = model.model.embed_tokens_extend.audio_embed
    mels = [3 * torch.rand(n, 80) for n in (97, 8, 203)]
    with torch.no_grad():
        for together, clip in zip(phi4mm.encode_audios(audio, mels), mels):
            close(together, phi4mm.encode_audios(audio, [clip])[0], 1e-5)
        embeds = [phi4mm.merge(model, torch.randint(0, 320, (n,))) * 40 for n in (5, 17)]
        whole = phi4mm.forward(model, embeds[1][None])
        cache = DynamicCache(config=model.config)
        parts = [phi4mm.forward(model, e[None], cache) for e in embeds[1].split([9, 7, 1])]
        close(torch.cat(parts, 1), whole, 1e-4)
    alone = [phi4mm.generate(model, e, 12, (0,)) for e in embeds]
    assert phi4mm.generate_batch(model, embeds, 12, (0,)) == alone


def check_round_trip():
    torch.manual_seed(2)
    model, other = phi4mm.build(load(small_config())), phi4mm.build(load(small_config()))
    with tempfile.TemporaryDirectory() as folder:
        phi4mm.save_orig(model, folder, torch.float32)
        phi4mm.load_orig(other, folder)
        audio = phi4mm.load_orig(phi4mm.build_audio(model.config), folder)
        assert json.loads((Path(folder) / "config.json").read_text()) == small_config()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name
    weight = "encoder.encoders.1.conv.glu.b1"
    assert torch.equal(audio.state_dict()[weight], model.model.embed_tokens_extend.audio_embed.state_dict()[weight])


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("check_"):
            check()
            print("ok", name.removeprefix("check_").replace("_", " "), flush=True)
