"""Runs the checks of a model in order, and makes the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qzoo.errors import QzooError, UsageError
from qzoo.testing import contract, engines, network
from qzoo.testing.evidence import Evidence, Fault, Finding, ModelReport, PluginReport
from qzoo.testing.subject import Subject
from qzoo.testing.where import line_of_error, line_of_pattern, line_of_text, line_of_words


@dataclass(frozen=True, slots=True)
class Check:
    """A check by name; it is blocked where one that it `needs` didn't pass."""

    name: str
    run: Callable[[Subject], Evidence]
    needs: tuple[str, ...] = ()


CHECKS = (
    Check("spec", contract.spec_round_trips),
    Check("imports", contract.listing_imports_no_torch),
    Check("builder", network.builder_gives_the_network),
    Check("globals", contract.no_global_state_is_touched, ("builder",)),
    Check("state-dict", network.a_hub_state_dict_loads, ("builder",)),
    Check("reference", network.the_reference_agrees, ("builder",)),
    Check("batch", network.batches_of_one_and_many_agree, ("builder",)),
    Check("fusions", network.every_batchnorm_is_in_one_fusion, ("builder",)),
    Check("swaps", network.swaps_keep_the_state_dict, ("fusions",)),
    Check("build", engines.it_is_calibrated_and_exported, ("swaps", "batch")),
    Check("coverage", engines.every_layer_is_quantized, ("build",)),
    Check("export", engines.the_export_is_the_network, ("build",)),
    Check("engines", engines.every_runtime_agrees, ("export",)),
    Check("determinism", engines.a_second_build_is_the_same, ("build",)),
)
"""In the order they are run."""


def checks_named(names: Sequence[str]) -> tuple[Check, ...]:
    """The checks of these names, in the order they are run; all of them where no name is given. Raises UsageError."""
    known = [check.name for check in CHECKS]
    for name in names:
        if name not in known:
            raise UsageError(f"there is no check {name!r}; the checks are {', '.join(known)}")
    return tuple(check for check in CHECKS if not names or check.name in names)


def check_plugin(
    subjects: Sequence[Subject], tick: Callable[[str], None] = lambda _: None, checks: Sequence[Check] = CHECKS
) -> PluginReport:
    """Check every model; `tick` is told each check's name before it runs. Raises UsageError without models."""
    if not subjects:
        raise UsageError("there is no model to check")
    models = tuple(check_model(subject, tick, checks) for subject in subjects)
    passed, counted = sum(one.passed for one in models), sum(one.counted for one in models)
    return PluginReport(
        score=round(passed / counted, 4) if counted else None,
        passed=passed,
        counted=counted,
        checks=tuple(check.name for check in checks),
        models=models,
    )


def check_model(
    subject: Subject, tick: Callable[[str], None] = lambda _: None, checks: Iterable[Check] = CHECKS
) -> ModelReport:
    """Run the checks of one model."""
    found: dict[str, Finding] = {}
    for check in checks:
        tick(f"{subject.spec.name}: {check.name}")
        found[check.name] = _finding(check, subject, found)
    statuses = [finding.status for finding in found.values()]
    return ModelReport(
        model=subject.spec.name,
        plugin=subject.entry.provenance.plugin,
        passed=statuses.count("passed"),
        counted=len(statuses) - statuses.count("skipped"),
        findings=tuple(found.values()),
    )


def _finding(check: Check, subject: Subject, found: dict[str, Finding]) -> Finding:
    first = next((name for name in check.needs if name in found and found[name].status in ("failed", "blocked")), None)
    if first is not None:
        return Finding(check=check.name, status="blocked", evidence=f"not tried, as {first} did not pass")
    try:
        evidence = check.run(subject)
    except QzooError as error:
        return _failed(check, subject, Evidence("", (Fault(str(error)),)), error)
    except Exception as error:  # noqa: BLE001 - whatever a plugin's code raises is a finding
        return _failed(check, subject, Evidence("", (Fault(f"{type(error).__name__}: {error}"),)), error)
    if evidence.faults:
        return _failed(check, subject, evidence)
    return Finding(check=check.name, status="skipped" if evidence.skipped else "passed", evidence=evidence.text)


def _failed(check: Check, subject: Subject, evidence: Evidence, error: Exception | None = None) -> Finding:
    root = subject.root
    where = next((fault.where for fault in evidence.faults if fault.where), None)
    if where is None and error is not None:
        where = line_of_error(root, error)
    if where is None:
        where = line_of_words(root, evidence.faults[0].text)
    builder = subject.spec.builder.rpartition(":")[2]
    where = where or line_of_pattern(root, rf"^\s*(def|class) {builder}\b") or line_of_text(root, "ModelSpec(")
    return Finding(
        check=check.name, status="failed", evidence="; ".join(fault.text for fault in evidence.faults), where=where
    )
