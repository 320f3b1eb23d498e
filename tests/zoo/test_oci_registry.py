"""The registry protocol, against docker-registry; what it can't be made to do wrong a proxy before it does."""

from __future__ import annotations

import base64
import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
from docker_registry import PASSWORD, USER
from faulty import Answer, Fault, always, each, faulty, upstream, with_body

from qzoo.errors import AuthenticationError, IntegrityError, RemoteError, RemoteInterrupted, UsageError
from qzoo.store.layout import INDEX, Descriptor
from qzoo.zoo.connect import connect
from qzoo.zoo.registry import Registry
from qzoo.zoo.remote import Document, index_of

DATA = random.Random(11).randbytes(200_000)
BLOB = Descriptor(mediaType="text/plain", digest=f"sha256:{hashlib.sha256(DATA).hexdigest()}", size=len(DATA))
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


class Logins:
    """Credentials for some origins, which may go to one token service; notes which were asked for."""

    def __init__(self, **origins: tuple[str, str]) -> None:
        self.origins, self.asked, self.service = origins, [], ""

    def for_origin(self, origin: str) -> tuple[str, str] | None:
        self.asked.append(origin)
        return self.origins.get(origin)

    def for_service(self, origin: str, service: str) -> tuple[str, str] | None:
        return self.for_origin(origin) if service in (origin, self.service) else None


def login_for(location: str, password: str = PASSWORD) -> Logins:
    return Logins(**{f"http://{location}": (USER, password)})


@pytest.fixture
def path(tmp_path) -> Path:
    found = tmp_path / "blob"
    found.write_bytes(DATA)
    return found


def nothing(_: int) -> None:
    pass


def read(remote, start: int = 0) -> bytes:
    with remote.blob("net", BLOB, start) as stream:
        assert stream.start == start
        return b"".join(stream.chunks)


def test_a_blob_comes_back_as_it_was_put_and_from_any_byte_on(prefix, path):
    remote, told = connect(prefix), []
    assert not remote.has("net", BLOB)
    remote.put_blob("net", BLOB, path, told.append)
    assert sum(told) == len(DATA)
    assert remote.has("net", BLOB)
    assert read(remote) == DATA
    assert read(remote, 150_000) == DATA[150_000:]


def test_an_empty_blob_can_be_put(prefix, tmp_path):
    empty = Descriptor(mediaType="text/plain", digest=f"sha256:{hashlib.sha256(b'').hexdigest()}", size=0)
    (tmp_path / "empty").write_bytes(b"")
    remote = connect(prefix)
    remote.put_blob("net", empty, tmp_path / "empty", nothing)
    assert remote.has("net", empty)


def test_a_document_is_found_by_tag_and_by_digest_byte_for_byte(prefix):
    remote, document = connect(prefix), index_of([])
    assert remote.find("net", "int8") is None
    remote.put_document("net", "int8", document)
    assert remote.find("net", "int8") == document
    assert remote.find("net", document.digest) == document
    assert remote.find("net", f"sha256:{'0' * 64}") is None


def test_tags_and_names_are_listed_sorted_page_by_page(prefix, monkeypatch, path):
    monkeypatch.setattr("qzoo.zoo.registry.PAGE", 2)
    remote = connect(prefix)
    assert remote.tags("net") == []
    for name in ("other", "net", "third"):
        remote.put_blob(name, BLOB, path, nothing)  # without a blob docker-registry doesn't list it
        remote.put_document(name, "a", index_of([]))
    for tag in ("e", "b", "d", "a", "c"):
        remote.put_document("net", tag, index_of([]))
    assert remote.tags("net") == ["a", "b", "c", "d", "e"]
    assert remote.names() == ["net", "other", "third"]


def test_a_registry_is_told_from_what_is_none(open_registry):
    Registry(open_registry.location).check()
    with faulty(lambda _: Answer(404, {}, b"not here")) as other, pytest.raises(RemoteError, match="is it a registry"):
        Registry(other.location).check()


