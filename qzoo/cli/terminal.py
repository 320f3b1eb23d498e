"""Text from elsewhere, as a terminal may be given it."""

from __future__ import annotations

import re

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters but for tab and newline, and those that turn the direction of writing."""


def plain(text: str) -> str:
    """The text with a question mark in the place of what a terminal would take for an order."""
    return _CONTROL.sub("?", text)
