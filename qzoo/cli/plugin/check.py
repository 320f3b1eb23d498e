"""qzoo plugin check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qzoo.cli.options import as_json, complete_models

if TYPE_CHECKING:
    from qzoo.testing.evidence import PluginReport
    from qzoo.testing.subject import Subject

_MARKS = {"passed": "ok", "failed": "FAILED", "blocked": "blocked", "skipped": "skipped"}


@click.command()
@click.argument("name", required=False, shell_complete=complete_models)
@click.option(
    "--dir",
    "folder",
    type=click.Path(path_type=Path),
    help="The folder of a plugin, or of several, that needn't be installed. Default, without NAME: this folder.",
)
@click.option(
    "--only",
    "only",
    metavar="CHECK",
    multiple=True,
    help="Run this check; repeatable. What it needs is not run before it. Default: all.",
)
@click.option(
    "--target",
    "targets",
    metavar="RUNTIME",
    multiple=True,
    help="Build for this runtime; repeatable. Default: all that work here.",
)
@as_json
def command(
    name: str | None,
    folder: Path | None,
    only: tuple[str, ...],
    targets: tuple[str, ...],
    as_json: bool,  # noqa: FBT001 - click's flag
) -> None:
    """Say whether a plugin does what it declares: a checklist with evidence. Ends with 8 if a check fails.

    NAME is an installed plugin or one model. Each model is built with random weights for every runtime that works here.
    A failure names the line of the plugin to look at. "blocked" was not tried, as a check before it failed; "skipped"
    doesn't apply and isn't counted.

    \b
    Examples:
      qzoo plugin check
      qzoo plugin check --dir ./mynet
      qzoo plugin check --only coverage --only export --target onnxruntime
      qzoo plugin check resnet20 --json
    """
    from qzoo.cli.progress import shown
    from qzoo.errors import PluginError
    from qzoo.testing.run import check_plugin, checks_named

    checks = checks_named(only)
    subjects = _subjects(name, folder, targets)
    with shown() as progress:
        report = check_plugin(subjects, progress.stage, checks)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(report), nl=False)
    else:
        click.echo("\n".join(_lines(report)))
    if report.passed < report.counted:
        raise PluginError(f"{report.counted - report.passed} of {report.counted} checks did not pass")


def _subjects(name: str | None, folder: Path | None, targets: tuple[str, ...]) -> list[Subject]:
    from qzoo.errors import UsageError
    from qzoo.registry import Registry
    from qzoo.store import Store
    from qzoo.testing.subject import subjects_in, subjects_named

    cache = Store.default().home / "cache"
    if name is None:
        return subjects_in(folder or Path(), cache, targets)
    if folder is not None:
        raise UsageError("give NAME, of an installed plugin, or --dir, not both")
    return subjects_named(name, Registry.load(), cache, targets)


def _lines(report: PluginReport) -> list[str]:
    lines = []
    for model in report.models:
        lines.append(f"{model.model} (plugin {model.plugin}): {model.passed} of {model.counted}")
        for one in model.findings:
            lines.append(f"  {_MARKS[one.status]:8}{one.check:12}{one.evidence.partition(chr(10))[0]}")
            lines += [f"{'':22}look at {one.where}"] if one.where else []
    if report.score is None:
        return [*lines, "no score: none of these checks applies"]
    return [*lines, f"score {report.score:.0%}: {report.passed} of {report.counted} checks passed"]