def test_a_document_that_was_changed_in_the_registrys_storage_is_refused(prefix, open_registry):
    document = index_of([BLOB])
    with faulty(upstream(open_registry.location)) as proxy:
        remote = connect(f"{proxy.location}/{prefix.partition('/')[2]}")
        remote.put_document("net", "int8", index_of([]))
        proxy.faults = always(Fault(change=lambda answer: with_body(answer, document.data)), "/manifests/")
        for reference in ("int8", index_of([]).digest):
            with pytest.raises(
                IntegrityError, match=f"expected {index_of([]).digest}, found {document.digest}"
            ) as raised:
                remote.find("net", reference)
            assert raised.value.exit_code == 6


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"mediaType":"text/html"}', b"\xff", b"[" * 100_000])
def test_a_document_that_is_none_is_refused(body):
    with faulty(lambda _: Answer(200, {}, body)) as server, pytest.raises(IntegrityError):
        connect(server.location).find("net", "int8").children()


def test_a_document_without_end_is_refused():
    with faulty(lambda _: Answer(200, {}, b"x" * 65536), always(Fault(endless=True), "")) as server:
        with pytest.raises(RemoteError, match="more than 4194304 bytes"):
            connect(server.location).find("net", "int8")
        assert server.sent_bytes < 40 << 20


@pytest.mark.parametrize("digest", ["sha256:../../../etc/passwd", "sha512:00", "", "sha256:" + "0" * 63 + "g"])
def test_a_digest_that_is_a_path_is_refused(digest):
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [{"mediaType": INDEX, "digest": digest, "size": 2}]}
    with pytest.raises(IntegrityError, match="no sha256 digest"):
        Document(json.dumps(index).encode()).children()


def test_a_cut_and_a_busy_registry_are_asked_again(open_registry, prefix):
    busy = Fault(change=lambda answer: replace(answer, status=503))
    with faulty(upstream(open_registry.location), each([busy, Fault(cut_after=5)], "/manifests/")) as proxy:
        remote = connect(f"{proxy.location}/{prefix.partition('/')[2]}")
        remote.put_document("net", "int8", index_of([]))
        assert remote.find("net", "int8") == index_of([])
        assert [one.method for one in proxy.asked] == ["PUT", "GET", "GET", "GET"]


def test_an_upload_that_is_cut_begins_again_and_its_progress_adds_up(open_registry, prefix, path):
    cut, told = [True], []

    def behind(asked):
        if asked.method == "PUT" and cut:
            cut.clear()
            raise OSError("cut")
        return upstream(open_registry.location)(asked)

    with faulty(behind) as proxy:
        remote = connect(f"{proxy.location}/{prefix.partition('/')[2]}")
        remote.put_blob("net", BLOB, path, told.append)
        assert remote.has("net", BLOB)
    assert sum(told) == len(DATA)


def test_bytes_that_are_not_the_digests_are_refused_by_the_registry(prefix, tmp_path):
    (tmp_path / "blob").write_bytes(DATA[::-1])
    with pytest.raises(RemoteError, match="DIGEST_INVALID"):
        connect(prefix).put_blob("net", BLOB, tmp_path / "blob", nothing)


def test_a_port_that_nobody_listens_to_is_given_up_on_soon(monkeypatch):
    waits = []
    monkeypatch.setattr("qzoo.zoo.retry.sleep", waits.append)
    monkeypatch.setattr("qzoo.zoo.retry.Backoff.wait", lambda self, failures: waits.append(failures))
    with pytest.raises(RemoteInterrupted, match=r"127.0.0.1:1 can't be reached") as raised:
        connect("127.0.0.1:1").find("net", "int8")
    assert raised.value.exit_code == 3
    assert waits == [1, 2, 3, 4]


# --- who gets in, and what is told to whom


def test_with_the_right_password_everything_goes(closed_registry, path):
    remote = connect(closed_registry.location, login_for(closed_registry.location))
    remote.check()
    remote.put_blob("net", BLOB, path, nothing)
    remote.put_document("net", "int8", index_of([]))
    assert remote.find("net", "int8") == index_of([])
    assert read(remote) == DATA


def test_without_a_login_it_is_said_how_to_log_in(closed_registry):
    with pytest.raises(AuthenticationError, match=f"wants a login: qzoo login {closed_registry.location}") as raised:
        connect(closed_registry.location, Logins()).find("net", "int8")
    assert raised.value.exit_code == 3


def test_a_wrong_password_is_refused_and_not_shown(closed_registry):
    remote = connect(closed_registry.location, login_for(closed_registry.location, "wrong secret"))
    with pytest.raises(AuthenticationError, match="refuses the login") as raised:
        remote.find("net", "int8")
    assert "secret" not in str(raised.value)


