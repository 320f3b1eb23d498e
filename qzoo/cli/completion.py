"""qzoo completion."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, ShellComplete, get_completion_class

BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' words=() word glued= response completion type value cut i
    # bash ends a word at each colon, and references have them: put the pieces together again
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ ${#words[@]} -gt 0 && ( $word == : || -n $glued ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        if [[ $word == : ]]; then glued=1; else glued=; fi
    done
    word=${words[-1]}
    cut=${word%%"${word##*:}"}
    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$((${#words[@]} - 1)) %(complete_var)s=bash_complete $1)
    COMPREPLY=()
    for completion in $response; do
        IFS=',' read type value <<< "$completion"
        case $type in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            plain) COMPREPLY+=("${value#"$cut"}") ;;
        esac
    done
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
"""Click's own, but for the colons."""


class _Bash(BashComplete):
    source_template = BASH


@click.command()
@click.argument("shell", type=click.Choice(("bash", "zsh", "fish")))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete verbs, options, models, targets and references.

    \b
    Examples:
      qzoo completion bash >> ~/.bashrc
      qzoo completion zsh >> ~/.zshrc
      qzoo completion fish > ~/.config/fish/completions/qzoo.fish
    """
    found: type[ShellComplete] | None = _Bash if shell == "bash" else get_completion_class(shell)
    if found is None:
        raise TypeError(f"click has no completion for {shell}")
    root = context.find_root()
    click.echo(found(root.command, {}, "qzoo", "_QZOO_COMPLETE").source())
