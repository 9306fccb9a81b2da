# SPDX-License-Identifier: MIT
"""Rows 16 and 17: expectations without a body, and services whose answers lie, flood or break off.
The consumer gets 502, or an answer that is visibly cut; the stream is never used again."""
import contextlib
import time

import pytest
from attack import IS_SANITIZED, SLACK, Cases
from client import Broken
from culvert import wait_for

FLAT_KIB = (100 if IS_SANITIZED else 8) * 1024


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"CULVERT_LIMITS_BODY_IDLE_TIMEOUT": "1s",
                            "CULVERT_TIMERS_FIRST_BYTE": "2s", "CULVERT_TIMERS_IDLE": "1s"})


def raw(data, then=None):
    def route(conn, request):
        conn.read_body(request)
        conn.send(data)
        if then:
            time.sleep(0.02)
            conn.send(then)
        return False
    return route


def still_works(target):
    assert target.fetch("/x", method="PUT", body=b"after").body == b"after"


# ---- row 16 ----

@pytest.mark.parametrize("framing", ["Content-Length: 5", "Transfer-Encoding: chunked"])
def test_row_16_expect_and_no_body(target, framing):
    """The wait for a body is bounded, with and without the interim answer having been sent."""
    with target.attack():
        crowd = [target.client() for _ in range(20)]
        started = time.monotonic()
        for client in crowd:
            client.send(f"PUT /t/home/x HTTP/1.1\r\nHost: h\r\n{target.auth()}{framing}\r\n"
                        "Expect: 100-continue\r\n\r\n".encode())
        for client in crowd:
            response = client.response()
            assert response.status in (408, 429, 503), response
            assert client.is_closed()
            client.close()
        assert time.monotonic() - started < 10 * SLACK
        still_works(target)


def test_row_16_other_expectations_are_refused(target):
    before = target.service.received_bytes
    for value in ("200-ok", "100-continue, x", "x" * 1000, "100-continue;q=1"):
        response = target.fetch("/x", method="PUT", body=b"x", headers=[("Expect", value)])
        assert response.status == 417, (value, response)
    assert target.service.received_bytes == before


def flood(data, count):
    def route(conn, request):
        with contextlib.suppress(Exception):
            for _ in range(count):
                conn.send(data * 100)
        return False
    return route


INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n",
    "199": b"HTTP/1.1 199 X\r\n\r\n",
    "103 of 30 KiB": b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 30_000 + b"\r\n\r\n",
}


def test_row_16_floods_of_interim_answers(target):
    cases = Cases()
    with target.attack(peak_kib=2 * FLAT_KIB):
        for name, data in INTERIM.items():
            target.service.on("/flood", flood(data, 10_000 if len(data) < 1000 else 100))
            with cases.case(name):
                response = target.fetch("/flood")
                assert response.status == 502, response
                assert len(response.interim) <= 10
                still_works(target)
    cases.check()


def test_row_16_interim_answers_and_then_silence(target):
    """They do not hold the timer of the first byte for ever."""
    def drip(conn, request):
        with contextlib.suppress(Exception):
            for _ in range(9):
                conn.send(INTERIM["102"])
                time.sleep(0.1)
            conn.wait_gone(30)
        return False
    target.service.on("/drip", drip)
    with target.attack():
        started = time.monotonic()
        assert target.fetch("/drip", timeout=30).status in (502, 504)
        assert time.monotonic() - started < 6 * SLACK


SWITCH = b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


@pytest.mark.parametrize("method", ["GET", "POST", "HEAD"])
def test_row_16_an_unasked_101_is_a_502(target, method):
    target.service.on("/switch", raw(SWITCH, b"evil" * 100))
    with target.attack(), target.client() as client:
        client.request(method, "/t/home/switch", target.token,
                       body=b"x" if method == "POST" else None)
        response = client.response(method)
        assert response.status == 502 and b"evil" not in response.body
        still_works(target)


# ---- row 17 ----

