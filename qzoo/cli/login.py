"""qzoo login."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import click

from qzoo.cli.options import as_json


@dataclass(frozen=True, slots=True, kw_only=True)
class LoginObject:
    """`qzoo login|logout --json`: for which origin a login is kept, or was. `checked`: the registry took it."""

    origin: str
    user: str | None
    checked: bool


@click.command()
@click.argument("registry")
@click.option("-u", "--user", help="The user name. Default: it is asked for.")
@click.option("--password-stdin", is_flag=True, help="Read the password, or an access token, from stdin.")
@click.option(
    "--token-service",
    metavar="HOST",
    help="Where else REGISTRY's tokens come from, if you know that: it is told the password too.",
)
@as_json
def command(
    registry: str,
    user: str | None,
    password_stdin: bool,  # noqa: FBT001 - click's flags
    token_service: str | None,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Keep a user name and password for REGISTRY, host[:port] or https://host/path, and try them.

    They are sent to that host and port only, unless --token-service names another. The password is asked for or read
    from stdin, never an argument, which others could see.

    \b
    Examples:
      qzoo login registry.example.com -u me
      qzoo login registry.example.com -u me --token-service auth.example.com
      qzoo login registry.example.com -u me --password-stdin --json < token
    """
    from qzoo.cli.logs import remark
    from qzoo.errors import RemoteError
    from qzoo.store import Store
    from qzoo.zoo.credentials import Credentials
    from qzoo.zoo.login import origin_at, try_login

    origin = origin_at(registry)
    service = None if token_service is None else origin_at(token_service)
    name, password = _asked(user, password_stdin)
    checked = True
    try:
        try_login(registry, name, password, service)
    except RemoteError as error:
        checked = False
        remark(f"kept without having been tried: {error}")
    Credentials(Store.default().home).save(origin, name, password, service)
    if as_json:
        from qzoo.records import encode

        click.echo(encode(LoginObject(origin=origin, user=name, checked=checked)), nl=False)
        return
    click.echo(f"logged in to {origin} as {name}")


def _asked(user: str | None, from_stdin: bool) -> tuple[str, str]:  # noqa: FBT001 - as the option says
    from qzoo.errors import UsageError

    terminal = sys.stdin.isatty()
    if from_stdin:
        if user is None:
            raise UsageError("--password-stdin leaves nobody to ask for the user name; give -u USER too")
        password = sys.stdin.readline().rstrip("\r\n")
    elif terminal:
        user = user if user is not None else str(click.prompt("user", err=True))
        password = str(click.prompt("password", hide_input=True, err=True))
    else:
        raise UsageError("there is no terminal to ask for the password; give it on stdin with --password-stdin")
    if not user or ":" in user or not password:
        raise UsageError("a login is a user name without a colon (RFC 7617) and a password, neither of them empty")
    return user, password
