"""qzoo key trust."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from qzoo.cli.options import as_json


@click.command()
@click.argument("key")
@click.option("--name", help="What to call it. Default: the file's name, or the one in the line.")
@as_json
def command(key: str, name: str | None, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Trust engines that this KEY signed: they are loaded, and they run as native code.

    KEY is a file with the line that `qzoo key show` printed, that line itself, or - for stdin. Compare the id with the
    one that its owner told you.

    \b
    Examples:
      qzoo key trust colleague.pub
      qzoo key trust release.pub --name team
    """
    from qzoo.cli.key.record import key_of, show
    from qzoo.store import Store
    from qzoo.zoo.keys import PublicKey
    from qzoo.zoo.trust import TrustStore

    text, file = _read(key)
    public = PublicKey.parse(text)
    store = Store.default()
    TrustStore(store.home).trust(public, name or file or " ".join(text.split()[2:]) or public.id[:8])
    show(key_of(store, public.id), lambda known: f"trusted {known.name}: {known.id}", as_json=as_json)


def _read(key: str) -> tuple[str, str]:
    """The line, and the name of the file without its suffix; empty where it came from no file."""
    from qzoo.errors import UsageError

    if key == "-":
        return sys.stdin.read(_LONGEST), ""
    if " " in key.strip():
        return key, ""
    try:
        with Path(key).expanduser().open(encoding="utf-8") as file:
            return file.read(_LONGEST), Path(key).stem
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{key} can't be read as a public key: {error}; give the file of a colleague's key") from error


_LONGEST = 1000
"""Characters that are read: a line has about 70."""