OK = b"HTTP/1.1 200 OK\r\n"
SMUGGLED = OK + b"Content-Length: 7\r\nX-Evil: 1\r\n\r\nevil!!!"
# What a consumer may see of each: "502", "cut" (a head, then a visible break), "clean" (a good
# answer without what does not belong to it).
LIES = {
    "length too long": (OK + b"Content-Length: 99\r\n\r\nshort", {"cut"}),
    "length too long by one": (OK + b"Content-Length: 6\r\n\r\nshort", {"cut"}),
    "length and nothing": (OK + b"Content-Length: 5\r\n\r\n", {"cut"}),
    "length too short": (OK + b"Content-Length: 2\r\n\r\nokEVIL", {"clean"}),
    "two answers": (OK + b"Content-Length: 2\r\n\r\nok" + SMUGGLED, {"clean"}),
    "chunks that break off": (OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nshort", {"cut"}),
    "no last chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", {"cut"}),
    "both framings": (OK + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n"
                      b"0\r\n\r\n" + SMUGGLED, {"502", "clean"}),
    "both framings, other order": (OK + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n"
                                   b"2\r\nok\r\n0\r\n\r\n" + SMUGGLED, {"502", "clean"}),
    "two lengths": (OK + b"Content-Length: 2\r\nContent-Length: 9\r\n\r\nok", {"502"}),
    "negative length": (OK + b"Content-Length: -1\r\n\r\n" + SMUGGLED, {"502"}),
    "length in words": (OK + b"Content-Length: two\r\n\r\nok", {"502"}),
    "odd coding": (OK + b"Transfer-Encoding: xchunked\r\n\r\nok", {"502"}),
    "bad chunk size": (OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok", {"502", "cut"}),
    "huge chunk": (OK + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
                   {"502", "cut"}),
    "bare CR in a value": (OK + b"X: a\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "bare LF in a value": (OK + b"X: a\nX-Evil: 1\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "fold": (OK + b"X: a\r\n X-Evil: 1\r\nContent-Length: 0\r\n\r\n", {"502", "clean"}),
    "NUL in a value": (OK + b"X: a\0X-Evil\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "colon in the reason": (b"HTTP/1.1 200 O\rX-Evil: 1\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "blank before the colon": (OK + b"X-Evil : 1\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "204 with a body": (b"HTTP/1.1 204 No\r\nContent-Length: 99\r\n\r\n" + SMUGGLED, {"clean"}),
    "204 chunked": (b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n",
                    {"clean", "502"}),
    "304 with a body": (b"HTTP/1.1 304 Not\r\nContent-Length: 7\r\n\r\n" + SMUGGLED, {"clean"}),
    "103 with a length": (b"HTTP/1.1 103 E\r\nContent-Length: 99\r\nTransfer-Encoding: chunked\r\n"
                          b"\r\n" + OK + b"Content-Length: 2\r\n\r\nok", {"502", "clean"}),
    "status 600": (b"HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n", {"502", "clean"}),
    "status 000": (b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "status 99": (b"HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "HTTP/2": (b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", {"502"}),
    "evil trailers": (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"
                      b"Content-Length: 9\r\nSet-Cookie: evil=1\r\n\r\n", {"clean", "cut"}),
    "forged relay fields": (OK + b"Content-Length: 0\r\nX-Request-Id: evil\r\n"
                            b"Access-Control-Allow-Origin: evil\r\nConnection: Content-Length\r\n"
                            b"\r\n", {"clean", "502"}),
    "nothing": (b"", {"502"}),
    "half a status": (b"HTTP/1.1 2", {"502"}),
    "half a head": (OK + b"Content-Le", {"502"}),
    "no HTTP": (b"SSH-2.0-OpenSSH_9.2\r\n", {"502"}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 50, {"502"}),
    "a head of 1 MiB": (OK + b"X: " + b"y" * (1 << 20) + b"\r\n\r\n", {"502"}),
    "10,000 headers": (OK + b"X: y\r\n" * 10_000 + b"\r\n", {"502"}),
}


def seen(response):
    if response is None:
        return "cut"
    assert not response.all("X-Evil") and "evil" not in str(response.headers), response.headers
    assert b"evil" not in response.body and b"EVIL" not in response.body
    if response.status == 502:
        return "502"
    return "clean" if response.is_complete else "cut"


@pytest.mark.parametrize("is_late", [False, True], ids=["at once", "in two"])
def test_row_17_answers_that_lie(target, is_late):
    """Whatever came first, the next answer on this connection belongs to the next request."""
    cases = Cases()
    with target.attack(log_lines=400):
        for name, (data, allowed) in LIES.items():
            for method in ("GET", "HEAD"):
                cut = len(data) // 2
                route = raw(data[:cut], data[cut:]) if is_late and data else raw(data)
                target.service.on("/lie", route)
                with cases.case(f"{name}, {method}"), target.client() as client:
                    client.request(method, "/t/home/lie", target.token)
                    # A HEAD's answer has no body that could break off.
                    may = allowed | ({"clean", "502"} if method == "HEAD" else set())
                    try:
                        assert seen(client.response(method)) in may
                    except Broken:
                        assert "cut" in may
                    with contextlib.suppress(OSError):
                        # PUT, which may be tried again: the service closes without a word.
                        client.request("PUT", "/t/home/next", target.token, body=b"mine")
                        second = client.response("PUT")
                        assert second is None or second.body == b"mine", second
                    still_works(target)
    cases.check()


def test_row_17_an_answer_before_the_request_has_ended(target):
    """The answer is the consumer's at once; the stream, of which the rest of the request was left
    out, is not used again."""
    def hasty(conn, request):
        conn.reply(413, b"too much", [("Connection", "close")], reason="Too Large")
        with contextlib.suppress(Exception):
            while True:
                conn._fill()
        return False

    def hasty_and_silent(conn, request):
        conn.reply(200, b"enough")
        with contextlib.suppress(Exception):
            conn.wait_gone(30)
        return False
    target.service.on("/hasty", hasty).on("/silent", hasty_and_silent)
    cases = Cases()
    with target.attack():
        for path, status in (("/hasty", 413), ("/silent", 200)):
            for is_chunked in (False, True):
                before = len(target.service.connections)
                with cases.case(f"{path} {is_chunked}"), target.client() as client:
                    framing = "Transfer-Encoding: chunked" if is_chunked else "Content-Length: 999"
                    client.send(f"PUT /t/home{path} HTTP/1.1\r\nHost: h\r\n{target.auth()}"
                                f"{framing}\r\n\r\n".encode())
                    client.send(b"5\r\nhello\r\n" if is_chunked else b"hello")
                    assert client.response().status == status
                    # What follows is the rest of that body, never a request.
                    with contextlib.suppress(OSError):
                        client.send(b"GET /t/home/smuggled HTTP/1.1\r\nHost: h\r\n\r\n" * 3)
                    assert client.is_closed(20)
                    assert all(r.path != "/smuggled" for r in target.service.requests)
                    wait_for(lambda n=before: all(
                        c.closed_at for c in target.service.connections[n:] if b"999" in c.raw
                        or b"chunked" in c.raw), 5, "end of the stream")
                    still_works(target)
    cases.check()


@pytest.mark.parametrize("head, is_visible", [
    (OK + b"Content-Length: 1000\r\n\r\n", True),
    (OK + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n", True),
    (OK + b"\r\n", False),
], ids=["length", "chunked", "until close"])
def test_row_17_a_reset_in_the_body(target, head, is_visible):
    """The break shows, also where only the end of the connection tells the end of the body."""
    def break_off(conn, request):
        conn.send(head + b"x" * 500)
        time.sleep(0.05)
        conn.reset()
        return False
    target.service.on("/reset", break_off)
    with target.attack():
        for _ in range(5):
            with target.client() as client:
                client.request("GET", "/t/home/reset", target.token)
                try:
                    response = client.response()
                    assert response.status == 502 or not response.is_complete, response
                    assert b"x" * 501 not in response.body
                except Broken:
                    pass
                assert client.is_closed()
            still_works(target)


def test_row_17_a_reset_before_the_answer_is_a_502(target):
    def vanish(conn, request):
        conn.reset()
        return False
    target.service.on("/vanish", vanish)
    with target.attack():
        for _ in range(10):
            assert target.fetch("/vanish", method="POST", body=b"x").status == 502
        still_works(target)


def test_row_17_a_service_that_speaks_first_is_not_believed_twice(target):
    """A second answer that arrives while the stream lies in the pool must not be the next one's."""
    def twice(conn, request):
        conn.read_body(request)
        conn.reply(body=b"first")
        time.sleep(0.02)
        conn.send(SMUGGLED)
        return True
    target.service.on("/twice", twice)
    with target.attack():
        for _ in range(10):
            assert target.fetch("/twice").body == b"first"
            stream = [c for c in target.service.connections if b"/twice" in c.raw][-1]
            wait_for(lambda c=stream: c.closed_at, 10, "end of the stream that said too much")
            response = target.fetch("/x", method="POST", body=b"mine")
            assert response.body == b"mine" and not response.all("X-Evil")
