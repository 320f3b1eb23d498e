"""The user's own defaults for options: a TOML file with one table per verb.

    [build]
    target = ["onnxruntime"]
    calib-samples = 128

    [store.ls]
    json = true

It lies where QZOO_CONFIG says, else in the platform's directory for user settings. An option given on the command line
wins.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import click

from qzoo.cli.group import Verbs
from qzoo.errors import UsageError

Defaults = dict[str, dict[str, object]]


def path(env: Mapping[str, str] = os.environ) -> Path:
    """Where the file lies, whether or not it exists."""
    if env.get("QZOO_CONFIG"):
        return Path(env["QZOO_CONFIG"]).expanduser()
    from platformdirs import user_config_path

    return user_config_path("qzoo", appauthor=False) / "config.toml"


def read(file: Path, verbs: Collection[str]) -> Defaults:
    """The tables of the file; nothing where it doesn't exist.

    Raises UsageError that names it where it is no TOML, or a table is none of `verbs`.
    """
    try:
        text = file.read_text(encoding="utf-8")
        import tomllib  # here, as most have no such file and shall not wait for what reads it

        tables = tomllib.loads(text)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # what no UTF-8 and what no TOML raises are ValueErrors
        raise UsageError(f"{file} can't be read: {error}; correct or remove it") from error
    loose = [key for key, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise UsageError(f"{file}: {loose[0]} stands outside a table; write it below the name of its verb, as [build]")
    odd = [name for name in tables if name not in verbs]
    if odd:
        near = get_close_matches(odd[0], verbs, n=1)
        raise UsageError(f"{file}: [{odd[0]}] is no verb; {f'did you mean [{near[0]}]?' if near else 'remove it'}")
    return tables


def options_by_name(verb: str, command: click.Command) -> dict[str, click.Option]:
    """A verb's options by the names they have in the file: `build.calib-samples`, `store.ls.json`."""
    if isinstance(command, Verbs):
        return {
            key: option
            for name, below in command.each()
            for key, option in options_by_name(f"{verb}.{name}", below).items()
        }
    return {
        f"{verb}.{name.removeprefix('--')}": option
        for option in command.params
        if isinstance(option, click.Option) and option.expose_value
        for name in option.opts
        if name.startswith("--")
    }


def unknown(key: str, known: Iterable[str]) -> UsageError:
    """What to say of a key that names no option."""
    near = get_close_matches(key, known, n=3)
    advice = f"did you mean {' or '.join(near)}?" if near else "write VERB.OPTION, as build.calib-samples"
    return UsageError(f"there is no option {key}; {advice}")


def for_click(verb: str, command: click.Command, table: Mapping[str, object]) -> dict[str, object]:
    """One verb's table with the names that click has for its options. Raises UsageError for an unknown one."""
    known = options_by_name(verb, command)
    odd = [key for key in flat(verb, table) if key not in known]
    if odd:
        raise UsageError(f"{path()}: {unknown(odd[0], known)}")
    return _renamed(verb, table, known)


def flat(verb: str, table: Mapping[str, object]) -> dict[str, object]:
    """A verb's values by key, `store.ls.json`, those of tables in the table too."""
    values: dict[str, object] = {}
    for name, value in table.items():
        values |= flat(f"{verb}.{name}", value) if isinstance(value, dict) else {f"{verb}.{name}": value}
    return values


def _renamed(verb: str, table: Mapping[str, object], known: Mapping[str, click.Option]) -> dict[str, object]:
    renamed: dict[str, object] = {}
    for name, value in table.items():
        key = f"{verb}.{name}"
        if isinstance(value, dict):
            renamed[name] = _renamed(key, value, known)
        else:
            renamed[str(known[key].name)] = value
    return renamed
