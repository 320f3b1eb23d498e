"""qzoo completion."""

from __future__ import annotations

import click


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete verbs, options, models and targets.

    \b
    Examples:
      qzoo completion bash >> ~/.bashrc
      qzoo completion fish > ~/.config/fish/completions/qzoo.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    if found is None:
        raise TypeError(f"click has no completion for {shell}")
    root = context.find_root()
    click.echo(found(root.command, {}, "qzoo", "_QZOO_COMPLETE").source())
