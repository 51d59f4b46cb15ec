"""Phi-4-multimodal in small: the reference modules of `transformers`, the released checkpoint's names and semantics.

`transformers` ships a port of the model whose modules compute the same things under other names, without LoRA, and
with a few different details around them. Here the port's modules are kept, and the parts around them are plain
functions that follow the checkpoint: masks, position ids, separators, projector by mode, adapters, rope regime.
Everything is differentiable, and every function works on batches of what it needs only, so that a trainer can run one encoder alone.
"""

import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import DynamicCache, Phi4MultimodalConfig, Phi4MultimodalForCausalLM
from transformers.models.phi4_multimodal import modeling_phi4_multimodal as hf

from features import MAX_CROPS, Tiles, tile, useful

SEGMENT = 500  # frames of 80 ms that the conformer attends over at once
SIGLIP = dict(
    hidden_size=1152,
    intermediate_size=4304,
    num_hidden_layers=27,
    num_attention_heads=16,
    image_size=448,
    patch_size=14,
    layer_norm_eps=1e-6,
)
ADAPTER = {"text": None, "vision": "vision", "speech": "speech", "vision_speech": "vision"}
PROJECTOR = {"speech": "speech", "vision_speech": "vision"}


# ---------------------------------------------------------------------------------------------------- configuration


def load_config(path) -> Phi4MultimodalConfig:
    """Reads the checkpoint's `config.json`; `path` is the file or its folder."""
    path = Path(path)
    path = path / "config.json" if path.is_dir() else path
    orig = json.loads(path.read_text())
    image, audio = orig["embd_layer"]["image_embd_layer"], orig["audio_processor"]["config"]
    image_id, audio_id = _placeholder_ids(path.with_name("tokenizer.json"))
    bias = audio["relative_attention_bias_args"]
    keys = """vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads
        hidden_act max_position_embeddings original_max_position_embeddings rms_norm_eps
        bos_token_id eos_token_id pad_token_id""".split()
    config = Phi4MultimodalConfig(
        **{k: orig[k] for k in keys},
        tie_word_embeddings=True,
        sliding_window=None,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": orig["rope_theta"],
            "partial_rotary_factor": orig["partial_rotary_factor"],
            "short_factor": orig["rope_scaling"]["short_factor"],
            "long_factor": orig["rope_scaling"]["long_factor"],
            "factor": orig["max_position_embeddings"] / orig["original_max_position_embeddings"],
        },
        vision_config=dict(
            **(image["img_processor"] or SIGLIP), crop_size=image["crop_size"], image_token_id=image_id
        ),
        audio_config=dict(
            hidden_size=audio["attention_dim"],
            num_attention_heads=audio["attention_heads"],
            num_blocks=audio["num_blocks"],
            intermediate_size=audio["linear_units"],
            kernel_size=audio["kernel_size"],
            input_size=audio["input_size"],
            time_reduction=audio["time_reduction"],
            nemo_conv_channels=audio["nemo_conv_settings"]["conv_channels"],
            ext_pw_out_channel=audio["ext_pw_out_channel"],
            depthwise_separable_out_channel=audio["depthwise_seperable_out_channel"],
            bias_max_distance=bias["t5_bias_max_distance"],
            audio_token_id=audio_id,
        ),
    )
    config._attn_implementation = "sdpa"
    config.orig = orig
    return config


def cut(config, image) -> Tiles:
    """Tiles of a PIL image, by the config's crop size and limit of crops."""
    image_config = config.orig["embd_layer"]["image_embd_layer"]
    return tile(image, image_config["crop_size"], image_config.get("dynamic_hd", MAX_CROPS))


def _placeholder_ids(tokenizer_json):
    if not tokenizer_json.exists():
        return 200010, 200011
    added = {t["content"]: t["id"] for t in json.loads(tokenizer_json.read_text())["added_tokens"]}
    return added["<|endoftext10|>"], added["<|endoftext11|>"]


# ------------------------------------------------------------------------------------------------------------ model


