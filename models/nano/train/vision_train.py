"""Stages B and C: the decoder's vision adapter and the image projector learn to read; a spoken question is understood as well.

1. `read`: the adapter learns the order of reading on pictures that are not even drawn: where a tile would show a character,
   a learned row stands for it (`Ideal`). Cheap, and independent of the tower.
2. `match`: the image projector learns to give, for the tower's features, the rows that `Ideal` would give.
3. `tune`: tower, projector and adapter on real pictures; the tower keeps its own lesson beside the answers'.

A fifth of the samples ask by (ideal) voice instead of in writing, and `save` gives the second audio projector the weights of
the speech projector, which speaks in mixtures of token embeddings as well: so pictures with a spoken question need no stage
of their own. Each stage writes `$NANO_WORK/vision/vision.safetensors` (released names) and a state to go on from.
"""

import argparse
import json
import random
import time
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

import attention
import base_lm
import dialogue
import phi4mm
import text_data
import vision_data as data
import vision_eval
import vision_fonts as fonts
import vision_pretrain as pretrain
import vision_render as render
from features import Tiles, layout, tile, useful
from vision_pages import page

NO_TEXT = "NO TEXT"
HEAD, TAIL = "<|user|>", text_data.READ_TEXT + "<|end|><|assistant|>"
GRIDS = [(1, 1), (2, 1), (1, 2), (2, 2)]
SMALL = [0.82, 0.07, 0.05, 0.06]  # shares of the grids while reading is being learned
MIXED = [0.55, 0.2, 0.1, 0.15]


def work():
    return fonts.work_dir() / "vision"


class Ideal(nn.Module):
    """What a perfect tower and projector would say of each pooled cell: the sum of learned rows, one for each (slot, character)
    and one for the cell's place in its tile, which the tower's positions tell."""

    def __init__(self, hidden):
        super().__init__()
        self.rows = nn.Parameter(torch.randn(data.SLOTS, pretrain.CLASSES, hidden) * 0.02)
        self.places = nn.Parameter(torch.zeros(data.CELLS**2, hidden))
        self.sub_end = nn.Parameter(torch.randn(hidden) * 0.02)
        self.middle = nn.Parameter(torch.randn(hidden) * 0.02)

    @torch.no_grad()
    def start_from(self, embeddings, ids, blank):
        """A character's rows start as its token's embedding, a little different in every slot; an empty cell as the placeholder's."""
        for kind, token in ids.items():
            self.rows[:, kind] += embeddings[token] - embeddings[blank]
        self.rows[:, 0] = embeddings[blank] / data.SLOTS
        for kind in ids:
            self.rows[:, kind] += embeddings[blank] / data.SLOTS

    @torch.no_grad()
    def fit(self, labels, places, rows):
        """The rows under which the given cells [n, 8], [n] come closest to what a projector makes of them, [n, hidden]."""
        classes = self.rows.shape[1]
        x = torch.cat([F.one_hot(labels.long().clamp(min=0), classes).flatten(1), F.one_hot(places, len(self.places))], 1).float()
        gram = x.T @ x + 3.0 * torch.eye(x.shape[1])
        best = torch.linalg.solve(gram, x.T @ rows)
        self.rows.copy_(best[: -len(self.places)].reshape(self.rows.shape))
        self.places.copy_(best[-len(self.places) :])

    def cells(self, labels, places):
        """[..., 8] classes and [...] places -> [..., hidden]; unreadable characters count as none."""
        table = self.rows.flatten(0, 1)
        index = labels.long().clamp(min=0) + torch.arange(data.SLOTS) * pretrain.CLASSES
        said = F.embedding_bag(index.flatten(0, -2), table, mode="sum").reshape(*labels.shape[:-1], -1)
        return said + self.places[places]

    def guessed(self, guesses, places):
        """As `cells`, of what a tower may guess (`vision_data.guesses`): [n, 64] places -> [n, 64, hidden]."""
        cell, slot, kind, share = (torch.from_numpy(column) for column in guesses)
        rows = self.rows - self.rows[:, :1]
        said = rows[slot, kind.long()] * share[:, None].float()
        still = self.rows[:, 0].sum(0) + self.places[places].flatten(0, 1)
        return still.index_add(0, cell, said).reshape(*places.shape, -1)

    def as_embed(self):
        return SimpleNamespace(crop_size=render.BASE, sub_img_feature_extensor=self.sub_end, global_img_feature_extensor=self.middle)


