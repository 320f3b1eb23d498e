"""What a command says beside its result: remarks on stderr, and a log.

`-v` shows each stage on stderr as it begins, `-vv` what libraries say too; `-q` leaves out remarks and progress bars;
`--log-file` writes all of it, tracebacks included, to a file. Each verb takes these options.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from qzoo.cli.terminal import plain

LOGGER = logging.getLogger("qzoo")
FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
_QUIET, _VERBOSE = "qzoo.quiet", "qzoo.verbose"


def options() -> list[click.Option]:
    """The options, which every verb takes and none sees."""
    return [
        click.Option(
            ["-v", "--verbose"],
            count=True,
            expose_value=False,
            callback=_verbose,
            help="Say on stderr what is being done; -vv: what libraries say too.",
        ),
        click.Option(
            ["-q", "--quiet"],
            is_flag=True,
            expose_value=False,
            callback=_quiet,
            help="No remarks and no progress bar on stderr; errors still.",
        ),
        click.Option(
            ["--log-file"],
            type=click.Path(path_type=Path, dir_okay=False),
            expose_value=False,
            callback=_log_file,
            help="Also write a full log to this file.",
        ),
    ]


def remark(text: str) -> None:
    """Say something on stderr that is not the result and not an error."""
    LOGGER.warning("%s", text)


class _Remarks(logging.Handler):
    """Shows warnings as remarks, unless this call asked for none or a log on stderr shows them too."""

    def __init__(self, context: click.Context) -> None:
        super().__init__(logging.WARNING)
        self._meta = context.find_root().meta

    def emit(self, record: logging.LogRecord) -> None:
        if not self._meta.get(_QUIET) and not self._meta.get(_VERBOSE):
            click.echo(f"qzoo: {plain(record.getMessage())}", err=True)


@contextmanager
def remarks(context: click.Context) -> Iterator[None]:
    """Show what qzoo warns of on stderr, until the block ends."""
    handler = _Remarks(context)
    LOGGER.addHandler(handler)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)


def failed(error: BaseException) -> None:
    """Write an error's traceback to the log; whoever called prints it short."""
    LOGGER.debug("failed", exc_info=error)


def quiet() -> bool:
    """Whether this call asked for no remarks."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().meta.get(_QUIET))


def _verbose(context: click.Context, _: click.Parameter, count: int) -> None:
    if count:
        context.find_root().meta[_VERBOSE] = True
        level = logging.INFO if count == 1 else logging.DEBUG
        _attach(context, logging.getLogger() if count > 1 else LOGGER, logging.StreamHandler(sys.stderr), level)


def _quiet(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's own call
    if value:
        context.find_root().meta[_QUIET] = True


def _log_file(context: click.Context, _: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise click.BadParameter(f"{path} can't be written: {error.strerror}", context) from error
    _attach(context, logging.getLogger(), handler, logging.DEBUG)
    LOGGER.info("qzoo %s", " ".join(sys.argv[1:]))


def _attach(context: click.Context, logger: logging.Logger, handler: logging.Handler, level: int) -> None:
    handler.setLevel(level)
    handler.setFormatter(logging.Formatter(FORMAT))
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(min(level, before) if before else level)

    def detach() -> None:
        logger.removeHandler(handler)
        logger.setLevel(before)
        handler.close()

    context.find_root().call_on_close(detach)