class LoraLinear(nn.Module):
    """A linear layer without bias and its adapters; the parameter names are the checkpoint's."""

    def __init__(self, base: nn.Linear, adapters: dict):
        super().__init__()
        self.base_layer = base
        shape = {name: (base.in_features, base.out_features, a["r"]) for name, a in adapters.items()}
        self.lora_A = nn.ModuleDict({n: nn.Linear(i, r, bias=False) for n, (i, _, r) in shape.items()})
        self.lora_B = nn.ModuleDict({n: nn.Linear(r, o, bias=False) for n, (_, o, r) in shape.items()})
        self.scaling = {name: a["lora_alpha"] / a["r"] for name, a in adapters.items()}
        self.dropout = {name: a.get("dp", 0.0) for name, a in adapters.items()}
        self.active, self.composed = None, False

    def forward(self, x):
        if self.composed:  # one product of the sum: cheaper in training, where dropout is none and rows are many
            down, up = self.lora_A[self.active].weight, self.lora_B[self.active].weight
            return F.linear(x, (self.base_layer.weight + self.scaling[self.active] * (up @ down)).to(x.dtype))
        y = self.base_layer(x)
        if self.active is None:
            return y
        down = self.lora_A[self.active](F.dropout(x, self.dropout[self.active], self.training))
        return y + self.scaling[self.active] * self.lora_B[self.active](down)


def build(config) -> Phi4MultimodalForCausalLM:
    """The whole model with LoRA linears and sane random weights (the adapters start as no-ops)."""
    model = Phi4MultimodalForCausalLM(config)
    adapters = {"vision": config.orig["vision_lora"], "speech": config.orig["speech_lora"]}
    for layer in model.model.layers:
        for parent, names in ((layer.self_attn, ("qkv_proj", "o_proj")), (layer.mlp, ("gate_up_proj", "down_proj"))):
            for name in names:
                setattr(parent, name, LoraLinear(getattr(parent, name), adapters))
    model.model.embed_tokens.padding_idx = None
    _init_weights(model)
    return _ready(model)


def build_audio(config) -> hf.Phi4MultimodalAudioEmbedding:
    """The conformer (`.encoder`) and its projectors alone."""
    return _ready(_init_weights(hf.Phi4MultimodalAudioEmbedding(config)))


def build_image(config) -> hf.Phi4MultimodalImageEmbedding:
    """The vision tower (`.img_processor`), separators and projector alone."""
    return _ready(_init_weights(hf.Phi4MultimodalImageEmbedding(config)))


def _ready(model):
    for module in model.modules():
        if isinstance(module, (hf.Phi4MultimodalVisionAttention, hf.Phi4MultimodalAudioAttention)):
            module.is_causal = False  # the port would let SDPA run causally where no mask is given
    return model.eval()


@torch.no_grad()
def _init_weights(model):
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.LayerNorm)):
            module.reset_parameters()
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(std=0.02)
        elif isinstance(module, hf.Phi4MultimodalImageEmbedding):
            module.sub_img_feature_extensor.normal_(std=0.02)
            module.global_img_feature_extensor.normal_(std=0.02)
    for module in model.modules():
        for up in module.lora_B.values() if isinstance(module, LoraLinear) else ():
            up.weight.zero_()
    return model


def add_adapter(model, name, r, scaling=2.0):
    """One more adapter on every linear of the decoder, a no-op at first."""
    for module in model.modules():
        if isinstance(module, LoraLinear):
            base = module.base_layer
            module.lora_A[name] = nn.Linear(base.in_features, r, bias=False)
            module.lora_B[name] = nn.Linear(r, base.out_features, bias=False)
            nn.init.zeros_(module.lora_B[name].weight)
            module.scaling[name], module.dropout[name] = scaling, 0.0


def freeze_all_but(model, wanted):
    """The parameters whose names are wanted, to train in f32; all others are frozen and rounded to bf16, as they are exported."""
    chosen = []
    for name, parameter in model.bfloat16().named_parameters():
        parameter.requires_grad_(wanted(name))
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
            chosen.append(parameter)
    return chosen


def set_adapter(model, name, composed=False):
    """`None`, `"vision"` or `"speech"`, for all layers; `composed`: summed with the base weights on the fly."""
    for module in model.modules():
        if isinstance(module, LoraLinear):
            module.active, module.composed = name, composed and name is not None


def mode_of(images, audios):
    return {(0, 0): "text", (1, 0): "vision", (0, 1): "speech", (1, 1): "vision_speech"}[bool(images), bool(audios)]


