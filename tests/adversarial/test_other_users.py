# SPDX-License-Identifier: MIT
"""Row 44: a user with a good token who wants to know what others have, or to use all there is."""
import contextlib
import re
import time

import pytest
from attack import SLACK, UPGRADE, reset, upgrade


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"MAX_CONNECTIONS_PER_USER": "3"})


def shape(response):
    """The answer without what is different each time."""
    body = re.sub(rb'"request_id":"[^"]*"', b"", response.body)
    # Ids count up: now and then one has a digit more.
    digits = len(response.get("X-Request-Id") or "")
    headers = [(name.lower(), int(value) - digits if name.lower() == "content-length" else value)
               for name, value in response.headers if name.lower() not in ("x-request-id", "date")]
    return response.status, headers, body


@pytest.mark.parametrize("path", ["/t/{}", "/t/{}/", "/t/{}/x", "/t/{}/x?y=1", "/t/{}/../home/x"])
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE"])
def test_row_44_anothers_tunnel_is_one_that_is_not_there(target, path, method):
    with target.attack():
        theirs, nobodys = [target.relay.fetch(path.format(name), target.token, method=method)
                           for name in ("mine", "xine")]
    assert shape(theirs)[:2] == shape(nobodys)[:2]
    assert shape(theirs)[2].replace(b"mine", b"xine") == shape(nobodys)[2]
    assert theirs.status in (404, 204, 301, 308, 400)


def test_row_44_without_a_token_every_name_is_the_same(target):
    answers = [target.relay.fetch(f"/t/{name}/x") for name in ("home", "mine", "xine")]
    assert {a.status for a in answers} == {401}
    assert len({str(shape(a)) for a in answers}) == 1


def test_row_44_names_are_guessed_without_end(target):
    """Thousands of them: as many refusals, and bob does not notice."""
    with target.attack(), target.client() as client:
        for number in range(2000):
            client.request("GET", f"/t/n{number}/x", target.token)
            assert client.response().status == 404


@pytest.mark.timing
def test_row_44_the_time_tells_nothing(target):
    times = {"mine": [], "xine": []}
    with target.client() as client:
        for _ in range(400):
            for name, seen in times.items():
                begin = time.perf_counter()
                client.request("GET", f"/t/{name}/x", target.token)
                client.response()
                seen.append(time.perf_counter() - begin)
    medians = [sorted(seen)[len(seen) // 2] for seen in times.values()]
    assert abs(medians[0] - medians[1]) < 0.0002 * SLACK, medians


@pytest.mark.parametrize("path", ["/api/tunnel/diagnostics", "/api/tunnel/metrics", "/metrics",
                                  "/api/tunnel/config"])
def test_row_44_what_is_for_admins(target, path):
    """403 or 404 for a user, 401 without a token; nothing of bob in the answer."""
    response = target.relay.fetch(path, target.token)
    assert response.status in (403, 404)
    assert b"bob" not in response.body and b"mine" not in response.body
    assert target.relay.fetch(path).status in (401, 404)


@pytest.mark.parametrize("path", ["/health", "/livez", "/readyz", "/api/tunnel/health"])
def test_row_44_pages_for_everybody_name_nobody(target, path):
    response = target.relay.fetch(path, host="localhost")
    assert b"bob" not in response.body and b"mine" not in response.body
    assert b"alice" not in response.body


def test_row_44_ids_of_links_that_are_guessed(target):
    """A resume of what is not there, or is another's: refused, and no link is touched."""
    links = target.counters()["links"]
    with target.attack():
        for number in range(20):
            answer = target.relay.fetch("/tunnel", target.token, headers=[
                *UPGRADE, ("Sec-WebSocket-Protocol", "culvert.v1"),
                ("Culvert-Agent", f"{number:032x}"), ("Culvert-Link", f"{number:032x}"),
                ("Culvert-Resume", "1"), ("Culvert-Nonce", "00" * 16), ("Culvert-Received", "0"),
                ("Culvert-Proof", "00" * 32)], timeout=10) if resumes(target) else None
            assert answer is None or answer.status in (400, 403, 404, 409, 410)
    assert target.counters()["links"] == links


def resumes(target):
    """Whether this relay knows resuming: one that does not takes such a request as a new link."""
    with target.client() as client:
        client.request("GET", "/tunnel", target.token, headers=[
            *UPGRADE, ("Sec-WebSocket-Protocol", "culvert.v1"), ("Culvert-Agent", "ab" * 16),
            ("Culvert-Link", "cd" * 16), ("Culvert-Resume", "1"), ("Culvert-Nonce", "00" * 16),
            ("Culvert-Received", "0"), ("Culvert-Proof", "00" * 32)])
        return client.head().status != 101


def test_row_44_all_of_ones_quota(target):
    """Every link, every stream and every place in the queue of alice's: bob's are his."""
    def hold(conn, request):
        conn.read_body(request)
        time.sleep(2)
        conn.reply(body=b"late")
        return True
    target.service.routes["/hold"] = hold
    with target.attack():
        crowd, clients = [], []
        for _ in range(40):
            with contextlib.suppress(AssertionError):
                crowd.append(upgrade(target, "ssh"))
        assert 0 < len(crowd) < 40, "there is a cap"
        for _ in range(150):
            client = target.client(timeout=30)
            client.request("GET", "/t/home/hold", target.token)
            clients.append(client)
        refused = 0
        for client in clients[100:]:
            client.sock.settimeout(0.05)
            with contextlib.suppress(TimeoutError):
                refused += client.response().status in (429, 503)
        assert refused, "more than the streams and the queue hold are told so"
        for client in crowd:
            client.close()
        for client in clients:
            reset(client.sock)
