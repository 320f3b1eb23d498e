"""The `qzoo` command: finds the verb, and turns a QzooError into one line and its exit code."""

from __future__ import annotations

import atexit
import gc
import os
import sys

import click

from qzoo.cli import defaults
from qzoo.cli.group import Verbs
from qzoo.cli.terminal import plain
from qzoo.errors import QzooError

VERBS = {
    "bench": "Measure engines' latency and throughput, side by side.",
    "build": "Build a calibrated, verified, measured engine.",
    "catalog": "List what a registry holds.",
    "completion": "Print what makes a shell complete qzoo's words.",
    "config": "Show or change the defaults of options.",
    "doctor": "Say what is installed, and which targets work here.",
    "eval": "Measure an engine's or a float model's accuracy.",
    "export": "Write a model's portable or lowered ONNX graph.",
    "info": "Show what a model declares, or what a bundle holds.",
    "key": "Make keys that sign engines, and say whose to trust.",
    "list": "List the models, and which plugin each comes from.",
    "login": "Keep a registry's user name and password.",
    "logout": "Forget a registry's user name and password.",
    "plugin": "Write and check plugins.",
    "pull": "Fetch an engine that somebody built, verified.",
    "push": "Publish stored engines.",
    "run": "Run an engine on images.",
    "sign": "Sign stored engines.",
    "store": "List, check and remove what is stored, and free its space.",
    "tags": "List the tags of a name in a registry.",
    "train": "Train a model, float or with fake quantization.",
    "trtexec": "Build an engine of any ONNX file, in trtexec's words.",
    "verify": "Check engines against their digests and signatures.",
}
INTERRUPTED = 130
SPIN = 10_000
"""What threads of OpenMP, which PyTorch's operators run on, wait for more work before they sleep, in GCC's unit.

That is less than half a millisecond. By default they spin for 4 to 8, on the cores that the calibration's own threads
run on meanwhile: those took 1.4 times as long.
"""


class _Root(Verbs):
    """The verbs, with the user's own defaults, and errors logged."""

    package, verbs = "qzoo.cli", VERBS

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = self.verb(cmd_name)
        if command and ctx.default_map and cmd_name in ctx.default_map:
            table = ctx.default_map[cmd_name]
            ctx.default_map = {**ctx.default_map, cmd_name: defaults.for_click(cmd_name, command, table)}
        return command

    def invoke(self, ctx: click.Context) -> object:
        from qzoo.cli import logs

        with logs.remarks(ctx):
            try:
                return super().invoke(ctx)
            except Exception as error:
                logs.failed(error)
                raise


@click.command(cls=_Root, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="qzoo", prog_name="qzoo")
def cli() -> None:
    """A model zoo of quantized networks: float weights in; a calibrated, verified, measured INT8 engine out.

    \b
    Examples:
      qzoo list
      qzoo build resnet20 --int8
      qzoo run resnet20:int8 digit.png
    """


def entry() -> None:
    """Run the command line. Exit codes: see qzoo.errors."""
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPIN))  # is read when torch is loaded
    atexit.register(gc.freeze)  # or Python looks for cycles in all that is there before it ends: 2 s after an export
    try:
        tables = defaults.read(defaults.path(), VERBS)
        cli.main(prog_name="qzoo", complete_var="_QZOO_COMPLETE", standalone_mode=False, default_map=tables)
    except QzooError as error:
        click.echo(f"qzoo: {plain(str(error))}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        click.echo("qzoo: interrupted; nothing was left half-written", err=True)
        sys.exit(INTERRUPTED)