# ----------------------------------------------------------------------------------------------------------- vision


def vision_tower(tower, pixels, mask=None):
    """[n, 3, s, s] crops and [n, side, side] patch masks -> [n, side, side, dim], of the last layer but one."""
    patches = tower.embeddings.patch_embedding(pixels)
    n, dim, side, _ = patches.shape
    if mask is None:
        mask = torch.ones(n, side, side, dtype=torch.bool)
    x = patches.flatten(2).transpose(1, 2) + tower.embeddings.position_embedding(position_ids(mask))
    keys = None if mask.all() else mask.reshape(n, 1, 1, side * side)
    if keys is not None:
        keys = keys.expand(-1, 1, side * side, -1)
    for layer in tower.encoder.layers[:-1]:
        x = layer(x, keys)
    return x.reshape(n, side, side, dim)


def position_ids(mask):
    """The valid part of each crop's mask, stretched over the whole table of positions; 0 elsewhere."""
    side = mask.shape[-1]
    steps = torch.arange(side)
    row = side * steps // mask[:, :, 0].sum(1, keepdim=True)
    col = side * steps // mask[:, 0, :].sum(1, keepdim=True)
    ids = side * row[:, :, None] + col[:, None, :]
    return torch.where(mask, ids, 0).flatten(1)


def pooled_features(image_embed, tiles: list) -> list:
    """The tower's features of each picture after 2x2 pooling: a list of [crops, side/2, side/2, dim]."""
    pixels, mask = torch.cat([t.pixels for t in tiles]), torch.cat([t.mask for t in tiles])
    features = vision_tower(image_embed.img_processor, pixels, mask)
    pooled = F.avg_pool2d(features.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    return list(pooled.split([len(t.pixels) for t in tiles]))


def separate(image_embed, pooled, tiles: Tiles):
    """One picture's pooled crops in reading order, with separators: sub rows, glb_GN, global rows."""
    base, side = image_embed.crop_size, pooled.shape[1]
    rows, cols = tiles.size[0] // base, tiles.size[1] // base
    dim = pooled.shape[-1]
    mask = tiles.mask[1:].reshape(rows, cols, 2 * side, 2 * side).permute(0, 2, 1, 3)
    height, width = useful(mask.reshape(rows * 2 * side, cols * 2 * side))
    sub = pooled[1:].reshape(rows, cols, side, side, dim).permute(0, 2, 1, 3, 4)
    sub = sub.reshape(rows * side, cols * side, dim)[:height, :width]
    row_end = image_embed.sub_img_feature_extensor.reshape(1, 1, dim)

    def with_ends(grid):
        return torch.cat([grid, row_end.expand(len(grid), 1, dim)], dim=1).reshape(-1, dim)

    glb = image_embed.global_img_feature_extensor.reshape(1, dim)
    return torch.cat([with_ends(sub), glb, with_ends(pooled[0])])


def encode_images(image_embed, tiles: list) -> list:
    """Pictures -> a list of [tokens, hidden]; one run of the tower for all."""
    out = []
    for t, pooled in zip(tiles, pooled_features(image_embed, tiles)):
        x = separate(image_embed, pooled, t)
        out.append(image_embed.img_projection_down(F.gelu(image_embed.img_projection_up(x))))
        assert len(x) == t.tokens, (len(x), t.tokens)
    return out


# ------------------------------------------------------------------------------------------------------------ audio


def conformer(encoder, mel, lengths=None):
    """[b, T, 80] log-mel -> [b, ceil(T/8), dim].

    `lengths` (frames of each clip of a padded batch) makes every clip come out as it would alone; rows beyond
    ceil(length/8) are meaningless. A clip alone, and any clip over 40 s, runs without mask, as the checkpoint does.
    """
    x = encoder.encoder_embedding(mel)[:, None]
    left = lengths
    for step in encoder.embed.conv:
        if left is not None and getattr(step, "stride", None) == (2, 2):
            x = x * (torch.arange(x.shape[2]) < left[:, None])[:, None, :, None]
            left = (left + 1) // 2
        x = step(x)
    x = encoder.embed.out(x.transpose(1, 2).flatten(2))
    batch, frames, dim = x.shape
    if frames > SEGMENT:
        assert batch == 1, "a clip over 40 s runs alone"
        x = F.pad(x, (0, 0, 0, -frames % SEGMENT)).reshape(-1, SEGMENT, dim)
    bias = encoder.relative_attention_bias_layer(x)
    if left is not None and frames <= SEGMENT:
        hidden = torch.arange(frames) >= left[:, None]
        bias = bias.masked_fill(hidden[:, None, None, :], float("-inf"))
    for layer in encoder.encoders:
        x = layer(x, bias)
    return x.reshape(batch, -1, dim)[:, :frames]


def project_audio(audio_embed, frames, projector="speech"):
    """`projector`: "speech", or "vision" where a picture is in the prompt too."""
    suffix = "speech" if projector == "speech" else "vision_speech"
    up, down = (getattr(audio_embed, f"{way}_proj_for_{suffix}") for way in ("up", "down"))
    return down(F.gelu(up(frames)))


def encode_audios(audio_embed, mels: list, projector="speech") -> list:
    """Clips of [T, 80] -> a list of [ceil(T/8), hidden]; one padded run for all that are under 40 s."""
    counts = [-(-len(m) // 8) for m in mels]
    if len(mels) == 1 or max(counts) > SEGMENT:
        frames = [conformer(audio_embed.encoder, m[None])[0] for m in mels]
    else:
        padded = nn.utils.rnn.pad_sequence(mels, batch_first=True)
        frames = conformer(audio_embed.encoder, padded, torch.tensor([len(m) for m in mels]))
        frames = [f[:n] for f, n in zip(frames, counts)]
    return [project_audio(audio_embed, f, projector) for f in frames]


# ---------------------------------------------------------------------------------------------------------- decoder


def encode(model, tiles=(), mels=()):
    """(image rows, audio rows, mode) of one prompt's media, for `merge`."""
    mode, extend = mode_of(tiles, mels), model.model.embed_tokens_extend
    images = encode_images(extend.image_embed, list(tiles)) if tiles else []
    audios = encode_audios(extend.audio_embed, list(mels), PROJECTOR[mode]) if mels else []
    return images, audios, mode


def merge(model, ids, images=(), audios=()):
    """Token ids [s] -> embeddings [s, hidden], placeholder rows taken from the media in order."""
    x = model.model.embed_tokens(ids)
    for token, rows in (
        (model.config.vision_config.image_token_id, images),
        (model.config.audio_config.audio_token_id, audios),
    ):
        places = (ids == token).nonzero()[:, 0]
        rows = torch.cat(list(rows)) if len(rows) else x[:0]
        if len(places) != len(rows):
            raise ValueError(f"{len(places)} placeholders {token} for {len(rows)} rows of media")
        x = x.index_put((places,), rows.to(x.dtype))
    return x


def forward(model, embeds, cache=None, valid=None):
    """[b, s, hidden] -> hidden states after the last norm.

    Right-padded batches need no mask (drop the padded rows from the loss). Left-padded ones give `valid`, [b, past + s] bool.
    """
    decoder = model.model
    past = cache.get_seq_length() if cache is not None else 0
    total = past + embeds.shape[1]
    positions, mask = torch.arange(past, total)[None], None
    if valid is not None:
        positions = (valid.cumsum(1) - 1).clamp(min=0)[:, past:]
    if valid is not None or (past and embeds.shape[1] > 1):
        mask = torch.ones(total, total, dtype=torch.bool).tril()[past:][None, None]
        if valid is not None:
            own = torch.eye(total, dtype=torch.bool)[past:]  # a padding row sees itself, so that it stays finite
            mask = mask & valid[:, None, None, :] | own
    rope = decoder.rotary_emb(embeds, positions)
    x = embeds
    for layer in decoder.layers:
        x = layer(x, mask, positions, cache, position_embeddings=rope)
    return decoder.norm(x)


def logits(model, hidden):
    return F.linear(hidden, model.model.embed_tokens.weight)


@torch.no_grad()
def generate(model, embeds, max_new=64, stop=()):
    """Greedy continuation of embeddings [s, hidden]; the stop token is the last one returned if it came.

    At the token that passes `original_max_position_embeddings` everything is recomputed with the long factors.
    """
    limit = model.config.original_max_position_embeddings
    out, cache, step = [], DynamicCache(config=model.config), embeds[None]
    everything = embeds[None]
    while True:
        if everything.shape[1] > limit and 0 < cache.get_seq_length() <= limit:
            cache, step = DynamicCache(config=model.config), everything
        hidden = forward(model, step, cache)
        token = int(logits(model, hidden[0, -1]).argmax())
        out.append(token)
        if len(out) == max_new or token in stop:
            return out
        step = model.model.embed_tokens(torch.tensor([[token]]))
        everything = torch.cat([everything, step], dim=1)


@torch.no_grad()
def generate_batch(model, embeds: list, max_new=64, stop=()) -> list:
    """`generate` for several prompts at once (left padding); all must stay in the short rope regime."""
    longest = max(len(e) for e in embeds)
    assert longest + max_new <= model.config.original_max_position_embeddings
    step = torch.stack([F.pad(e, (0, 0, longest - len(e), 0)) for e in embeds])
    valid = torch.stack([torch.arange(longest) >= longest - len(e) for e in embeds])
    cache, out, done = DynamicCache(config=model.config), [[] for _ in embeds], [False] * len(embeds)
    for _ in range(max_new):
        tokens = logits(model, forward(model, step, cache, valid)[:, -1]).argmax(-1)
        for i, token in enumerate(tokens.tolist()):
            if not done[i]:
                out[i].append(token)
                done[i] = token in stop
        if all(done):
            break
        step = model.model.embed_tokens(tokens[:, None])
        valid = F.pad(valid, (0, 1), value=True)
    return out


# ------------------------------------------------------------------------------------------------------- checkpoint

IMAGE = "model.embed_tokens_extend.image_embed."
AUDIO = "model.embed_tokens_extend.audio_embed."
_RENAMES = [
    (r"image_embed\.img_projection_up\.", "image_embed.img_projection.0."),
    (r"image_embed\.img_projection_down\.", "image_embed.img_projection.2."),
    (r"image_embed\.global_img_feature_extensor$", "image_embed.glb_GN"),
    (r"image_embed\.sub_img_feature_extensor$", "image_embed.sub_GN"),
    (r"(feed_forward_(?:in|out))\.gate_up_proj\.", r"\1.net.0.linear."),
    (r"(feed_forward_(?:in|out))\.down_proj\.", r"\1.net.2."),
    (r"(encoders\.\d+\.self_attn)\.([qkv])_proj\.", r"\1.linear_\2."),
    (r"(encoders\.\d+\.self_attn)\.o_proj\.", r"\1.linear_out."),
    (r"audio_embed\.up_proj_for_speech\.", "audio_embed.audio_projection.speech.0."),
    (r"audio_embed\.down_proj_for_speech\.", "audio_embed.audio_projection.speech.2."),
    (r"audio_embed\.up_proj_for_vision_speech\.", "audio_embed.audio_projection.vision.0."),
    (r"audio_embed\.down_proj_for_vision_speech\.", "audio_embed.audio_projection.vision.2."),
]


def orig_name(name):
    """A parameter's name in the released checkpoint."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _prefix(model):
    if isinstance(model, hf.Phi4MultimodalAudioEmbedding):
        return AUDIO
    return IMAGE if isinstance(model, hf.Phi4MultimodalImageEmbedding) else ""


def orig_state(model):
    """Checkpoint name -> tensor, of the whole model or of one encoder. The tied head is not in the file."""
    prefix, state = _prefix(model), {}
    for name, tensor in model.state_dict().items():
        if name != "lm_head.weight":
            state[orig_name(prefix + name)] = tensor
    return state


def save_orig(model, folder, dtype=torch.bfloat16):
    """Writes `model.safetensors` (and, of a whole model, `config.json`) into `folder`."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {n: t.detach().to(dtype).contiguous().clone() for n, t in orig_state(model).items()}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    if not _prefix(model):
        (folder / "config.json").write_text(json.dumps(model.config.orig, indent=2) + "\n")


@torch.no_grad()
def load_orig(model, folder):
    """Fills a model, or one encoder of it, from a folder's `*.safetensors`, in the model's own dtype."""
    stored = {}
    for file in sorted(Path(folder).glob("*.safetensors")):
        stored.update(load_file(file))
    for name, tensor in orig_state(model).items():
        tensor.copy_(stored[name])
    return model
