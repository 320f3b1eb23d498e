"""The user's own defaults for options: a TOML file with one table per verb.

    [build]
    target = ["onnxruntime"]
    calib-samples = 128

It lies where QZOO_CONFIG says, else in the platform's directory for user settings. An option given on the command line
wins.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path

import click

from qzoo.errors import UsageError

Defaults = dict[str, dict[str, object]]


def path(env: Mapping[str, str] = os.environ) -> Path:
    """Where the file lies, whether or not it exists."""
    if env.get("QZOO_CONFIG"):
        return Path(env["QZOO_CONFIG"]).expanduser()
    from platformdirs import user_config_path

    return user_config_path("qzoo", appauthor=False) / "config.toml"


def read(file: Path) -> Defaults:
    """The tables of the file; nothing where it doesn't exist. Raises UsageError that names it where it is no TOML."""
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} can't be read: {error}; correct or remove it") from error
    loose = [key for key, value in tables.items() if not isinstance(value, dict)]
    if loose:
        raise UsageError(f"{file}: {loose[0]} stands outside a table; write it below the name of its verb, as [build]")
    return tables


def options_by_name(verb: str, command: click.Command) -> dict[str, click.Option]:
    """A verb's options by the names they have in the file: `build.calib-samples` for `--calib-samples`."""
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
    odd = [key for key in table if f"{verb}.{key}" not in known]
    if odd:
        raise UsageError(f"{path()}: {unknown(f'{verb}.{odd[0]}', known)}")
    return {str(known[f"{verb}.{key}"].name): value for key, value in table.items()}
