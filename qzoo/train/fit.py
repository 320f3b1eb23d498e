"""The training loop: float, or with fake quantization where the network has quantizers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import isfinite
from time import perf_counter
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from qzoo.errors import DataUnavailable, TrainingDiverged, UsageError
from qzoo.quant.modules import quantizers
from qzoo.records import Accuracy, EpochRecord
from qzoo.spec import Decision, Training
from qzoo.train.checkpoint import LEARNED, Checkpoint
from qzoo.train.images import LabelledImages
from qzoo.train.optimize import make_optimizer, make_schedule
from qzoo.train.parallel import World

EVALUATION_BATCH = 64


class Shown(Protocol):
    """What an epoch reports to, step by step."""

    def advance(self, steps: int = 1) -> None:
        """Steps are done."""

    def detail(self, text: str) -> None:
        """How it goes."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is trained on what. `run` is kept in every checkpoint; without `validation` the last epoch is the best."""

    training: Training
    images: LabelledImages
    validation: LabelledImages | None
    decision: Decision
    seed: int
    run: Mapping[str, Any]

    @property
    def steps(self) -> int:
        """Steps of one epoch."""
        return len(self.images) // self.training.batch_size


def fit(
    network: nn.Module,
    job: Job,
    *,
    world: World,
    shown: Callable[[int], Shown],
    keep: Callable[[Checkpoint], None],
    start: Checkpoint | None = None,
) -> Checkpoint:
    """Train a network in place, all epochs or those that `start` leaves; it ends with the best epoch's weights.

    `shown(epoch)` is asked for at the start of each epoch. After each, `keep` is called, in the first process only.
    Where the network has quantizers and the training learns their ranges, these are buffers again afterwards. Raises
    UsageError or DataUnavailable where the batches don't fit, TrainingDiverged where the loss is not finite.
    """
    _check(job, world)
    if job.training.learn_amax:
        _learn_ranges(network, start)
    optimizer = make_optimizer(network, job.training)
    schedule = make_schedule(optimizer, job.training, job.steps * job.training.epochs)
    state = start
    if start is not None:
        network.load_state_dict(start.network)
        optimizer.load_state_dict(dict(start.optimizer))
        schedule.load_state_dict(dict(start.schedule))
    wrapped = world.wrap(network)
    for epoch in range(1 + (len(start.history) if start else 0), job.training.epochs + 1):
        record = _epoch(wrapped, job, epoch, optimizer, schedule, world, shown(epoch))
        state = _after(network, job, record, state, optimizer, schedule, first=world.first)
        if world.first:
            keep(state)
        world.wait()
    if state is None:
        raise UsageError("nothing to train: no epochs")
    network.load_state_dict(state.best)
    for quantizer in quantizers(network).values():
        quantizer.freeze_amax()
    network.eval()
    return state


def score(network: nn.Module, images: LabelledImages, decision: Decision) -> Accuracy:
    """Top-1 of a network, in eval mode, over images by its outputs' decision rule."""
    training, correct, device = network.training, 0, _device(network)
    network.eval()
    try:
        with torch.no_grad():
            for batch, labels in images.batches(EVALUATION_BATCH):
                correct += _hits(_outputs(network(batch.to(device))), labels.to(device), decision)
    finally:
        network.train(training)
    return Accuracy(correct=correct, total=len(images))


def _learn_ranges(network: nn.Module, start: Checkpoint | None) -> None:
    found = quantizers(network)
    if not found:
        raise UsageError("--learn-amax: the network has no quantizer, hence no range to train")
    for path, quantizer in found.items():
        if start is not None:
            quantizer.load_amax(torch.exp2(start.network[f"{path}.{LEARNED}"]))
        quantizer.learn_amax()


def _check(job: Job, world: World) -> None:
    size = job.training.batch_size
    if size % world.size:
        raise UsageError(f"--batch-size {size} can't be shared by {world.size} processes; give a multiple of them")
    if job.steps == 0:
        raise DataUnavailable(
            f"dataset {job.images.dataset.name!r} has {len(job.images)} images to train on, fewer than one batch of "
            f"{size}; give a smaller --batch-size"
        )


def _epoch(
    network: nn.Module,
    job: Job,
    epoch: int,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    world: World,
    shown: Shown,
) -> EpochRecord:
    network.train()
    torch.manual_seed(job.seed * 1_000_003 + epoch * world.size + world.rank)  # dropout's, the same after --resume
    device = _device(network)
    total, seen, began = torch.zeros(2, dtype=torch.float64, device=device), 0, perf_counter()
    batches = job.images.epoch(job.training, seed=job.seed, epoch=epoch, rank=world.rank, processes=world.size)
    for step, (images, classes) in enumerate(batches, 1):
        labels = classes.to(device)
        outputs = _outputs(network(images.to(device)))
        loss = torch.stack(
            [F.cross_entropy(output, labels, label_smoothing=job.training.label_smoothing) for output in outputs]
        ).sum()
        hits = _hits(outputs, labels, job.decision)
        counts = [loss.item() * len(labels), hits, len(labels)]
        sums = world.total(torch.tensor(counts, dtype=torch.float64, device=device))
        if not isfinite(float(sums[0])):
            raise TrainingDiverged(
                f"the loss is {float(sums[0]) / float(sums[2])} at step {step} of epoch {epoch}; "
                + (f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "no epoch was completed")
                + f"; try a lower --lr than {job.training.lr:g}"
            )
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        total, seen = total + sums[:2], seen + int(sums[2])
        speed = seen / (perf_counter() - began)
        shown.advance()
        shown.detail(f"loss {total[0] / seen:.3f}, accuracy {total[1] / seen:.1%}, {speed:.0f} images/s")
    return EpochRecord(
        epoch=epoch,
        loss=round(float(total[0]) / seen, 6),
        training=Accuracy(correct=int(total[1]), total=seen),
        validation=None,
        lr=float(schedule.get_last_lr()[0]),
        images_per_second=round(seen / (perf_counter() - began), 1),
    )


def _after(
    network: nn.Module,
    job: Job,
    record: EpochRecord,
    before: Checkpoint | None,
    optimizer: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    *,
    first: bool,
) -> Checkpoint:
    if job.validation is not None and first:
        record = replace(record, validation=score(network, job.validation, job.decision))
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    history = (*(before.history if before else ()), record)
    best, best_epoch = weights, record.epoch
    if before is not None and _accuracy(history[before.best_epoch - 1]) > _accuracy(record):
        best, best_epoch = dict(before.best), before.best_epoch
    return Checkpoint(
        run=job.run,
        history=history,
        best_epoch=best_epoch,
        network=weights,
        best=best,
        optimizer=optimizer.state_dict(),
        schedule={key: value for key, value in schedule.state_dict().items() if not callable(value)},
    )


def _accuracy(record: EpochRecord) -> float:
    return 0.0 if record.validation is None else record.validation.fraction


def _outputs(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _hits(outputs: tuple[Tensor, ...], labels: Tensor, decision: Decision) -> int:
    """How many images are decided rightly; `qzoo.measure.decide` has the rules."""
    read = outputs[:1] if decision == "argmax" else outputs
    scores = torch.stack([output.detach().softmax(1) for output in read]).sum(0)
    return int((scores.argmax(1) == labels).sum())


def _device(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
