"""Options that the verbs of a zoo share, and the zoo that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from qzoo.errors import UsageError

if TYPE_CHECKING:
    from qzoo.store import Store
    from qzoo.zoo.remote import Remote

registry = click.option(
    "--registry",
    envvar="QZOO_REGISTRY",
    metavar="WHERE",
    help="host[:port][/prefix], oci-layout:DIR, or https://... of such a directory. Default: QZOO_REGISTRY, else what "
    "`qzoo config pull.registry` says.",
)
insecure = click.option("--insecure", is_flag=True, help="Also speak plain HTTP to other machines than this one.")


def connect(where: str | None, store: Store, *, insecure: bool) -> Remote:
    """The zoo that --registry names, or the user's own defaults do. Raises UsageError where neither does."""
    from qzoo.zoo.connect import connect as connected
    from qzoo.zoo.credentials import Credentials

    chosen = where or _default()
    if chosen is None:
        raise UsageError(
            "no registry is named; give --registry host:port, oci-layout:DIR or https://..., or set one for all calls: "
            "qzoo config pull.registry WHERE"
        )
    return connected(chosen, Credentials(store.home), insecure=insecure)


def _default() -> str | None:
    """What pull's default is: it holds for the others too, unless they have one of their own."""
    tables = click.get_current_context().find_root().default_map or {}
    found = tables.get("pull", {}).get("registry")
    return None if found is None else str(found)