def test_a_password_is_sent_only_once_it_is_asked_for(open_registry, prefix):
    with faulty(upstream(open_registry.location)) as proxy:
        logins = login_for(proxy.location)
        connect(f"{proxy.location}/{prefix.partition('/')[2]}", logins).find("net", "int8")
        assert [one.headers.get("Authorization") for one in proxy.asked] == [None]
        assert logins.asked == []


def challenging(behind, scheme: str):
    """Asks for a login before it lets anybody through."""

    def ask(asked):
        if "Authorization" not in asked.headers:
            return Answer(401, {"WWW-Authenticate": scheme}, b"")
        return behind(replace(asked, headers={k: v for k, v in asked.headers.items() if k != "Authorization"}))

    return ask


def test_a_redirect_to_another_origin_is_followed_without_the_login(open_registry, prefix, path):
    connect(prefix).put_blob("net", BLOB, path, nothing)
    repository = prefix.partition("/")[2]
    with faulty(upstream(open_registry.location)) as storage:

        def elsewhere(asked):
            if "/blobs/" in asked.path:
                return Answer(307, {"Location": f"{storage.url}{asked.path}"}, b"")
            return upstream(open_registry.location)(asked)

        with faulty(challenging(elsewhere, "Basic realm=zoo")) as front:
            remote = connect(f"{front.location}/{repository}", login_for(front.location))
            assert read(remote) == DATA
            assert [one.headers.get("Authorization") for one in front.asked] == [None, BASIC]
            assert [one.headers.get("Authorization") for one in storage.asked] == [None]


def test_a_redirect_to_where_a_login_is_wanted_gets_none(closed_registry):
    target = f"http://{closed_registry.location}/v2/net/blobs/{BLOB.digest}"
    with faulty(lambda _: Answer(307, {"Location": target}, b"")) as front:
        logins = login_for(closed_registry.location)
        with pytest.raises(AuthenticationError, match="wants credentials; none are sent there"):
            read(connect(front.location, logins))
        assert logins.asked == []


def test_an_upload_to_another_origin_gets_no_login(open_registry, prefix, path):
    repository = prefix.partition("/")[2]
    with faulty(upstream(open_registry.location)) as storage:

        def elsewhere(asked):
            answer = upstream(open_registry.location)(asked)
            where = answer.headers.get("Location", "")
            moved = where.replace(open_registry.location, storage.location)
            return replace(answer, headers={**answer.headers, "Location": moved} if where else answer.headers)

        def with_own_host(asked):
            return elsewhere(replace(asked, headers={**asked.headers, "Host": open_registry.location}))

        with faulty(challenging(with_own_host, "Basic realm=zoo")) as front:
            remote = connect(f"{front.location}/{repository}", login_for(front.location))
            remote.put_blob("net", BLOB, path, nothing)
            assert remote.has("net", BLOB)
        assert [(one.method, one.headers.get("Authorization")) for one in storage.asked] == [("PUT", None)]


@pytest.mark.parametrize("field", ["token", "access_token"])
def test_a_token_is_fetched_with_the_registrys_login_where_the_user_named_the_service_and_sent_to_the_registry_only(
    open_registry, prefix, field, path
):
    connect(prefix).put_blob("net", BLOB, path, nothing)
    repository = prefix.partition("/")[2]
    with faulty(lambda _: Answer(200, {}, json.dumps({field: "abc.def"}).encode())) as service:
        scheme = f'Bearer realm="{service.url}/token",service="zoo",scope="repository:{repository}/net:pull"'
        with faulty(challenging(upstream(open_registry.location), scheme)) as front:
            logins = login_for(front.location)
            logins.service = service.url
            remote = connect(f"{front.location}/{repository}", logins)
            assert read(remote) == DATA
            assert read(remote, 100) == DATA[100:]
            assert [one.headers.get("Authorization") for one in front.asked] == [
                None,
                "Bearer abc.def",
                "Bearer abc.def",
            ]
        (asked,) = service.asked
        assert asked.headers["Authorization"] == BASIC
        assert asked.path == f"/token?service=zoo&scope=repository%3A{repository}%2Fnet%3Apull".replace(
            "/net", "%2Fnet"
        )


