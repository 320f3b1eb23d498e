"""What checks find out: evidence, faults, and the reports made of them. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["passed", "failed", "blocked", "skipped"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong in a plugin; `where` is the `file:line` to look at, None where only the words can lead there."""

    text: str
    where: str | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one check saw. It passed if there are no faults; `skipped`: there was nothing to check."""

    text: str
    faults: tuple[Fault, ...] = ()
    skipped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the checklist. "blocked": a check before it failed; "skipped": it doesn't apply, and isn't counted.

    `where` is the plugin's `file:line` to look at, of a failure.
    """

    check: str
    status: Status
    evidence: str
    where: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """The checklist of one model; `passed` of `counted` checks hold."""

    model: str
    plugin: str
    passed: int
    counted: int
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginReport:
    """`qzoo plugin check --json`. `score` is the fraction of counted checks that passed, over all models.

    None: no check counted. `checks` are those that were run: all, or what `--only` named.
    """

    score: float | None
    passed: int
    counted: int
    checks: tuple[str, ...]
    models: tuple[ModelReport, ...]