def places_of(masks):
    """[n, 64] places of the pooled cells of tiles: where the tower's stretched positions put them."""
    ids = phi4mm.position_ids(masks).reshape(len(masks), 16, 16)[:, ::2, ::2]
    return (ids // 16 // 2 * data.CELLS + ids % 16 // 2).flatten(1)


def bare_tiles(size):
    """The masks of a picture's tiles, without pixels."""
    (cols, rows), _, (pad_w, pad_h) = layout(*size, render.BASE, render.MAX_CROPS)
    side = render.BASE // 14
    mask = torch.ones(side * rows, side * cols, dtype=torch.bool)
    if pad_w >= 14:
        mask[:, -(pad_w // 14) :] = False
    if pad_h >= 14:
        mask[-(pad_h // 14) :, :] = False
    height, width = useful(mask)
    masks = mask.reshape(rows, side, cols, side).permute(0, 2, 1, 3).reshape(-1, side, side)
    masks = torch.cat([torch.ones(1, side, side, dtype=torch.bool), masks])
    return Tiles(None, masks, (render.BASE * rows, render.BASE * cols), 73 + height * (width + 1))


class Reader:
    """The whole model with the base frozen, and what this file trains."""

    def __init__(self):
        base = fonts.work_dir() / "base"
        config = phi4mm.load_config(base)
        self.model = phi4mm.build(config)
        self.load_base(base)
        for p in self.model.parameters():
            p.requires_grad_(False)
        extend = self.model.model.embed_tokens_extend
        self.image, self.audio = extend.image_embed, extend.audio_embed
        self.tower = pretrain.Reader(config)
        self.ideal = Ideal(config.hidden_size)
        self.ideal.start_from(self.model.model.embed_tokens.weight, {k: dialogue.encode(c)[0] for c, k in render.CLASSES.items()}, dialogue.encode(text_data.IMAGE)[0])
        self.adapter = {n: p for n, p in self.model.named_parameters() if ".vision.weight" in n}
        phi4mm.set_adapter(self.model, "vision")
        attention.use(self.model)
        attention.use_in_tower(self.image.img_processor)
        self.started = False

    def start_from(self, file):
        """Goes on from the picture parts of a `model.safetensors`."""
        pretrain.start_from(self.model, file)
        self.started = True

    def load_base(self, base):
        """The finished base decoder, or as far as its training has come."""
        self.base_done = (base / "model.safetensors").exists()
        if self.base_done:
            stored = load_file(base / "model.safetensors")
            for name, tensor in phi4mm.orig_state(self.model).items():
                if name in stored and "lora" not in name and "extend" not in name:
                    tensor.data.copy_(stored[name])
        elif (base / "state.pt").exists():
            state = torch.load(base / "state.pt", weights_only=True)["module"]
            keep = {k: v for k, v in state.items() if "lora" not in k and "extend" not in k}
            self.model.load_state_dict(keep, strict=False)

    def follow_base(self):
        """Takes over what the base has become since, while its own training still runs."""
        if not self.base_done:
            self.load_base(fonts.work_dir() / "base")

    def load_tower(self):
        if not (work() / "pretrain.pt").exists():
            return  # then it is the one that `--start` gave
        kept = torch.load(work() / "pretrain.pt", weights_only=True)["reader"]
        self.tower.load_state_dict(kept)
        self.image.img_processor.load_state_dict(self.tower.image_embed.img_processor.state_dict())

    def parts(self):
        """Name -> parameters of everything trained here."""
        projector = {n: p for n, p in self.image.named_parameters() if "img_processor" not in n}
        tower = dict(self.image.img_processor.named_parameters())
        head = dict(self.tower.head.named_parameters())
        return dict(adapter=self.adapter, ideal=dict(self.ideal.named_parameters()), projector=projector, tower=tower, head=head)

    @torch.no_grad()
    def borrow_ears(self):
        """The projector for speech beside a picture starts as the one for speech alone."""
        for file in (f for stage in ("speech", "joint") for f in sorted((fonts.work_dir() / stage).glob("*.safetensors"))):
            stored = load_file(file)
            for name, tensor in phi4mm.orig_state(self.audio).items():
                twin = name.replace("audio_projection.vision.", "audio_projection.speech.")
                if "audio_projection.vision." in name and twin in stored:
                    tensor.copy_(stored[twin])

    def save(self, stage, steps):
        self.borrow_ears()
        kept = {k: {n: p.detach() for n, p in v.items()} for k, v in self.parts().items() if k not in ("tower", "head") or stage == "tune"}
        torch.save(dict(parts=kept, steps=steps), work() / "tmp.pt")
        (work() / "tmp.pt").rename(work() / f"{stage}.pt")
        state = phi4mm.orig_state(self.model)
        wanted = {n: t for n, t in state.items() if "image_embed." in n or ".vision.weight" in n or "audio_projection.vision." in n}
        save_file({n: t.detach().float().contiguous().clone() for n, t in wanted.items()}, work() / "vision.tmp")
        (work() / "vision.tmp").rename(work() / "vision.safetensors")

    @torch.no_grad()
    def load(self, stage):
        """The trained parts of a stage, if it has run; returns its steps."""
        if not (work() / f"{stage}.pt").exists():
            return None
        kept = torch.load(work() / f"{stage}.pt", weights_only=True)
        for name, part in self.parts().items():
            for key, p in part.items() if name in kept["parts"] else ():
                p.copy_(kept["parts"][name][key])
        return kept["steps"]

    # ---------------------------------------------------------------------------------------------- rows of pictures

    def ideal_rows(self, scene, rng):
        tiles = bare_tiles(scene.image.size)
        cells = self.ideal.guessed(data.guesses(scene, rng), places_of(tiles.mask))
        return phi4mm.separate(self.ideal.as_embed(), cells.unflatten(1, (data.CELLS, data.CELLS)), tiles)

    def pooled(self, tiles):
        with torch.autocast("cpu", torch.bfloat16):
            return [p.float() for p in phi4mm.pooled_features(self.image, tiles)]

    def tower_loss(self, pooled, scenes):
        """The tower's own lesson on the tiles of pictures: which character is where."""
        scores = self.tower.head(torch.cat(pooled).flatten(1, 2)).reshape(-1, data.CELLS**2, data.SLOTS, pretrain.CLASSES)
        return pretrain.loss_of(scores, torch.cat([data.scene_labels(s) for s in scenes]))

    @torch.no_grad()
    def pooled_tiles(self, pixels, masks):
        """Prepared tiles -> [n, 64, dim]."""
        with torch.autocast("cpu", torch.bfloat16):
            x = phi4mm.vision_tower(self.image.img_processor, pixels, masks).permute(0, 3, 1, 2)
        return F.avg_pool2d(x.float(), 2).flatten(2).transpose(1, 2)

    def projected(self, x):
        return self.image.img_projection_down(F.gelu(self.image.img_projection_up(x)))

    def project(self, pooled, tiles):
        return self.projected(phi4mm.separate(self.image, pooled, tiles))

    @torch.no_grad()
    def ideal_from_projector(self, batches=40):
        """The ideal rows start as what tower and projector already say, so that an adapter that is used to them can go on."""
        stream, seen = pretrain.Stream(np.random.default_rng(51), 32), []
        for _ in range(batches):
            pixels, masks, labels = stream.next()
            seen.append((labels.flatten(0, 1), places_of(masks).flatten(), self.projected(self.pooled_tiles(pixels, masks)).flatten(0, 1)))
        self.ideal.fit(*(torch.cat(x) for x in zip(*seen)))
        ends = self.projected(torch.stack([self.image.sub_img_feature_extensor.flatten(), self.image.global_img_feature_extensor.flatten()]))
        self.ideal.sub_end.copy_(ends[0])
        self.ideal.middle.copy_(ends[1])

    def picture_rows(self, images):
        tiles = [tile(i, render.BASE, render.MAX_CROPS) for i in images]
        return [self.project(p, t) for p, t in zip(self.pooled(tiles), tiles)]

    # -------------------------------------------------------------------------------------------------------- answers

    @torch.no_grad()
    def answers(self, rows):
        samples = [dialogue.Sample(dialogue.text(HEAD), dialogue.rows(r), dialogue.text(TAIL)) for r in rows]
        with torch.autocast("cpu", torch.bfloat16):
            return [a.removesuffix("<|end|>") for a in dialogue.reply(self.model, samples, max_new=24)]

    def read(self, images):
        """Pictures -> texts, as the finished model would."""
        out = []
        for i in range(0, len(images), 16):
            with torch.no_grad():
                rows = self.picture_rows(images[i : i + 16])
            out += self.answers(rows)
        return out


def load_reader():
    reader = Reader()
    reader.load_tower()
    for stage in ("read", "match", "tune"):
        reader.load(stage)
    return reader


QUESTIONS = ["what does the sign say", "read the label", "what is written there"]


def sample(rows, scene, questions):
    """A chat about one picture: the written task, or now and then a question as the speech projector would give it."""
    if questions.random() < 0.2:
        words = questions.choice(QUESTIONS)
        polite = questions.choice(["", "", "", "please ", "hey ", "could you tell me "])
        asked = [(base_lm.heard(questions, polite + words), False), dialogue.text("<|end|><|assistant|>")]
        return dialogue.Sample(dialogue.text(HEAD), dialogue.rows(rows), *asked, dialogue.answer(f"{scene.text or NO_TEXT}<|end|>"))
    return dialogue.Sample(dialogue.text(HEAD), dialogue.rows(rows), dialogue.text(TAIL), dialogue.answer(f"{scene.text or NO_TEXT}<|end|>"))


def draw_scene(rng, grid, draw, effort=1.0):
    """A picture for training."""
    if rng.random() < 0.1:
        if draw:
            return render.empty_scene(rng, grid)
        return render.Scene(render.Image.new("RGB", render.frame_size(rng, grid)), "")
    return render.sign_scene(rng, fonts.TRAIN, grid, effort, draw=draw)


def train(reader, stage, groups, step_loss, until, evaluate, every=100):
    """AdamW with a rate that falls to zero at a time of day."""
    for group in groups:
        for p in group["params"]:
            p.requires_grad_(True)
    matrices, others = ([{**g, "params": kept} for g in groups if (kept := [p for p in g["params"] if (p.ndim == 2) == flat])] for flat in (True, False))
    optimizers = [torch.optim.Muon(matrices, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")]
    if others:
        optimizers.append(torch.optim.AdamW(others, weight_decay=0.0, betas=(0.9, 0.98)))
    kept_rates = [(group, group["lr"]) for o in optimizers for group in o.param_groups]
    begin, end = time.time(), pretrain.deadline(until)
    step, running, saved = reader.load(stage) or 0, [], time.time()
    parameters = [p for g in groups for p in g["params"]]
    while time.time() < end:
        for group, peak in kept_rates:
            group["lr"] = pretrain.rate(peak, begin, end, warm=30)
        loss = step_loss()
        for p in parameters:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in optimizers:
            optimizer.step()
        step += 1
        running.append(loss.item())
        if step % 20 == 0:
            print(stage, step, round(float(np.mean(running[-20:])), 3), flush=True)
        if step % every == 0:
            line = dict(stage=stage, step=step, seconds=round(time.time() - begin), loss=round(float(np.mean(running)), 4)) | evaluate()
            print(json.dumps(line), flush=True)
            with open(work() / "curve.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            running = []
        if time.time() - saved > 120:
            reader.save(stage, step)
            reader.follow_base()
            saved = time.time()
    reader.save(stage, step)


def read_stage(reader, until, batch, peak):
    if reader.load("read") is None and reader.started:
        reader.ideal_from_projector()
    questions = random.Random(6)
    rng, held = np.random.default_rng([21, int(time.time())]), np.random.default_rng(3)
    test = [draw_scene(held, GRIDS[held.choice(4, p=MIXED)], draw=False) for _ in range(48)]
    begin, end = time.time(), pretrain.deadline(until)

    def step_loss():
        grid, progress = GRIDS[rng.choice(4, p=SMALL)], (time.time() - begin) / (end - begin)
        count = batch if grid == (1, 1) else batch // 2
        most_lines = 6 if rng.random() < 1.0 - progress else 3
        scenes = [page(rng, grid, most_lines) if rng.random() < 0.9 - 0.6 * progress else draw_scene(rng, grid, draw=False) for _ in range(count)]
        with torch.autocast("cpu", torch.bfloat16):
            return dialogue.loss(reader.model, [sample(reader.ideal_rows(s, rng), s, questions) for s in scenes])

    def evaluate():
        with torch.no_grad():
            noise = np.random.default_rng(4)
            got = reader.answers([reader.ideal_rows(s, noise) for s in test])
        want = [s.text or NO_TEXT for s in test]
        print([pair for pair in zip(want, got) if pair[0] != pair[1]][:6])
        return dict(exact=round(float(np.mean([w == g for w, g in zip(want, got)])), 3), cer=round(sum(map(vision_eval.edits, want, got)) / sum(map(len, want)), 3))

    groups = [{"params": list(reader.adapter.values()), "lr": peak}, {"params": list(reader.ideal.parameters()), "lr": peak}]
    train(reader, "read", groups, step_loss, until, evaluate, every=100)


def match_stage(reader, until, batch, peak):
    reader.load("read")
    reader.load_tower()
    rng = np.random.default_rng(31)
    stream, scale = pretrain.Stream(rng, batch), reader.ideal.rows.detach().std()

    def step_loss():
        pixels, masks, labels = stream.next()
        pooled, image = reader.pooled_tiles(pixels, masks), reader.image
        ends = [(image.sub_img_feature_extensor, reader.ideal.sub_end), (image.global_img_feature_extensor, reader.ideal.middle)]
        given = torch.cat([pooled.flatten(0, 1), *[e.reshape(1, -1).repeat(20, 1) for e, _ in ends]])
        wanted = torch.cat([reader.ideal.cells(labels, places_of(masks)).flatten(0, 1), *[w[None].repeat(20, 1) for _, w in ends]]).detach()
        got = reader.projected(given)
        weight = torch.cat([torch.where((labels.flatten(0, 1) > 0).any(-1), 1.0, 0.15), torch.full((40,), 0.3)])
        return (((got - wanted) / scale) ** 2).mean(-1).mul(weight).mean()

    test = vision_eval.drawn(42)
    groups = [{"params": list(reader.parts()["projector"].values()), "lr": peak}]
    train(reader, "match", groups, step_loss, until, lambda: vision_eval.score(reader.read, test), every=300)


def tune_stage(reader, until, batch, peak):
    reader.load_tower()
    if reader.load("tune") is None and reader.load("match") is None:
        reader.load("read")
    questions = random.Random(7)
    rng = np.random.default_rng([41, int(time.time())])

    def step_loss():
        grid = GRIDS[rng.choice(4, p=MIXED)]
        scenes = [draw_scene(rng, grid, draw=True, effort=rng.uniform(0.3, 1.0)) for _ in range(batch if grid == (1, 1) else batch // 2)]
        tiles = [tile(s.image, render.BASE, render.MAX_CROPS) for s in scenes]
        pooled = reader.pooled(tiles)
        with torch.autocast("cpu", torch.bfloat16):
            answers = dialogue.loss(reader.model, [sample(reader.project(p, t), s, questions) for p, t, s in zip(pooled, tiles, scenes)])
        return answers + reader.tower_loss(pooled, scenes)

    test, empty = vision_eval.drawn(56), vision_eval.drawn(14, empty=True)

    def evaluate():
        seen = vision_eval.score(reader.read, test, show=4)
        return seen | {"no_text": vision_eval.score(reader.read, empty)["exact"]}

    parts = reader.parts()
    groups = [{"params": list(parts[name].values()), "lr": peak} for name in ("adapter", "projector", "tower", "head")]
    train(reader, "tune", groups, step_loss, until, evaluate, every=150)


def main():
    stages = {"read": read_stage, "match": match_stage, "tune": tune_stage}
    parser = argparse.ArgumentParser()
    parser.add_argument("stage", choices=[*stages])
    parser.add_argument("--until", required=True, help="HH:MM")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak", type=float, default=1e-3)
    parser.add_argument("--start", help="go on from the picture parts of this model.safetensors")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(2)
    random.seed(2)
    reader = Reader()
    if args.start:
        reader.start_from(args.start)
    stages[args.stage](reader, args.until, args.batch, args.peak)


if __name__ == "__main__":
    main()
