"""Conformer, projector and speech adapter tuned together, `python speech_joint.py [MINUTES [CHECKPOINT]]`; the base decoder stays.

Starts from `speech/` and the recogniser of `ctc/`, or from a whole checkpoint; then the recogniser's head, which no checkpoint
holds, learns alone for the first steps. The answers' loss reaches the conformer here; the recogniser's head stays for
a share of CTC, which tells every frame what was said where a call's few tokens do not.
"""

import sys

import torch
from torch import nn

import loop
import phi4mm
import speech_data
import speech_lora
from speech_ctc import ctc_loss, ids_of
from work import folder

CTC = 0.3  # weight of the recogniser's loss
HEAD_ALONE = 250  # steps
WEIGHTS = {"espeak": 0.42, "flite": 0.28, "kokoro": 0.3}


class Trainer(speech_lora.Trainer):
    """As in `speech_lora`, with the conformer and the recogniser's head in training."""

    def __init__(self, seed=11, start=None):
        super().__init__(seed, start)
        self.head_steps = HEAD_ALONE if start else 0
        if not start:
            kept = folder("speech") / "state.pt"
            self.model.load_state_dict(torch.load(kept, weights_only=True)["module"])
        self.together = nn.ModuleDict({"model": self.model, "head": self.recogniser.head})
        self.ctc = 0.0

    def trained(self):
        """(matrices, other parameters) to train; the subsampling stays, whose gradient would cost a third of the time."""
        matrices, others = [], []
        for name, parameter in self.together.named_parameters():
            hears = "audio_embed.encoder" in name and ".embed." not in name
            wanted = hears or ".speech." in name or "_proj_for_speech" in name or name.startswith("head.")
            parameter.requires_grad_(wanted)
            if wanted:
                (matrices if parameter.ndim == 2 and not name.startswith("head.") else others).append(parameter)
        return matrices, others

    def frames(self, batch):
        mels, lengths = speech_data.padded([mel for mel, _ in batch])
        out, counts = phi4mm.conformer(self.audio.encoder, mels, lengths), (lengths + 7) // 8
        heard = out.detach() if self.steps <= self.head_steps else out
        log_probs = self.recogniser.head(heard).float().log_softmax(-1)
        self.ctc = ctc_loss(log_probs, [ids_of(line["text"]) if line else [] for _, line in batch], counts)
        return out, counts

    def step(self, progress):
        self.steps += 1
        if self.steps % 500 == 0:
            self.voices.refresh()
        batch = self.voices.batch(speech_lora.BATCH, 1.0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = self.answers(batch, transcribe=self.steps % 2 == 1)
        return loss + CTC * self.ctc


def main(minutes, start=None):
    torch.set_num_threads(1)
    torch.manual_seed(4)
    speech_data.WEIGHTS.update(WEIGHTS)
    trainer = Trainer(start=start)
    matrices, others = trainer.trained()
    trainer.model.train()
    groups = [{"params": others, "lr": 4e-4}]
    loop.run("joint", trainer.together, groups, trainer.step, minutes, trainer.evaluate, 900, muon=[{"params": matrices, "lr": 7e-4}])
    phi4mm.save_orig(trainer.model, folder("joint"))


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 120, *sys.argv[2:3])
