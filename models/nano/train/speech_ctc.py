"""The conformer learns to hear: CTC over the tokenizer's rows, `python speech_ctc.py [MINUTES]`.

The blank is the audio placeholder's row, so that the head's distribution over rows is a mixture of token embeddings that the
base decoder already understands. The head serves `speech_lora.py` as the projector's teacher and is not exported.
Words at known places come first (`speech_words.py`), then CTC on whole sentences, clean at first.
"""

import itertools
import sys

import jiwer
import torch
import torch.nn.functional as F
from torch import nn

import loop
import phi4mm
import speech_data
import speech_words
import text_data
import tokenizer
from work import folder

BATCH = 32
PLACED = 0.12  # share of the time for words of known places; CTC follows
HARDEST = 0.55  # share of the time after which the augmentation has its full strength
BLANK = tokenizer.load().token_to_id(text_data.AUDIO)
SETS = (("espeak", "heldout"), ("flite", "heldout"), ("kokoro", "heldout"), ("piper", "heldout"))


@torch.no_grad()
def lively(module):
    """Initial weights under which the signal keeps its size: torch's own let the biases drown it before the last block."""
    for part in module.modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d)):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu" if isinstance(part, nn.Conv2d) else "linear")
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        elif isinstance(part, nn.Embedding):
            nn.init.zeros_(part.weight)


class Recogniser(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.encoder = phi4mm.build_audio(config).encoder
        self.head = nn.Linear(config.audio_config.hidden_size, config.vocab_size)
        lively(self)
        for step in self.encoder.embed.conv.to(memory_format=torch.channels_last):
            step.forward = _in_f32(step.forward)

    def forward(self, mels, lengths):
        """Log-probabilities of the rows [b, frames, rows] and the count of frames of each clip."""
        frames = phi4mm.conformer(self.encoder, mels, lengths)
        return F.log_softmax(self.head(frames).float(), dim=-1), (lengths + 7) // 8


def _in_f32(forward):
    """Convolutions of few channels are fastest in f32 with the channels last."""

    def run(x):
        with torch.autocast("cpu", enabled=False):
            return forward(x.float().contiguous(memory_format=torch.channels_last))

    return run


def ids_of(words):
    return tokenizer.load_exact().encode(f" {words}").ids


def placed_loss(log_probs, labels):
    """Cross entropy against the known row of every frame."""
    return F.nll_loss(torch.cat([row[: len(ids)] for row, ids in zip(log_probs, labels)]), torch.cat(labels))


def ctc_loss(log_probs, targets, counts):
    """Mean over the clips of the loss a token."""
    sizes, flat = torch.tensor([len(t) for t in targets]), torch.tensor(sum(targets, []))
    loss = F.ctc_loss(log_probs.transpose(0, 1), flat, counts, sizes, BLANK, "none", zero_infinity=True)
    return (loss / sizes.clamp(min=1)).mean()


def greedy(log_probs, counts):
    out = []
    for rows, count in zip(log_probs.argmax(-1), counts):
        ids = torch.unique_consecutive(rows[:count])
        out.append(tokenizer.load().decode([i for i in ids.tolist() if i != BLANK]).strip())
    return out


@torch.no_grad()
def word_errors(model, limit=60):
    """Word error rate of greedy decoding on the evaluation sets there are."""
    model.eval()
    rates = {}
    for name, split in SETS:
        items = sorted(speech_data.evaluation(name, split, limit), key=lambda item: len(item[0]))
        said, heard = [], []
        for start in range(0, len(items), 20):
            part = items[start : start + 20]
            heard += greedy(*model(*speech_data.padded([mel for mel, _ in part])))
            said += [line["text"] for _, line in part]
        rates[f"{name}_wer"] = round(jiwer.wer(said, heard), 4) if said else None
    model.train()
    return rates


@torch.no_grad()
def normalise(encoder, voices):
    """Sets the mean and the inverse deviation of every mel bin, then makes the subsampling's layers give zero mean and unit deviation.

    Without the latter what all frames have in common drowns what tells them apart.
    """
    batches = [[mel for mel, _ in voices.batch(BATCH, 0.3)] for _ in range(20)]
    mels = torch.cat(sum(batches, []))
    encoder.encoder_embedding.global_mean.copy_(mels.mean(0))
    encoder.encoder_embedding.global_invstd.copy_(1.0 / mels.std(0).clamp(min=1e-3))
    length = min(min(len(mel) for mel in batch) for batch in batches[:4]) // 8 * 8
    x = encoder.encoder_embedding(torch.stack([mel[:length] for batch in batches[:4] for mel in batch]))[:, None]
    for step in encoder.embed.conv:
        y = step(x)
        if isinstance(step, nn.Conv2d):
            y = _standardise(step, y.transpose(1, -1), x)
        x = y
    flat = x.transpose(1, 2).flatten(2)
    _standardise(encoder.embed.out, encoder.embed.out(flat), flat)


def _standardise(layer, out, x):
    """Scales and shifts a layer by what it gives, channels last; gives its new output for `x`."""
    mean, deviation = out.flatten(0, -2).mean(0), out.flatten(0, -2).std(0).clamp(min=1e-3)
    layer.weight /= deviation.reshape(-1, *[1] * (layer.weight.dim() - 1))
    layer.bias.copy_((layer.bias - mean) / deviation)
    return layer(x)


def main(minutes):
    torch.set_num_threads(1)
    torch.manual_seed(1)
    model = Recogniser(phi4mm.load_config(folder("base") / "config.json")).train()
    voices, strings = speech_data.Voices(5), speech_words.Strings(9)
    normalise(model.encoder, voices)
    parameters = [p for p in model.parameters() if p.requires_grad]
    calls = itertools.count(1)

    def step(progress):
        if next(calls) % 1000 == 0:
            voices.refresh()
        placed = progress < PLACED
        strength = min(1.0, max(0.0, progress - PLACED) / (HARDEST - PLACED))
        batch = strings.batch(BATCH, BLANK) if placed else voices.batch(BATCH, strength)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            log_probs, counts = model(*speech_data.padded([mel for mel, _ in batch]))
        if placed:
            return placed_loss(log_probs, [labels for _, labels in batch])
        return ctc_loss(log_probs, [ids_of(line["text"]) if line else [] for _, line in batch], counts)

    loop.run("ctc", model, [{"params": parameters, "lr": 1.5e-3}], step, minutes, lambda: word_errors(model), 240)
    torch.save(model.state_dict(), folder("ctc") / "model.pt")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60)
