"""Trains the shipped resnet20-digits.safetensors, from nothing, in a few minutes on two cores.

    PYTHONPATH=.:plugins python weights/train_resnet20.py

Only the 1,437 calibration images of the digits are trained on. The 360 held-out ones are evaluated once, at the end;
nothing is chosen by them. On one machine and library version, the same seed gives the same file.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from qzoo.data.decode import decode_samples
from qzoo.data.digits import Digits
from qzoo.data.preprocess import normalize
from qzoo.hookspecs import Split
from qzoo.records import file_digest
from qzoo_resnet.model import resnet20
from qzoo_resnet.spec import RESNET20

SEED = 0
EPOCHS = 24
BATCH = 64
PEAK_LEARNING_RATE = 0.1
SHIFT = 4
"""The largest random shift in pixels of the 32x32 image, which is one pixel of the 8x8 original."""


def load(split: Split) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 32, 32) float32, preprocessed as the engine's are, and labels (N,)."""
    digits = Digits()
    samples = digits.samples(split)
    found = decode_samples(digits, samples, RESNET20.input.preprocess, strict=True)
    labels = [sample.label for sample in samples]
    return torch.from_numpy(normalize(RESNET20.input.preprocess, found.pixels)), torch.tensor(labels)


def shifted(images: Tensor) -> Tensor:
    """Each image moved by up to SHIFT pixels both ways, its edges repeated."""
    padded = F.pad(images, (SHIFT,) * 4, mode="replicate")
    side = images.shape[-1]
    offsets = torch.randint(0, 2 * SHIFT + 1, (len(images), 2)).tolist()
    rows = [image[:, y : y + side, x : x + side] for image, (y, x) in zip(padded, offsets, strict=True)]
    return torch.stack(rows)


def train(images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """A trained network in eval mode."""
    model = resnet20(RESNET20.num_classes).train()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=PEAK_LEARNING_RATE, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=PEAK_LEARNING_RATE, total_steps=steps)
    for epoch in range(epochs):
        order = torch.randperm(len(images))[: len(images) // BATCH * BATCH]
        total = 0.0
        for chosen in order.view(-1, BATCH):
            loss = F.cross_entropy(model(shifted(images[chosen])), labels[chosen], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1:2}/{epochs}  loss {total * BATCH / len(order):.4f}", flush=True)
    return model.eval()


def main() -> None:
    """Train, write the checkpoint, print its digest and its held-out accuracy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("resnet20-digits.safetensors"))
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    started = time.monotonic()
    model = train(*load("calibration"), epochs=arguments.epochs)
    part = arguments.out.with_suffix(".part")
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, part)
    part.replace(arguments.out)

    images, labels = load("held-out")
    with torch.inference_mode():
        correct = int((model(images).argmax(1) == labels).sum())
    print(f"{time.monotonic() - started:.0f} s; held-out {correct}/{len(labels)}")
    print(f"{arguments.out}  sha256 {file_digest(arguments.out)}")


if __name__ == "__main__":
    main()
