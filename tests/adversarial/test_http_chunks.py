# SPDX-License-Identifier: MIT
"""Row 12: chunked bodies that turn malformed. Nothing behind the fault is forwarded, the stream is
aborted and never used again, and the consumer is told with 400 while no head has gone out."""
import contextlib

import pytest
from attack import Cases
from culvert import wait_for

GOOD = b"3\r\nabc\r\n"
END = b"0\r\n\r\n"
CHUNKS = {
    "size and LF": b"2\nhi\r\n" + END,
    "bare LF after the size": b"5\nhello\r\n" + END,
    "extension with bare LF": b"2;\nxx\r\nhi\r\n" + END,
    "extension with bare CR": b"2;a\rb\r\nhi\r\n" + END,
    "extension with NUL": b"2;a\0b\r\nhi\r\n" + END,
    "size and CR": b"2\rhi\r\n" + END,
    "0x": b"0x2\r\nhi\r\n" + END,
    "plus": b"+2\r\nhi\r\n" + END,
    "minus": b"-2\r\nhi\r\n" + END,
    "underscore": b"2_0\r\nhi\r\n" + END,
    "blank before the size": b" 2\r\nhi\r\n" + END,
    "blank in the size": b"2 0\r\nhi\r\n" + END,
    "comma": b"2,2\r\nhi\r\n" + END,
    "no hex": b"g\r\nhi\r\n" + END,
    "8-bit size": b"\xb2\r\nhi\r\n" + END,
    "17 digits": b"00000000000000002\r\nhi\r\n" + END,
    "overflow": b"fffffffffffffffff\r\nhi\r\n" + END,
    "2^64": b"10000000000000000\r\nhi\r\n" + END,
    "empty size": b"\r\nhi\r\n" + END,
    "only an extension": b";x\r\nhi\r\n" + END,
    "no CRLF after the data": b"2\r\nhiX\r\n" + END,
    "LF after the data": b"2\r\nhi\n" + END,
    "CR after the data": b"2\r\nhi\r" + END,
    "size behind the data": b"2\r\nhi2\r\nhi\r\n" + END,
    "64 KiB of extension": b"2;" + b"x" * 65536 + b"\r\nhi\r\n" + END,
    "64 KiB of digits": b"0" * 65536 + b"2\r\nhi\r\n" + END,
    "extensions in every chunk": (b"1;" + b"x" * 900 + b"\r\nx\r\n") * 1000 + END,
    "forbidden trailer": b"0\r\nContent-Length: 7\r\n\r\n",
    "Host as trailer": b"0\r\nHost: evil\r\n\r\n",
    "Transfer-Encoding as trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer with bare LF": b"0\r\nX: a\nY: b\r\n\r\n",
    "trailer without colon": b"0\r\nX\r\n\r\n",
    "trailer with a blank before the colon": b"0\r\nX : a\r\n\r\n",
    "1 MiB of trailer": b"0\r\nX: " + b"y" * (1 << 20) + b"\r\n\r\n",
    "10,000 trailers": b"0\r\n" + b"X: y\r\n" * 10000 + b"\r\n",
    "LF behind the last chunk": b"0\r\n\n",
    "LF in the last chunk": b"0\n\r\n",
}
# What is merely of no use goes no further, or the request is refused: both are safe.
MAY_PASS = {"Host as trailer", "forbidden trailer", "Transfer-Encoding as trailer",
            "extensions in every chunk"}


@pytest.fixture(scope="module")
def target(make_target):
    target = make_target()
    target.service.on("/early", early)
    return target


def early(conn, request):
    """Its answer begins before the body has ended."""
    conn.start_chunked()
    conn.chunk(b"first")
    with contextlib.suppress(Exception):
        while True:
            conn._fill()
    return False


def check_service(target, connections, requests):
    """What the service saw of a body that broke: its good part, and an end that shows the break."""
    wait_for(lambda: all(c.closed_at for c in target.service.connections[connections:]
                         if b"\r\n3\r\nabc" in c.raw), 5, "abort of the stream")
    for conn in target.service.connections[connections:]:
        assert b"smuggled" not in conn.raw and b"hi" not in bytes(conn.raw).split(b"abc\r\n")[-1]
        if b"abc" in conn.raw:
            assert not conn.raw.endswith(END), "the body was ended as if it were whole"
    assert all(r.path != "/smuggled" for r in target.service.requests[requests:])


def send_broken(target, path, data):
    client = target.client()
    with contextlib.suppress(OSError):
        client.send(f"POST {path} HTTP/1.1\r\nHost: h\r\n{target.auth()}Transfer-Encoding: chunked"
                    "\r\n\r\n".encode() + GOOD)
        client.send(data)
        client.send(f"GET /t/home/smuggled HTTP/1.1\r\nHost: h\r\n{target.auth()}\r\n".encode())
    return client


def test_row_12_nothing_is_forwarded_after_the_fault(target):
    cases = Cases()
    with target.attack():
        for name, data in CHUNKS.items():
            before = len(target.service.connections), len(target.service.requests)
            with cases.case(name), send_broken(target, "/t/home/x", data) as client:
                response = client.response()
                if name in MAY_PASS and response.status == 200:
                    assert b"evil" not in bytes(target.service.connections[-1].raw)
                    assert client.response().status == 200  # the one behind it was in order
                    continue
                assert response.status in (400, 431), response
                assert client.is_closed()
                check_service(target, *before)
                assert target.fetch("/after", method="PUT", body=b"mine").body == b"mine"
    cases.check()


def test_row_12_an_answer_that_has_begun_is_cut(target):
    """Its head has gone out: no status can be said any more, the missing last chunk says it."""
    cases = Cases()
    with target.attack():
        for name, data in CHUNKS.items():
            if name in MAY_PASS:
                continue
            before = len(target.service.connections), len(target.service.requests)
            with cases.case(name), target.client() as client:
                client.send(f"POST /t/home/early HTTP/1.1\r\nHost: h\r\n{target.auth()}"
                            "Transfer-Encoding: chunked\r\n\r\n".encode() + GOOD)
                head = client.head()
                assert head.status == 200
                while b"first" not in client.buffer:
                    assert client.fill()
                with contextlib.suppress(OSError):
                    client.send(data)
                client.body(head)
                assert not head.is_complete and head.body == b"first"
                assert client.eof
                check_service(target, *before)
    cases.check()


@pytest.mark.parametrize("name", ["Authorization", "Culvert-Authorization", "X-Forwarded-For",
                                  "Forwarded", "X-Request-Id", "Host", "Transfer-Encoding",
                                  "Content-Length", "Connection", "Upgrade", "Trailer", "TE",
                                  "Culvert-Agent", "Proxy-Authorization", "traceparent",
                                  "X-Real-IP", "Cookie", "Origin", "Content-Type",
                                  "Content-Encoding", "Cache-Control", "Expect", "Max-Forwards"])
def test_row_12_trailers_cannot_bring_what_the_head_may_not(target, name):
    with target.client() as client:
        client.request("POST", "/t/home/x", target.token, body=b"hello", chunked=True,
                       trailers=[(name, "evil-value")])
        response = client.response()
    assert response.status in (200, 400)
    assert all(b"evil-value" not in bytes(conn.raw) for conn in target.service.connections)
