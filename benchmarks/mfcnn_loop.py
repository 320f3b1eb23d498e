"""The MFCNN with its patch branch written out as its users had it: a Python loop over the 16 patches."""

from __future__ import annotations

import torch
from torch import Tensor

from qzoo_mfcnn.model import MFCNN, PatchBranch

PATCH, STRIDE = 24, 12


class LoopedPatchBranch(PatchBranch):
    """The same modules, called once for every patch."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        places = [(y, x) for y in range(0, 37, STRIDE) for x in range(0, 37, STRIDE)]
        patches = [x[:, :, top : top + PATCH, left : left + PATCH] for top, left in places]
        results = [self.channel(self.spatial(self.stage2(self.stage1(patch)))) for patch in patches]
        logits: Tensor = self.head(torch.cat(results, 1))
        return logits


def looped_mfcnn(num_classes: int) -> MFCNN:
    """An MFCNN whose state dict, and whose logits in eval mode, are those of `qzoo_mfcnn.model.mfcnn`."""
    model = MFCNN(num_classes)
    model.patch_branch = LoopedPatchBranch(num_classes)
    return model
