"""Draw docs/terminal.svg, what `make demo` prints: `python docs/make_picture.py`.

The build runs, in a store of its own. Its words are shown as they are, but for the store's directory, which is written
as the default one, and bundle ids, which are cut to their first digits.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text

FILE = Path(__file__).with_name("terminal.svg")
COMMAND = "qzoo build resnet20 --int8 --target onnxruntime --target openvino"
DEFAULT_HOME = "~/.local/share/qzoo"
ID = re.compile(r"\b([0-9a-f]{8})[0-9a-f]{56}\b")

# Rich's own frame asks a server for its font, which pages that show a picture don't allow. Each line has a textLength,
# so that columns stay in line in any of these.
FRAME = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{
font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
font-size: {char_height}px;
}}
.{unique_id}-title {{ font: bold 18px Helvetica, Arial, sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""  # noqa: E501 - a clipPath on one line


def picture(command: str, output: str) -> str:
    """An SVG of a terminal in which the command was given and answered. The same words make the same picture."""
    prompt = Text.assemble(("$ ", "bold green"), (command, "bold"))
    width = max(map(len, [prompt.plain, *output.splitlines()])) + 1
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(prompt, Text(), Text(output.rstrip("\n")), Text(), sep="\n", soft_wrap=True)
    return console.export_svg(title="qzoo", code_format=FRAME, font_aspect_ratio=0.6, unique_id="qzoo")


def shortened(output: str, home: Path) -> str:
    """Output without what is this machine's: the store's directory, and most of each bundle id."""
    return ID.sub(r"\1...", output.replace(str(home), DEFAULT_HOME))


def demo() -> str:
    """What the command prints, in an empty store. Raises CalledProcessError where it fails."""
    with TemporaryDirectory() as home:
        command = [sys.executable, "-m", *COMMAND.split()]
        environment = {**os.environ, "QZOO_HOME": home}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        return shortened(done.stdout, Path(home))


if __name__ == "__main__":
    FILE.write_text(picture(COMMAND, demo()), encoding="utf-8")
