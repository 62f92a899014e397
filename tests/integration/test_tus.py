# SPDX-License-Identifier: MPL-2.0
"""Blobs over HTTP: uploads by tus 1.0, downloads with ranges, and what is refused."""

import os
import random
import time

import pytest
from system import eventually
from tus import DATA, Http, Tus, bearer, checksum

PIECE = 65536
ORIGIN = "https://localhost"  # the host that is asked: allowed unless an edge is told others
SYSTEM = {"edges": 2, "blobd": ["--max-bytes", "11000000", "--sweep-s", "1", "--upload-idle-s", "3"],
          "store": ["--blob-quota-bytes", "60000000", "--blob-quota-count", "200"],
          "edge": ["--blob-max-bytes", "12000000", "--transfer-timeout-ms", "2000",
                   "--transfer-min-bytes", "4096", "--user-transfers-max", "4"]}


@pytest.fixture(scope="module")
def people(system):
    ana, ben = system.person(1), system.person(2)
    yield ana, ben
    ana.close()
    ben.close()


@pytest.fixture
def ana(system, people):
    return Tus(system.port, people[0].token)


@pytest.fixture
def ben(system, people):
    return Tus(system.port + 1, people[1].token)


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 17, 1_000_000])
def test_what_goes_up_comes_down(ana, size):
    data = os.urandom(size)
    path = ana.upload(data)
    a = ana.state(path)
    assert a.status == 200 and a.offset == size and int(a["upload-length"]) == size and a["cache-control"] == "no-store"
    a = ana.get(path)
    assert a.status == 200 and a.body == data, a
    assert a["content-disposition"] == "attachment" and a["x-content-type-options"] == "nosniff"
    assert "immutable" in a["cache-control"] and "private" in a["cache-control"] and a["accept-ranges"] == "bytes"


def test_either_edge_goes_on(ana, ben, system, people):
    elsewhere = Tus(system.port + 1, people[0].token)
    data = os.urandom(300_000)
    path = ana.create(len(data))
    at, parts = 0, [1, PIECE, 100_000, len(data)]
    for i, end in enumerate(parts):
        a = [ana, elsewhere][i % 2].patch(path, at, data[at:end])
        assert a.status == 204 and a.offset == end, a
        at = end
    assert ana.get(path).body == elsewhere.get(path).body == data


def test_options_say_what_there_is(ana):
    c = Http(ana.port)
    a = c.ask("OPTIONS", "/blob")
    assert a.status == 204 and a["tus-version"] == "1.0.0" and a["tus-max-size"] == "12000000"
    assert a["tus-checksum-algorithm"] == "sha1,sha256"
    assert set(a["tus-extension"].split(",")) == {"creation", "creation-with-upload", "termination", "expiration", "checksum"}
    assert a["access-control-allow-origin"] is None
    a = c.ask("OPTIONS", "/blob", origin=ORIGIN, access_control_request_method="POST")  # the same connection goes on
    assert a.status == 204 and a["access-control-allow-origin"] == ORIGIN
    for name in ("upload-offset", "tus-resumable", "authorization", "upload-checksum", "range"):
        assert name in a["access-control-allow-headers"].lower(), name
    assert "PATCH" in a["access-control-allow-methods"]
    a = c.ask("OPTIONS", "/blob", origin="https://elsewhere.example")
    assert a.status == 403 and a["access-control-allow-origin"] is None
    c.close()


def test_pages_see_the_headers(ana):
    path = ana.create(3, origin=ORIGIN)
    a = ana.tus("HEAD", path, origin=ORIGIN)
    assert a["access-control-allow-origin"] == ORIGIN and "Origin" in a["vary"]
    assert "upload-offset" in a["access-control-expose-headers"].lower()
    assert ana.tus("HEAD", path, origin="https://elsewhere.example").status == 403
    assert ana.tus("POST", "/blob", upload_length=1, origin="null").status == 403


def test_creation_with_upload(ana):
    data = os.urandom(100_000)
    a = ana.tus("POST", "/blob", data[:70_000], upload_length=len(data), content_type=DATA)
    assert a.status == 201 and a.offset == 70_000 and a["upload-expires"].endswith("GMT"), a
    b = ana.patch(a["location"], 70_000, data[70_000:])
    assert b.status == 204 and b.offset == len(data) and b["upload-expires"] is None
    assert ana.get(a["location"]).body == data
    a = ana.tus("POST", "/blob", data, upload_length=len(data), content_type=DATA, upload_checksum=checksum(data))
    assert a.status == 201 and ana.get(a["location"]).body == data


