"""qzoo logout."""

from __future__ import annotations

import click

from qzoo.cli.options import as_json


@click.command()
@click.argument("registry")
@as_json
def command(registry: str, as_json: bool) -> None:  # noqa: FBT001 - click's flag
    """Forget the user name and password for REGISTRY, host[:port] or https://host/path.

    \b
    Examples:
      qzoo logout registry.example.com
      qzoo logout localhost:5000 --json
    """
    from qzoo.cli.login import LoginObject
    from qzoo.errors import UsageError
    from qzoo.store import Store
    from qzoo.zoo.credentials import Credentials
    from qzoo.zoo.login import origin_at

    origin = origin_at(registry)
    credentials = Credentials(Store.default().home)
    login = credentials.for_origin(origin)
    if not credentials.forget(origin):
        there = ", ".join(credentials.origins()) or "none"
        raise UsageError(f"there is no login for {origin}; logins are kept for: {there}")
    if as_json:
        from qzoo.records import encode

        user = None if login is None else login[0]
        click.echo(encode(LoginObject(origin=origin, user=user, checked=False)), nl=False)
        return
    click.echo(f"forgot the login for {origin}")
