"""What comes from elsewhere gives a terminal no orders."""

from __future__ import annotations

import pytest

from qzoo.cli.terminal import plain


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain: ÄÖ 漢字 👍", "plain: ÄÖ 漢字 👍"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2Jgone", "?[2Jgone"),
        ("\x9b2J\x07\x7f\r", "?2J???"),
        ("gpj.\u202eexe", "gpj.?exe"),
    ],
)
def test_control_characters_are_question_marks(text, shown):
    assert plain(text) == shown


def test_an_error_is_shown_without_them(qzoo):
    ended = qzoo("store", "show", "net:\x1b[2J")
    assert ended.code == 2
    assert "\x1b" not in ended.err
