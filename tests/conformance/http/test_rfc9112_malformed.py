# SPDX-License-Identifier: MIT
"""What RFC 9112 and RFC 9110 call malformed is refused by everyone, before the token is looked at,
and nothing of it reaches the service."""
import itertools

import pytest
from culvert import wait_for
from http_cases import CHUNKED, bodies, heads

numbers = itertools.count()


@pytest.mark.parametrize("text, statuses", heads())
def test_heads(side, text, statuses):
    side.refuses(text, statuses)


@pytest.mark.parametrize("good, fault", bodies())
def test_bodies_that_come_at_once(side, good, fault):
    """In one piece with their head not even that is forwarded."""
    side.refuses(CHUNKED + good + fault)


@pytest.mark.parametrize("good, fault", bodies())
def test_bodies_that_come_late(relay, good, fault):
    """What was right is with the service by then; nothing follows, least of all an end."""
    mark = f"late{next(numbers)}"

    def body(conn):
        return bytes(conn.raw).partition(mark.encode())[2].partition(b"\r\n\r\n")[2]

    with relay.connect() as client:
        client.send(relay.bytes(CHUNKED.replace("/x", f"/{mark}") + "3\r\nabc\r\n"))
        conns = wait_for(lambda: [c for c in relay.service.connections if body(c)], 10, "a chunk")
        client.send(relay.bytes(good + fault + "GET {p}/canary HTTP/1.1\r\nHost: a\r\n{a}\r\n"))
        assert client.response().status == 400
        assert client.is_closed()
    wait_for(lambda: conns[0].closed_at, 10, "the end of the stream")
    assert body(conns[0]) in (b"3\r\nabc\r\n", b"3\r\nabc\r\n5\r\nhello\r\n")
    assert not any(b"canary" in c.raw or b"evil" in c.raw for c in relay.service.connections)
    assert relay.scene.fetch("/after", "POST", body=b"sound").body == b"sound"
