"""Whoever pushes to a tag, and whenever: nobody's engines are lost."""

from __future__ import annotations

import hashlib
import itertools
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from qzoo.errors import RemoteError, UsageError
from qzoo.store.describe import OS, VERSION
from qzoo.store.layout import MANIFEST, SIGNS, TARGET, Descriptor
from qzoo.zoo.connect import connect
from qzoo.zoo.folder import Folder
from qzoo.zoo.merge import TAG_LIMIT, is_part, publish
from qzoo.zoo.remote import Document, index_of


def manifest(remote, content: str, **annotations: str) -> Descriptor:
    """A manifest that is there, as an index lists it."""
    document = Document(
        b'{"schemaVersion":2,"mediaType":"%b","config":{"mediaType":"text/plain","digest":"sha256:%b","size":0},'
        b'"layers":[],"annotations":{"content":"%b"}}'
        % (MANIFEST.encode(), hashlib.sha256(b"").hexdigest().encode(), content.encode())
    )
    if isinstance(remote, Folder) or remote.find("net", document.digest) is None:
        remote.put_document("net", document.digest, document)
    return Descriptor(mediaType=MANIFEST, digest=document.digest, size=len(document.data), annotations=annotations)


def engine(remote, target: str, content: str = "") -> Descriptor:
    return manifest(remote, f"{target} {content}", **{TARGET: target, VERSION: "1", OS: "linux"})


def signature(remote, signed: Descriptor, key: str = "k") -> Descriptor:
    return manifest(remote, f"{key} signs {signed.digest}", **{SIGNS: signed.digest})


@pytest.fixture(params=["registry", "folder"])
def remote(request, folder, tmp_path):
    if request.param == "folder":
        return connect(f"oci-layout:{folder}")
    made = connect(request.getfixturevalue("prefix"))
    (tmp_path / "empty").write_bytes(b"")
    empty = Descriptor(mediaType="text/plain", digest=f"sha256:{hashlib.sha256(b'').hexdigest()}", size=0)
    made.put_blob("net", empty, tmp_path / "empty", lambda _: None)
    return made


def listed(remote, tag: str = "int8") -> set[str]:
    return {one.digest for one in remote.find("net", tag).children()}


def test_engines_for_several_targets_stand_in_one_tag_in_an_order_that_is_always_the_same(remote):
    one, other = engine(remote, "b"), engine(remote, "a")
    signed = signature(remote, one)
    publish(remote, "net", "int8", [[one, signed]])
    index = publish(remote, "net", "int8", [[other]])
    assert index == remote.find("net", "int8") == index_of([other, one, signed])


def test_a_targets_new_engine_takes_the_place_of_its_old_one_and_of_its_signatures(remote):
    old, new, other = engine(remote, "a", "old"), engine(remote, "a", "new"), engine(remote, "b")
    publish(remote, "net", "int8", [[old, signature(remote, old)], [other]])
    signed = signature(remote, new)
    publish(remote, "net", "int8", [[new, signed]])
    assert listed(remote) == {new.digest, signed.digest, other.digest}


def test_another_keys_signature_of_the_same_engine_stays(remote):
    one = engine(remote, "a")
    first, second = signature(remote, one, "first"), signature(remote, one, "second")
    publish(remote, "net", "int8", [[one, first]])
    publish(remote, "net", "int8", [[one, second]])
    assert listed(remote) == {one.digest, first.digest, second.digest}


def test_what_a_mirror_lists_without_parts_stays_beside_what_is_pushed_there(remote):
    one, other = engine(remote, "a"), engine(remote, "b")
    signed = signature(remote, one)
    remote.put_document("net", "int8", index_of([one, signed]))
    publish(remote, "net", "int8", [[other]])
    assert listed(remote) == {one.digest, signed.digest, other.digest}


def test_tags_do_not_take_from_each_other(remote):
    one, other = engine(remote, "a"), engine(remote, "b")
    publish(remote, "net", "int8", [[one]])
    publish(remote, "net", "int8-fp16", [[other]])
    assert listed(remote) == {one.digest}
    assert listed(remote, "int8-fp16") == {other.digest}


def test_a_push_that_changes_nothing_writes_nothing(remote, monkeypatch):
    one = engine(remote, "a")
    before = publish(remote, "net", "int8", [[one]])
    monkeypatch.setattr(type(remote), "put_document", lambda *_: pytest.fail("written"))
    assert publish(remote, "net", "int8", [[one]]) == before


