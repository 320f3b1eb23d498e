"""qzoo plugin new."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from qzoo.cli.options import as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class NewPluginObject:
    """`qzoo plugin new --json`: the model's name, and the new folder and its files, absolute paths."""

    name: str
    folder: str
    files: tuple[str, ...]


@click.command()
@click.argument("name")
@click.option(
    "--dir",
    "parent",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where the folder NAME is made. Default: here.",
)
@click.option(
    "--from",
    "origin",
    default="blank",
    show_default=True,
    metavar="LIBRARY:NETWORK",
    help="What to begin from: torchvision:NETWORK, timm:NETWORK, or blank, a small network.",
)
@as_json
def command(name: str, parent: Path, origin: str, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Write a new plugin with one model, NAME: one folder, a package that can be installed and passes every check.

    It has a spec, a network with a quantized module of its own, a test of each check, and a README. Of a library's
    network, where the quantizers go is derived from its graph.

    \b
    Examples:
      qzoo plugin new mynet
      qzoo plugin new mynet --dir ./plugins --json
      qzoo plugin new mynet --from torchvision:densenet121
      qzoo plugin new mynet --from timm:regnety_002
    """
    from qzoo.records import encode
    from qzoo.testing.scaffold import scaffold

    folder = scaffold(name, parent, origin)
    files = tuple(str(file) for file in sorted(folder.rglob("*")) if file.is_file())
    if as_json:
        click.echo(encode(NewPluginObject(name=name, folder=str(folder), files=files)), nl=False)
        return
    click.echo("\n".join([*files, f"next: qzoo plugin check --dir {folder}"]))
