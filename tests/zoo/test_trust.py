"""The trust store: keys, and the newest versions seen."""

from __future__ import annotations

import subprocess
import sys

import pytest

from qzoo.errors import IntegrityError, UsageError
from qzoo.zoo.keys import PrivateKey
from qzoo.zoo.trust import TrustStore

KEY, OTHER = PrivateKey.generate().public, PrivateKey.generate().public


@pytest.fixture
def trust(tmp_path) -> TrustStore:
    return TrustStore(tmp_path / "home")


def test_nobody_is_trusted_at_first_and_nothing_is_written_by_asking(trust):
    assert (trust.state(KEY.id), trust.known(), trust.highest("o", "n", "t")) == ("unknown", (), None)
    assert not trust.path.parent.exists()


def test_a_trusted_key_is_trusted_in_every_process_and_named(trust, tmp_path):
    trust.trust(KEY, "me")
    assert TrustStore(tmp_path / "home").state(KEY.id) == "trusted"
    assert trust.label(KEY.id) == f"{KEY.id} (me)"


def test_trusting_again_renames(trust):
    trust.trust(KEY, "me")
    trust.trust(KEY, "myself")
    assert [key.name for key in trust.known()] == ["myself"]


def test_two_keys_have_no_name_in_common(trust):
    trust.trust(KEY, "me")
    with pytest.raises(UsageError, match="another key is called me"):
        trust.trust(OTHER, "me")


@pytest.mark.parametrize("name", ["", "a b", "\x1b[31mred", "x" * 65, "-x"])
def test_a_name_is_a_word_that_can_be_shown(trust, name):
    with pytest.raises(UsageError, match="is no name for a key"):
        trust.trust(KEY, name)


@pytest.mark.parametrize("word", ["me", KEY.id, KEY.id[:8]], ids=["name", "id", "its beginning"])
def test_a_key_is_revoked_by_its_name_its_id_or_the_beginning_of_it(trust, word):
    trust.trust(KEY, "me")
    trust.revoke(word)
    assert trust.state(KEY.id) == "revoked"


def test_a_revoked_key_stays_revoked(trust):
    trust.trust(KEY, "me")
    trust.revoke("me")
    with pytest.raises(UsageError, match=r"was revoked on .* and stays so"):
        trust.trust(KEY, "again")
    assert trust.state(KEY.id) == "revoked"


def test_an_unknown_key_is_revoked_by_its_whole_id_before_anybody_trusts_it(trust):
    trust.revoke(KEY.id)
    with pytest.raises(UsageError, match="was revoked"):
        trust.trust(KEY, "me")


@pytest.mark.parametrize(
    "word", ["nobody", "abcdef01", KEY.id[:7], KEY.id.upper()], ids=["no name", "no id", "too short", "in capitals"]
)
def test_what_names_no_key_revokes_none(trust, word):
    trust.trust(KEY, "me")
    with pytest.raises(UsageError, match="no key is called"):
        trust.revoke(word)
    assert trust.state(KEY.id) == "trusted"


def test_a_higher_version_is_remembered_and_a_lower_one_is_not(trust):
    for version in (3, 5, 4):
        trust.remember("origin", "net", "int8", version)
    assert trust.highest("origin", "net", "int8") == 5
    assert trust.highest("elsewhere", "net", "int8") is None


@pytest.mark.parametrize("text", [b"", b"[]", b'{"keys": [{"state": "trusted"}]}', b'{"keys":[],"seen":[],"schema":2}'])
def test_a_damaged_file_trusts_nobody_and_is_named(trust, text):
    trust.trust(KEY, "me")
    trust.path.write_bytes(text)
    with pytest.raises(IntegrityError, match=str(trust.path)) as raised:
        trust.state(KEY.id)
    assert raised.value.exit_code == 6


REMEMBER = """
import sys
from pathlib import Path
from qzoo.zoo.trust import TrustStore
for version in range(20):
    TrustStore(Path(sys.argv[1])).remember("origin", sys.argv[2], "int8", version)
"""


def test_processes_that_write_at_once_lose_nothing(trust, tmp_path):
    home = tmp_path / "home"
    running = [subprocess.Popen([sys.executable, "-c", REMEMBER, home, name]) for name in ("a", "b", "c")]
    assert [process.wait(120) for process in running] == [0, 0, 0]
    assert [trust.highest("origin", name, "int8") for name in ("a", "b", "c")] == [19, 19, 19]