def test_pushes_at_the_same_time_all_survive(remote):
    engines = [engine(remote, f"target{number}") for number in range(6)]
    barrier = Barrier(len(engines))

    def push(one: Descriptor) -> None:
        barrier.wait()
        publish(remote, "net", "int8", [[one]])

    with ThreadPoolExecutor(len(engines)) as pool:
        list(pool.map(push, engines))
    assert listed(remote) == {one.digest for one in engines}


class Stepped:
    """A remote on which one thread's calls happen when the test says so."""

    def __init__(self, remote, steps) -> None:
        self._remote, self._steps = remote, steps

    def __getattr__(self, name):
        call = getattr(self._remote, name)

        def stepped(*words):
            next(self._steps)
            return call(*words)

        return stepped


@pytest.mark.parametrize("when", range(10))
def test_a_push_in_the_middle_of_another_at_any_of_its_steps_survives_it_and_so_does_the_other(folder, when):
    remote = connect(f"oci-layout:{folder}")
    slow, quick, third = (engine(remote, name) for name in ("slow", "quick", "third"))
    publish(remote, "net", "int8", [[third]])

    def steps():
        for step in itertools.count():
            if step == when:
                publish(remote, "net", "int8", [[quick]])
            yield

    publish(Stepped(remote, steps()), "net", "int8", [[slow]])
    publish(remote, "net", "int8", [[quick]])
    assert listed(remote) == {slow.digest, quick.digest, third.digest}


def test_a_write_of_an_older_index_is_mended_by_whoever_made_it(folder):
    """What reading again after one's own write can't see: a write that was decided before it and comes late."""
    remote = connect(f"oci-layout:{folder}")
    late, early = engine(remote, "late"), engine(remote, "early")
    done = []

    class Late:
        """Between its last look at the tag and its write, somebody else pushes."""

        def __getattr__(self, name):
            return getattr(remote, name)

        def put_document(self, name, reference, document):
            if reference == "int8" and not done:
                done.append(publish(remote, "net", "int8", [[early]]))
            remote.put_document(name, reference, document)

    publish(Late(), "net", "int8", [[late]])
    assert done
    assert listed(remote) == {late.digest, early.digest}


def test_what_a_killed_push_left_out_is_added_by_the_next_one(folder):
    remote = connect(f"oci-layout:{folder}")
    lost, other = engine(remote, "lost"), engine(remote, "other")
    publish(remote, "net", "int8", [[lost]])
    remote.put_document("net", "int8", index_of([]))  # as a push that was killed after a late write leaves it
    publish(remote, "net", "int8", [[other]])
    assert listed(remote) == {lost.digest, other.digest}


def test_what_the_tag_will_mean_is_attested_before_it_does(folder):
    remote = connect(f"oci-layout:{folder}")
    told = []
    one, other = engine(remote, "a"), engine(remote, "b")
    for part in ([one], [other], [other]):
        publish(
            remote,
            "net",
            "int8",
            [part],
            lambda before, index: told.append((before, index, remote.find("net", "int8"))),
        )
    first, second = index_of([one]), index_of([one, other])
    assert told == [(None, first, None), (first, second, first), (second, second, second)]


def test_a_tag_that_is_written_again_and_again_is_given_up_on(folder, monkeypatch):
    remote = connect(f"oci-layout:{folder}")
    one = engine(remote, "a")
    numbers = itertools.count()
    monkeypatch.setattr(remote, "find", lambda *_: index_of([engine(remote, f"other{next(numbers)}")]))
    with pytest.raises(RemoteError, match="written by others again and again"):
        publish(remote, "net", "int8", [[one]])


@pytest.mark.parametrize("tag", ["int8--0123456789ab", "a" * (TAG_LIMIT + 1)])
def test_a_tag_that_can_have_no_parts_is_refused(folder, tag):
    remote = connect(f"oci-layout:{folder}")
    with pytest.raises(UsageError, match="take another"):
        publish(remote, "net", tag, [[engine(remote, "a")]])


def test_a_part_is_told_from_a_tag():
    assert is_part("int8--0123456789ab")
    assert not any(map(is_part, ("int8", "int8-fp16", "int8--0123", "--0123456789ab")))