def test_a_registry_gets_no_token_that_another_ones_login_would_give(open_registry):
    """A registry that names another's token service, to be handed what that gives this user."""
    with faulty(lambda _: Answer(200, {}, b'{"token":"abc"}')) as service:
        scheme = f'Bearer realm="{service.url}/token",service="another"'
        with faulty(challenging(upstream(open_registry.location), scheme)) as front:
            connect(front.location, login_for(service.location)).find("net", "int8")
        assert [one.headers.get("Authorization") for one in service.asked] == [None]


def test_the_registrys_login_does_not_go_to_a_token_service_elsewhere(open_registry):
    with faulty(lambda _: Answer(200, {}, b'{"token":"abc"}')) as service:
        with faulty(challenging(upstream(open_registry.location), f'Bearer realm="{service.url}/token"')) as front:
            connect(front.location, login_for(front.location)).find("net", "int8")
        assert [one.headers.get("Authorization") for one in service.asked] == [None]


@pytest.mark.parametrize(
    ("scheme", "says"),
    [
        ('Bearer realm="http://192.0.2.1/token"', "plain HTTP"),
        ('Bearer realm="file:///etc/passwd"', "no http or https address"),
        ("Bearer", "no http or https address"),
        ("Negotiate", "of a kind that qzoo doesn't know"),
        ("", "of a kind that qzoo doesn't know"),
    ],
)
def test_a_challenge_that_can_not_be_met_safely_is_an_error(open_registry, scheme, says):
    registry = challenging(upstream(open_registry.location), scheme)
    with faulty(registry) as front, pytest.raises((AuthenticationError, UsageError), match=says):
        connect(front.location, login_for(front.location)).find("net", "int8")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"token": "a\\r\\nX: y"}', b"{}"])
def test_a_token_service_that_gives_none_is_an_error(open_registry, body):
    with faulty(lambda _: Answer(200, {}, body)) as service:
        registry = challenging(upstream(open_registry.location), f'Bearer realm="{service.url}/token"')
        with faulty(registry) as front, pytest.raises(AuthenticationError, match="no token"):
            connect(front.location).find("net", "int8")


def test_a_redirect_to_plain_http_elsewhere_is_refused():
    moved = Answer(307, {"Location": "http://192.0.2.1/blob"}, b"")
    with faulty(lambda _: moved) as front, pytest.raises(UsageError, match=r"http://192.0.2.1 is plain HTTP"):
        read(connect(front.location))


def test_redirects_without_end_are_given_up_on():
    with faulty(lambda asked: Answer(302, {"Location": asked.path}, b"")) as front:
        with pytest.raises(RemoteError, match="redirects more than 5 times"):
            read(connect(front.location))
        assert len(front.asked) == 6


def test_a_reason_in_an_answer_is_shown_without_what_a_terminal_would_take_for_orders():
    body = json.dumps({"errors": [{"code": "DENIED", "message": "no \x1b[31mway"}]}).encode()
    said = pytest.raises(AuthenticationError, match=r"403 \(DENIED: no \?\[31mway\)")
    with faulty(lambda _: Answer(403, {}, body)) as server, said:
        connect(server.location).find("net", "int8")


def test_plain_http_to_another_machine_needs_insecure():
    with pytest.raises(UsageError, match=r"192.0.2.1 is plain HTTP.* --insecure"):
        connect("http://192.0.2.1/zoo")
    assert connect("http://192.0.2.1/zoo", insecure=True).location == "http://192.0.2.1/zoo"
    assert Registry("192.0.2.1:5000").origin == "https://192.0.2.1:5000"
    assert Registry("192.0.2.1:5000", insecure=True).origin == "http://192.0.2.1:5000"


@pytest.mark.parametrize("location", ["127.0.0.1:5000", "localhost:5000/zoo", "[::1]:5000"])
def test_this_machine_is_spoken_to_in_plain_http(location):
    assert Registry(location).origin.startswith("http://")


@pytest.mark.parametrize(
    "location", ["", "host:port", "user:pw@host", "host/UPPER", "ftp://host", "host?x", "a b", "oci-layout:"]
)
def test_what_is_no_registry_is_a_usage_error(location):
    with pytest.raises(UsageError):
        connect(location)


@pytest.mark.parametrize("location", ["https://user:secret@host/zoo", "https://host/zoo?token=secret"])
def test_an_address_with_a_secret_in_it_is_refused(location):
    with pytest.raises(UsageError):
        connect(location)
