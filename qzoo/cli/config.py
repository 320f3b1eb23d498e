"""qzoo config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qzoo.cli import defaults
from qzoo.cli.options import as_json
from qzoo.errors import UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigObject:
    """`qzoo config --json`: the file, and its values by verb and option."""

    file: str
    defaults: dict[str, dict[str, Any]]


@click.command()
@click.argument("key", required=False)
@click.argument("values", nargs=-1)
@click.option("--unset", is_flag=True, help="Remove KEY.")
@as_json
@click.pass_context
def command(context: click.Context, key: str | None, values: tuple[str, ...], unset: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show or change the defaults of options.

    Without KEY, shows the file and what it sets. KEY is VERB.OPTION; with VALUES it is set, several for an option that
    can be repeated. An option given on the command line wins.

    \b
    Examples:
      qzoo config
      qzoo config build.target onnxruntime
      qzoo config build.calib-samples 128
      qzoo config build.target --unset
    """
    file = defaults.path()
    if key is None:
        _show(file, as_json=as_json)
        return
    option = _option(context, key)
    if unset:
        _change(file, lambda document: _remove(document, key))
    elif values:
        converted = _converted(context, option, key, values)
        _change(file, lambda document: _put(document, key, converted))
    else:
        verb, _, name = key.partition(".")
        found = defaults.read(file).get(verb, {}).get(name)
        click.echo("not set" if found is None else str(found))


def _show(file: Path, *, as_json: bool) -> None:
    tables = defaults.read(file)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(ConfigObject(file=str(file), defaults=tables)), nl=False)
        return
    click.echo(f"{file}{'' if file.exists() else ' (not there yet)'}")
    for verb, table in sorted(tables.items()):
        for name, value in sorted(table.items()):
            click.echo(f"  {verb}.{name} = {value}")


def _option(context: click.Context, key: str) -> click.Option:
    """The option that a key names. Raises UsageError with the nearest ones."""
    group = context.find_root().command
    if not isinstance(group, click.Group):
        raise TypeError("qzoo config is called outside the qzoo group")
    known: dict[str, click.Option] = {}
    for verb in group.list_commands(context):
        found = group.get_command(context, verb)
        known |= defaults.options_by_name(verb, found) if found else {}
    if key not in known:
        raise defaults.unknown(key, known)
    return known[key]


def _converted(context: click.Context, option: click.Option, key: str, values: Sequence[str]) -> object:
    if len(values) > 1 and not option.multiple:
        raise UsageError(f"{key} takes one value, got {len(values)}: {' '.join(values)}")
    if option.is_flag:
        return option.type_cast_value(context, values[0])
    made = [option.type.convert(value, option, context) for value in values]
    plain = [str(value) if isinstance(value, Path) else value for value in made]
    return plain if option.multiple else plain[0]


def _change(file: Path, change: Callable[[TOMLDocument], None]) -> None:
    import tomlkit

    from qzoo.store import write_file

    defaults.read(file)
    document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
    change(document)
    write_file(file, tomlkit.dumps(document).encode())


def _put(document: TOMLDocument, key: str, value: object) -> None:
    verb, _, name = key.partition(".")
    document.setdefault(verb, {})[name] = value


def _remove(document: TOMLDocument, key: str) -> None:
    verb, _, name = key.partition(".")
    if name not in document.get(verb, {}):
        raise UsageError(f"{key} is not set; `qzoo config` shows what is")
    del document[verb][name]