@pytest.mark.parametrize("name", ["sha1", "sha256"])
def test_checksums(ana, name):
    data = os.urandom(200_000)
    path = ana.create(len(data))
    a = ana.patch(path, 0, data[:150_000], upload_checksum=checksum(data[:150_001], name))
    assert a.status == 460 and a.error == "crypto", a
    assert ana.state(path).offset == 0
    assert ana.patch(path, 0, data[:150_000], upload_checksum=checksum(data[:150_000], name)).offset == 150_000
    assert ana.patch(path, 150_000, data[:50_000], upload_checksum=checksum(data[150_000:], name)).status == 460
    assert ana.state(path).offset == 150_000
    assert ana.patch(path, 150_000, data[150_000:], upload_checksum=checksum(data[150_000:], name)).status == 204
    assert ana.get(path).body == data


def test_a_creation_whose_data_fails_says_where_it_is(ana):
    data = os.urandom(1000)
    a = ana.tus("POST", "/blob", data, upload_length=len(data), content_type=DATA, upload_checksum=checksum(b"else"))
    assert a.status == 460 and ana.state(a["location"]).offset == 0, a
    assert ana.patch(a["location"], 0, data).status == 204
    assert ana.patch(a["location"], 1, b"x")["location"] is None


def test_a_checksum_of_half_the_body_keeps_nothing(ana):
    data = os.urandom(400_000)
    path = ana.create(len(data))
    c = Http(ana.port)
    c.head("PATCH", path, authorization=bearer(ana.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
           content_length=len(data), upload_checksum=checksum(data))
    c.send(data[:300_000])
    c.close()
    assert eventually(lambda: ana.patch(path, 0, data).status == 204, what="the offset is 0")


def test_ranges(ana):
    data = os.urandom(3 * PIECE + 5)
    path = ana.upload(data)
    n = len(data)
    for text, first, end in [("0-0", 0, 1), ("1-", 1, n), ("-1", n - 1, n), (f"0-{n + 5}", 0, n), (f"-{n + 5}", 0, n),
                             (f"{PIECE - 1}-{PIECE}", PIECE - 1, PIECE + 1), (f"{n - 1}-{n - 1}", n - 1, n),
                             (f"{PIECE}-{2 * PIECE - 1}", PIECE, 2 * PIECE)]:
        a = ana.get(path, range="bytes=" + text)
        assert a.status == 206 and a.body == data[first:end], text
        assert a["content-range"] == f"bytes {first}-{end - 1}/{n}"
    for text in (f"{n}-", f"{n + 1}-{n + 2}", "-0"):
        a = ana.get(path, range="bytes=" + text)
        assert a.status == 416 and a["content-range"] == f"bytes */{n}" and a.error == "range", text
    for text in ("bytes=2-1", "bytes=a-b", "bytes=0-1,3-4", "lines=0-1", "bytes=", "bytes=-", "bytes=99999999999999999999-"):
        a = ana.get(path, range=text)
        assert a.status == 200 and a.body == data, text
    empty = ana.upload(b"")
    assert ana.get(empty).status == 200 and ana.get(empty, range="bytes=0-").status == 416


def test_what_a_cache_asks(ana):
    data = os.urandom(1000)
    path = ana.upload(data)
    tag = ana.get(path)["etag"]
    assert tag[0] == tag[-1] == '"' and len(tag) == 66
    for value in (tag, "*", f'"x", {tag}', f"W/{tag}"):
        a = ana.get(path, if_none_match=value)
        assert a.status == 304 and a.body == b"" and a["etag"] == tag and a["content-length"] is None, value
    assert ana.get(path, if_none_match='"x"').status == 200
    assert ana.get(path, range="bytes=5-9", if_range=tag).body == data[5:10]
    assert ana.get(path, range="bytes=5-9", if_range='"other"').body == data
    assert ana.get(path, range="bytes=5-9", if_range="Tue, 01 Jan 2030 00:00:00 GMT").status == 200
    a = ana.ask("HEAD", path)
    assert a.status == 200 and a["content-length"] == "1000" and a["etag"] == tag and a["upload-offset"] is None


def test_only_who_may(system, people, ana, ben):
    data = os.urandom(1000)
    path = ana.create(len(data))
    for a in (ben.state(path), ben.patch(path, 0, data), ben.tus("DELETE", path), ben.get(path)):
        assert a.status == 404 and (not a.body or a.error == "not_found"), a
    assert ana.get(path).status == 404  # not complete
    assert ana.patch(path, 0, data).status == 204
    for a in (ben.state(path), ben.get(path), ben.tus("DELETE", path)):
        assert a.status == 404, a
    for token in (b"", b"x" * 40, ana.token[:-33] + bytes([ana.token[-33] ^ 1]) + ana.token[-32:]):
        a = Tus(ana.port, token).get(path)
        assert a.status == 401 and a.error == "bad_token" and a["www-authenticate"] == "Bearer"
    assert ana.ask("GET", path, authorization=None).status == 401
    assert ana.ask("GET", path, authorization="Basic " + bearer(ana.token)[7:]).status == 401


def test_a_revoked_device_is_out(system):
    person = system.person(1)
    other = system.another_device(person)
    tus = Tus(system.port, other.token)
    data = os.urandom(500_000)
    path = tus.create(len(data))
    c = Http(system.port)
    c.head("PATCH", path, authorization=bearer(other.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
           content_length=len(data))
    c.send(data[:200_000])
    eventually(lambda: tus.state(path).offset > 0, what="data has come")
    person.ask("REVOKE", other.id)
    assert c.answer().status == 0  # cut off
    c.close()
    a = eventually(lambda: (lambda r: r if r.status == 401 else None)(tus.get(path)), what="refused")
    assert a.error == "revoked"
    assert Tus(system.port, person.token).state(path).offset >= 3 * PIECE  # the user's other device goes on
    person.close()


@pytest.mark.parametrize("path", [
    "/blob/", "/blob/..", "/blob/../store", "/blob/%2e%2e/x", "/blob/" + "0" * 32, "/blob/" + "A" * 32, "/blob/" + "g" * 32,
    "/blob/" + "1" * 31, "/blob/" + "1" * 33, "/blob/" + "1" * 32 + "/", "/blob//" + "1" * 31, "/blob/" + "1" * 30 + "%00",
    "/blob/" + "1" * 30 + "\\x", "/blob/uploads/" + "1" * 32, "/blob/./" + "1" * 32, "/blob/" + "1" * 300], ids=range(16))
def test_paths_that_are_none(ana, path):
    assert ana.get(path).status == 404
    assert ana.state(path).status == 404
    assert ana.patch(path, 0, b"x").status == 404


def test_a_query_is_not_looked_at(ana):
    path = ana.upload(b"abc")
    assert ana.get(path + "?../../etc/passwd").body == b"abc"


@pytest.mark.parametrize("headers,status,error", [
    ({"upload_length": None}, 400, "bad_arg"), ({"upload_length": "-1"}, 400, "bad_arg"), ({"upload_length": "1x"}, 400, "bad_arg"),
    ({"upload_length": "99999999999999999999"}, 400, "bad_arg"), ({"upload_length": ""}, 400, "bad_arg"),
    ({"upload_length": None, "upload_defer_length": "1"}, 400, "bad_arg"),
    ({"upload_length": "12000001"}, 413, "too_big"), ({"upload_length": "11500000"}, 413, "too_big"),
    ({"tus_resumable": None}, 412, "tus_resumable"), ({"tus_resumable": "0.2.2"}, 412, "tus_resumable"),
    ({"upload_metadata": "name"}, 201, None), ({"upload_metadata": "name YWJj,other"}, 201, None),
    ({"upload_metadata": "name ***"}, 400, "bad_arg"), ({"upload_metadata": "a YQ==,a YQ=="}, 400, "bad_arg"),
    ({"upload_metadata": "../../x ../../etc"}, 400, "bad_arg"), ({"upload_metadata": ",,"}, 400, "bad_arg"),
    ({"transfer_encoding": "chunked"}, 411, "body"), ({"transfer_encoding": "gzip"}, 501, "body"),
    ({"content_length": "x"}, 400, "body")])
def test_creations_that_are_refused(ana, headers, status, error):
    a = ana.tus("POST", "/blob", **{"upload_length": 10, **headers})
    assert a.status == status and (error is None or a.error == error), a
    if status == 412:
        assert a["tus-version"] == "1.0.0"


@pytest.mark.parametrize("headers,status,error", [
    ({"content_type": "text/plain"}, 415, "content_type"), ({"content_type": None}, 415, "content_type"),
    ({"upload_offset": None}, 400, "bad_arg"), ({"upload_offset": "x"}, 400, "bad_arg"),
    ({"upload_offset": "1"}, 409, "blob_offset"), ({"upload_offset": "100"}, 409, "blob_offset"),
    ({"tus_resumable": "2.0.0"}, 412, "tus_resumable"), ({"upload_checksum": "md5 YWJj"}, 400, "checksum_algorithm"),
    ({"upload_checksum": "sha1 YWJj"}, 400, "checksum_algorithm"), ({"upload_checksum": "sha1"}, 400, "checksum_algorithm"),
    ({"upload_checksum": "sha1 ???"}, 400, "checksum_algorithm")])
def test_data_that_is_refused(ana, headers, status, error):
    path = ana.create(100)
    a = ana.patch(path, 0, b"x" * 50, **headers)
    assert a.status == status and a.error == error, a
    assert ana.state(path).offset == 0
    if status == 409:
        assert a.offset == 0


def test_more_than_was_declared(ana):
    path = ana.create(100)
    assert ana.patch(path, 0, b"x" * 101).error == "too_big"
    assert ana.state(path).offset == 0
    assert ana.tus("POST", "/blob", b"x" * 11, upload_length=10, content_type=DATA).status == 413
    assert ana.tus("POST", "/blob", b"x" * 5, upload_length=10, content_type="text/plain").status == 415


def test_a_complete_upload_is_no_upload(ana):
    path = ana.upload(b"abc")
    assert ana.patch(path, 0, b"abc").status == 409
    assert ana.patch(path, 3, b"d").status == 413
    assert ana.tus("DELETE", path).status == 409
    assert ana.get(path).body == b"abc"


def test_termination_frees_the_quota(system):
    person = system.person(1)
    tus = Tus(system.port, person.token)
    paths = [tus.create(10_000_000) for _ in range(6)]
    a = tus.tus("POST", "/blob", upload_length=1_000_000)
    assert a.status == 507 and a.error == "quota", a
    assert tus.patch(paths[0], 0, b"x" * 1000).status == 204
    assert tus.tus("DELETE", paths[0]).status == 204
    assert tus.state(paths[0]).status == 404 and tus.patch(paths[0], 1000, b"x").status == 404
    assert tus.tus("DELETE", paths[0]).status == 404
    tus.create(1_000_000)
    person.close()


@pytest.mark.parametrize("method,path,allowed", [("PUT", "/blob", "POST"), ("GET", "/blob", "POST"), ("PATCH", "/blob", "POST"),
                                                ("PUT", "/blob/" + "1" * 32, "PATCH"), ("POST", "/blob/" + "1" * 32, "PATCH")])
def test_methods(ana, method, path, allowed):
    a = ana.tus(method, path)
    assert a.status == 405 and allowed in a["allow"]


def test_the_method_may_be_in_a_header(ana):
    path = ana.create(3)
    a = ana.tus("POST", path, b"abc", x_http_method_override="PATCH", upload_offset=0, content_type=DATA)
    assert a.status == 204 and ana.get(path).body == b"abc"
    c = Http(ana.port)  # one connection: nobody waits for a body that does not come
    token = {"authorization": bearer(ana.token)}
    for method in ("POST", "GET", "PUT"):
        a = c.ask(method, path, x_http_method_override="HEAD", **token)
        assert a.status == 200 and a["etag"] and a["content-length"] == "0" and not a.body, a
        a = c.ask(method, path, x_http_method_override="HEAD", tus_resumable="1.0.0", **token)
        assert a.status == 200 and a.offset == 3, a
    a = c.ask("HEAD", path, x_http_method_override="GET", **token)
    assert a.status == 200 and a["content-length"] == "3", a
    assert c.ask("GET", path, x_http_method_override="DELETE", tus_resumable="1.0.0", **token).status == 409
    assert c.ask("POST", path, x_http_method_override="OPTIONS")["tus-version"] == "1.0.0"
    assert c.ask("DELETE", path, x_http_method_override="GET", **token).body == b"abc"
    c.close()


def test_one_connection_for_all(ana):
    c = Http(ana.port)
    headers = {"authorization": bearer(ana.token), "tus_resumable": "1.0.0"}
    data = os.urandom(100_000)
    path = c.ask("POST", "/blob", upload_length=len(data), **headers)["location"]
    for at in range(0, len(data), 10_000):
        a = c.ask("PATCH", path, data[at:at + 10_000], upload_offset=at, content_type=DATA, **headers)
        assert a.status == 204 and a["connection"] is None
    assert c.ask("HEAD", path, **headers).offset == len(data)
    for _ in range(3):
        assert c.ask("GET", path, authorization=bearer(ana.token)).body == data
    assert c.ask("GET", path, authorization=bearer(ana.token), connection="close")["connection"] == "close"
    assert not c.fill()
    c.close()


def test_requests_behind_a_body(ana):
    """What follows a body is the next request, wherever the pieces of TCP end."""
    path = ana.create(200_000)
    c = Http(ana.port)
    c.head("PATCH", path, authorization=bearer(ana.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
           content_length=200_000)
    time.sleep(0.05)  # the head comes alone: then nothing is read beyond the body
    c.send(b"x" * 200_000 + f"HEAD {path} HTTP/1.1\r\nHost: x\r\nTus-Resumable: 1.0.0\r\n"
           f"Authorization: {bearer(ana.token)}\r\n\r\n".encode())
    assert c.answer().status == 204
    assert c.answer("HEAD").offset == 200_000
    c.close()


def test_100_continue(ana):
    data = os.urandom(100_000)
    path = ana.create(len(data))
    c = Http(ana.port)
    headers = {"authorization": bearer(ana.token), "tus_resumable": "1.0.0", "content_type": DATA,
               "content_length": len(data), "expect": "100-continue"}
    c.head("PATCH", path, upload_offset=7, **headers)
    assert c.answer().status == 409  # without any 100
    c.close()
    c = Http(ana.port)
    c.head("PATCH", path, upload_offset=0, **headers)
    assert c.answer().status == 100
    c.send(data)
    assert c.answer().status == 204
    c.close()


@pytest.mark.parametrize("with_checksum", [False, True])
def test_a_client_slower_than_blobd_waits(ana, with_checksum):
    """Less than a part in upload-idle-s, but enough for the edge."""
    data = random.Random(7).randbytes(150_000)
    path, c = ana.create(len(data)), Http(ana.port)
    c.head("PATCH", path, authorization=bearer(ana.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
           content_length=len(data), upload_checksum=checksum(data) if with_checksum else None)
    for at in range(0, 40_000, 1000):
        c.send(data[at:at + 1000])
        time.sleep(0.15)
    c.send(data[40_000:])  # and more than a part at once, behind what was written early
    a = c.answer()
    c.close()
    assert a.status == 204 and a.offset == len(data), a
    assert ana.get(path).body == data


def test_slow_clients(ana):
    path = ana.create(200_000)
    c = Http(ana.port)
    c.head("PATCH", path, authorization=bearer(ana.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
           content_length=200_000)
    start = time.monotonic()
    try:
        while time.monotonic() < start + 8:
            c.send(b"x")
            time.sleep(0.05)
        raise AssertionError("was not cut off")
    except ConnectionError:
        pass
    assert eventually(lambda: ana.state(path).offset > 0, what="what came is kept")
    data = os.urandom(10_000_000)
    path = ana.upload(data)
    c = Http(ana.port, rcvbuf=4096, seconds=20)
    c.head("GET", path, authorization=bearer(ana.token))
    time.sleep(5)  # its buffers fill, and it takes nothing
    a = c.answer()
    assert a.status == 200 and not a.is_whole
    c.close()


def test_so_many_at_once(ana):
    paths = [ana.create(1000) for _ in range(5)]
    open_ones = []
    for path in paths[:4]:
        c = Http(ana.port)
        c.head("PATCH", path, authorization=bearer(ana.token), tus_resumable="1.0.0", upload_offset=0, content_type=DATA,
               content_length=1000, expect="100-continue")
        assert c.answer().status == 100
        open_ones.append(c)
    a = ana.patch(paths[4], 0, b"x" * 1000)
    assert a.status == 429 and a["retry-after"] == "1" and a.error == "rate_limited"
    for c in open_ones:
        c.close()
    assert eventually(lambda: ana.patch(paths[4], 0, b"x" * 1000).status == 204, what="room again")


def test_damage_is_never_given(system, ana):
    data = os.urandom(5 * PIECE)
    path = ana.upload(data)
    name = path.rsplit("/", 1)[1]
    file = system.dir / "blobs/blobs" / name[:3] / name
    with open(file, "r+b") as f:
        f.seek(4096 + 3 * PIECE + 100)
        f.write(b"damaged")
    a = ana.get(path)
    assert a.status == 200 and not a.is_whole and data.startswith(a.body)
    assert ana.get(path, range=f"bytes={3 * PIECE}-").status == 500
    assert ana.get(path, range=f"bytes=0-{PIECE}").body == data[:PIECE + 1]


def test_an_upload_says_when_it_expires(system, ana):
    path = ana.create(1000)
    name = path.rsplit("/", 1)[1]
    file = system.dir / "blobs/uploads" / name
    assert file.exists()
    a = ana.state(path)
    when = time.mktime(time.strptime(a["upload-expires"], "%a, %d %b %Y %H:%M:%S GMT"))
    assert abs(when - time.mktime(time.gmtime()) - 86400) < 60
