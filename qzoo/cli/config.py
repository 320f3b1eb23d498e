"""qzoo config."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qzoo.cli import defaults
from qzoo.cli.group import Verbs
from qzoo.cli.options import as_json
from qzoo.errors import UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigObject:
    """`qzoo config --json`: the file, and its values by verb and option."""

    file: str
    defaults: dict[str, dict[str, Any]]


def _complete_keys(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    return [key for key in _known(_group(context)) if key.startswith(incomplete)]


@click.command()
@click.argument("key", required=False, shell_complete=_complete_keys)
@click.argument("values", nargs=-1)
@click.option("--unset", is_flag=True, help="Remove KEY.")
@as_json
@click.pass_context
def command(context: click.Context, key: str | None, values: tuple[str, ...], unset: bool, as_json: bool) -> None:  # noqa: FBT001
    """Show or change the defaults of options.

    Without KEY, shows the file and what it sets. KEY is VERB.OPTION; with VALUES it is set, several for an option that
    can be repeated, true or false for one that takes no value. An option given on the command line wins.

    \b
    Examples:
      qzoo config
      qzoo config build.target onnxruntime
      qzoo config build.calib-samples 128
      qzoo config store.ls.json true
      qzoo config build.target --unset
    """
    file, group = defaults.path(), _group(context)
    tables = defaults.read(file, group.list_commands(context))
    if key is None:
        if unset:
            raise UsageError("--unset removes one KEY; say which")
        _show(file, tables, as_json=as_json)
        return
    option = _option(group, key)
    if unset:
        if values:
            raise UsageError(f"--unset removes {key} and takes no value; leave out {' '.join(values)} or --unset")
        _change(file, lambda document: _remove(document, key))
    elif values:
        converted = _converted(context, option, key, values)
        _change(file, lambda document: _put(document, key, converted))
    elif as_json:
        _show(file, tables, as_json=True)
    else:
        found = _flat(tables).get(key)
        click.echo("not set" if found is None else str(found))


def _show(file: Path, tables: defaults.Defaults, *, as_json: bool) -> None:
    if as_json:
        from qzoo.records import encode

        click.echo(encode(ConfigObject(file=str(file), defaults=tables)), nl=False)
        return
    click.echo(f"{file}{'' if file.exists() else ' (not there yet)'}")
    for key, value in sorted(_flat(tables).items()):
        click.echo(f"  {key} = {value}")


def _flat(tables: defaults.Defaults) -> dict[str, object]:
    return {key: value for verb, table in tables.items() for key, value in defaults.flat(verb, table).items()}


def _group(context: click.Context) -> Verbs:
    group = context.find_root().command
    if not isinstance(group, Verbs):
        raise TypeError("qzoo config is called outside the qzoo group")
    return group


def _option(group: Verbs, key: str) -> click.Option:
    """The option that a key names. Raises UsageError with the nearest ones."""
    known = _known(group)
    if key not in known:
        raise defaults.unknown(key, known)
    return known[key]


def _known(group: Verbs) -> dict[str, click.Option]:
    return {name: option for verb, one in group.each() for name, option in defaults.options_by_name(verb, one).items()}


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

    document = tomlkit.parse(file.read_text(encoding="utf-8")) if file.exists() else tomlkit.document()
    change(document)
    write_file(file, tomlkit.dumps(document).encode())


def _put(document: TOMLDocument, key: str, value: object) -> None:
    *verbs, name = key.split(".")
    table: Any = document
    for verb in verbs:
        table = table.setdefault(verb, {})
    table[name] = value


def _remove(document: TOMLDocument, key: str) -> None:
    *verbs, name = key.split(".")
    table: Any = document
    for verb in verbs:
        table = table.get(verb, {})
    if name not in table:
        raise UsageError(f"{key} is not set; `qzoo config` shows what is")
    del table[name]
