"""The optimizer and the learning rate's schedule, as a Training says."""

from __future__ import annotations

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from qzoo.spec import Training

MOMENTUM = 0.9


def make_optimizer(network: nn.Module, training: Training) -> Optimizer:
    """AdamW, or SGD with Nesterov momentum 0.9. What has at most one dimension (biases, BatchNorm) does not decay."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": training.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        return SGD(groups, lr=training.lr, momentum=MOMENTUM, nesterov=True)
    return AdamW(groups, lr=training.lr)


def make_schedule(optimizer: Optimizer, training: Training, steps: int) -> LRScheduler:
    """The learning rate of each of `steps` steps in all."""
    if training.schedule == "one-cycle":
        return OneCycleLR(optimizer, max_lr=training.lr, total_steps=steps)
    return CosineAnnealingLR(optimizer, T_max=steps)
