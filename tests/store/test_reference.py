"""name[:tag][@sha256:...]."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qzoo.errors import UsageError
from qzoo.store import Reference, tag_for

NAMES = st.from_regex(r"[a-z0-9]+([._/-][a-z0-9]+){0,3}", fullmatch=True)
TAGS = st.none() | st.from_regex(r"[a-z0-9_][a-z0-9._-]{0,20}", fullmatch=True)
DIGESTS = st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(NAMES, TAGS, DIGESTS)
def test_what_is_written_is_read_back(name, tag, digest):
    reference = Reference(name, tag, digest)
    assert Reference.parse(str(reference)) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Net",
        "net:",
        "net:INT8",
        "net@",
        "net@sha256:12",
        "net@md5:" + "0" * 64,
        "net@sha256:" + "0" * 63 + "G",
        "a//b",
        "-net",
        "net:.hidden",
        "net int8",
        "../net",
        "net:" + "t" * 129,
    ],
)
def test_a_malformed_reference_is_a_usage_error_that_shows_the_form(text):
    with pytest.raises(UsageError, match=r"name\[:tag\]") as raised:
        Reference.parse(text)
    assert raised.value.exit_code == 2


def test_every_precisions_tag_can_stand_in_a_reference():
    for precision in ("fp32", "bf16", "fp16", "int8", "int8+fp16"):
        assert Reference.parse(f"net:{tag_for(precision)}").tag == precision.replace("+", "-")
