# SPDX-License-Identifier: MIT
"""Rows 10, 11, 13 and 14: heads of requests that two readers might read in two ways, or that are
too much. Refused, the connection closed lingering, not one byte at the service."""
import contextlib
import time

import pytest
from attack import IS_SANITIZED, Cases

FLAT_KIB = (100 if IS_SANITIZED else 8) * 1024

# {auth} becomes the Authorization field, so that nothing but the fault can be what is refused.
FRAMING = {  # row 10; RFC 9112 §6
    "both framings": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 5\r\n"
                     "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both framings, other order": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                     "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 5\r\n"
                   "Content-Length: 6\r\n\r\nhello!",
    "two equal lengths": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 5\r\n"
                   "Content-Length: 5\r\n\r\nhello",
    "list of lengths": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 5, 5\r\n\r\n"
                   "hello",
    "signed length": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: +5\r\n\r\nhello",
    "negative length": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: -5\r\n\r\n",
    "hex length": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 0x5\r\n\r\nhello",
    "length with a space": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Content-Length: 1 0\r\n\r\n",
    "empty length": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length:\r\n\r\n",
    "huge length": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Content-Length: 99999999999999999999\r\n\r\n",
    "xchunked": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Transfer-Encoding: xchunked\r\n\r\n",
    "chunked, identity": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "identity": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Transfer-Encoding: identity\r\n"
                "Content-Length: 5\r\n\r\nhello",
    "chunked twice": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "two codings": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Transfer-Encoding: chunked\r\n"
                   "Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "coding with a vertical tab": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted coding": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "coding on 1.0": "POST /t/home/x HTTP/1.0\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE and no chunked": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: gzip\r\n\r\n",
    "chunked before gzip": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "both framings, chunked twice": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"
                   "Content-Length: 5\r\n\r\n0\r\n\r\n",
    "both framings on GET": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 5\r\n"
                   "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding with a null element": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Transfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n",
}

LINES = {  # row 11; RFC 9112 §2.2, §3 and §5
    "bare LF": "GET /t/home/x HTTP/1.1\nHost: h\n{auth}\n",
    "bare LF in the fields": "GET /t/home/x HTTP/1.1\r\nHost: h\nX: y\r\n{auth}\r\n",
    "bare LF at the end": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\n",
    "bare LF after the request line": "GET /t/home/x HTTP/1.1\nHost: h\r\n{auth}\r\n",
    "bare CR in a value": "GET /t/home/x HTTP/1.1\r\nHost: h\r\nX: a\rY: b\r\n{auth}\r\n",
    "bare CR as line end": "GET /t/home/x HTTP/1.1\rHost: h\r{auth}\r\n\r\n",
    "folded line": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X: a\r\n b\r\n\r\n",
    "folded with tab": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X: a\r\n\tb\r\n\r\n",
    "blank before the first field": "GET /t/home/x HTTP/1.1\r\n Host: h\r\n{auth}\r\n",
    "blank before the colon": "GET /t/home/x HTTP/1.1\r\nHost : h\r\n{auth}\r\n",
    "tab before the colon": "POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}"
                   "Content-Length\t: 5\r\n\r\nhello",
    "no colon": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}NoColon\r\n\r\n",
    "empty name": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}: value\r\n\r\n",
    "8-bit name": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X-\xe9: y\r\n\r\n",
    "NUL in a name": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X\x00: y\r\n\r\n",
    "NUL in a value": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X: a\x00b\r\n\r\n",
    "control in a value": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X: a\x01b\r\n\r\n",
    "DEL in a value": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X: a\x7fb\r\n\r\n",
    "delimiter in a name": "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}X(y): z\r\n\r\n",
    "a thousand leading lines": "\r\n" * 1000 + "GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "no version": "GET /t/home/x\r\nHost: h\r\n{auth}\r\n",
    "HTTP/0.9": "GET /t/home/x\r\n\r\n",
    "lower-case http": "GET /t/home/x http/1.1\r\nHost: h\r\n{auth}\r\n",
    "version with two digits": "GET /t/home/x HTTP/1.10\r\nHost: h\r\n{auth}\r\n",
    "version without a dot": "GET /t/home/x HTTP/11\r\nHost: h\r\n{auth}\r\n",
    "HTTP/2 preface": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "two spaces": "GET  /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "tab as separator": "GET\t/t/home/x\tHTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "space in the target": "GET /t/home/x y HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "fragment in the target": "GET /t/home/x#y HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "8-bit target": "GET /t/home/\xe9 HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "NUL in the target": "GET /t/home/\x00 HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "target without a slash": "GET t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "star with GET": "GET * HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "trailing blank": "GET /t/home/x HTTP/1.1 \r\nHost: h\r\n{auth}\r\n",
    "method with a delimiter": "GE(T /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "leading blank": " GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
}

HOSTS = {  # row 13; RFC 9112 §3.2
    "no Host": "GET /t/home/x HTTP/1.1\r\n{auth}\r\n",
    "two Hosts": "GET /t/home/x HTTP/1.1\r\nHost: h\r\nHost: h\r\n{auth}\r\n",
    "empty Host": "GET /t/home/x HTTP/1.1\r\nHost:\r\n{auth}\r\n",
    "Host with userinfo": "GET /t/home/x HTTP/1.1\r\nHost: u@h\r\n{auth}\r\n",
    "Host with a path": "GET /t/home/x HTTP/1.1\r\nHost: h/p\r\n{auth}\r\n",
    "Host list": "GET /t/home/x HTTP/1.1\r\nHost: a, b\r\n{auth}\r\n",
    "Host with a bad port": "GET /t/home/x HTTP/1.1\r\nHost: h:x\r\n{auth}\r\n",
    "Host with a blank": "GET /t/home/x HTTP/1.1\r\nHost: a b\r\n{auth}\r\n",
    "Host with a bad literal": "GET /t/home/x HTTP/1.1\r\nHost: [::1\r\n{auth}\r\n",
    "absolute form, other authority": "GET http://other/t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "three Hosts": "GET /t/home/x HTTP/1.1\r\nHost: h\r\nHost: h\r\nHost: h\r\n{auth}\r\n",
    "two Hosts, one empty": "GET /t/home/x HTTP/1.1\r\nHost: h\r\nHost:\r\n{auth}\r\n",
    "Host with a query": "GET /t/home/x HTTP/1.1\r\nHost: h?q\r\n{auth}\r\n",
    "Host with a fragment": "GET /t/home/x HTTP/1.1\r\nHost: h#f\r\n{auth}\r\n",
    "Host with a backslash": "GET /t/home/x HTTP/1.1\r\nHost: h\\p\r\n{auth}\r\n",
    "Host with a scheme": "GET /t/home/x HTTP/1.1\r\nHost: http://h\r\n{auth}\r\n",
    "Host with an 8-bit byte": "GET /t/home/x HTTP/1.1\r\nHost: h\xe9\r\n{auth}\r\n",
    "Host with a port too large": "GET /t/home/x HTTP/1.1\r\nHost: h:65536\r\n{auth}\r\n",
    "Host with two ports": "GET /t/home/x HTTP/1.1\r\nHost: h:80:80\r\n{auth}\r\n",
    "absolute form, other port": "GET http://h:81/t/home/x HTTP/1.1\r\nHost: h:80\r\n{auth}\r\n",
    "absolute form with userinfo": "GET http://u@h/t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "absolute form without authority": "GET http:///t/home/x HTTP/1.1\r\nHost: h\r\n{auth}\r\n",
    "absolute form, no Host": "GET http://h/t/home/x HTTP/1.1\r\n{auth}\r\n",
}

ALLOWED = {
    "xchunked": {400, 501}, "identity": {400, 501}, "quoted coding": {400, 501},
    "coding with a vertical tab": {400, 501}, "version with two digits": {400, 505},
    "huge length": {400, 413},
}


@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"CULVERT_PUBLIC_HOST": "relay.test"})


def refuse(target, name, text, is_split, behind=b""):
    """Sends it, and one good request behind it that must not be served."""
    data = text.replace("{auth}", target.auth()).encode("latin-1")
    behind = behind or (f"GET /t/home/smuggled HTTP/1.1\r\nHost: h\r\n{target.auth()}\r\n"
                        .encode())
    before = target.service.received_bytes
    with target.client() as client:
        with contextlib.suppress(OSError):  # it may be refused already
            if is_split:
                client.send(data[:len(data) // 2])
                time.sleep(0.005)
                data = data[len(data) // 2:]
            client.send(data + behind)
        response = client.response()
        assert response is not None, "no answer before the close"
        assert response.status in ALLOWED.get(name, {400}), response.body
        assert client.is_closed(), "the connection is closed, what followed is not served"
    assert target.service.received_bytes == before, "bytes reached the service"


def refuse_all(target, heads):
    cases = Cases()
    with target.attack():
        for name, text in heads.items():
            for is_split in (False, True):
                with cases.case(f"{name}, split {is_split}"):
                    refuse(target, name, text, is_split)
    cases.check()


def test_row_10_framing_in_two_ways(target):
    refuse_all(target, FRAMING)


def test_row_11_lines_that_are_none(target):
    refuse_all(target, LINES)


def test_row_13_hosts_that_are_none(target):
    refuse_all(target, HOSTS)


def test_row_10_11_the_answer_is_not_lost_to_a_reset(target):
    """A lingering close: half a megabyte comes behind the fault while the answer is on its way."""
    cases = Cases()
    with target.attack():
        for name in ("both framings", "two lengths", "xchunked", "coding on 1.0"):
            with cases.case(name):
                refuse(target, name, FRAMING[name], False, b"x" * 500_000)
        for name in ("bare LF", "no version", "folded line", "8-bit name"):
            with cases.case(name):
                refuse(target, name, LINES[name], False, b"x" * 500_000)
    cases.check()


def test_row_10_two_tokens_are_no_token(target):
    before = target.service.received_bytes
    header = ("Authorization", f"Bearer {target.token}")
    assert target.fetch("/x", headers=[header]).status in (400, 401)
    assert target.service.received_bytes == before


def test_row_11_one_empty_line_before_the_request_is_tolerated(target):
    with target.client() as client:
        client.send(f"\r\nGET /t/home/x HTTP/1.1\r\nHost: h\r\n{target.auth()}\r\n".encode())
        assert client.response().status == 200


# ---- row 13: whatever is asked, the tunnel is the one of the validated authority ----

def test_row_13_the_routing_key_is_the_validated_one(target):
    """alice has `home` only; `mine` is bob's and answers 404 to her."""
    cases = Cases()
    for line, host, extra, status in [
            ("/x", "home.relay.test", "", 200), ("/x", "HOME.Relay.Test", "", 200),
            ("/x", "home.relay.test:443", "", 200), ("/x", "mine.relay.test", "", 404),
            ("http://home.relay.test/x", "home.relay.test", "", 200),
            ("HTTP://HOME.RELAY.TEST/x", "home.relay.test", "", 200),
            ("http://home.relay.test/x", "mine.relay.test", "", 400),
            ("http://mine.relay.test/x", "home.relay.test", "", 400),
            ("http://home.relay.test:81/x", "home.relay.test:82", "", 400),
            ("/x", "mine.relay.test", "X-Forwarded-Host: home.relay.test", 404),
            ("/x", "mine.relay.test", "Forwarded: host=home.relay.test", 404),
            ("/x", "mine.relay.test", "X-Host: home.relay.test", 404),
            ("/x", "home.mine.relay.test", "", 404), ("/x", ".relay.test", "", {400, 404}),
            ("/x", "home.relay.test.", "", {400, 404}), ("/x", "xrelay.test", "", 404),
            ("/x", "home.relay.test@mine.relay.test", "", 400),
            ("/x", "home.relay.test, mine.relay.test", "", 400),
            ("/t/home/x", "mine.relay.test", "", 404), ("/livez", "mine.relay.test", "", 404),
            ("/t/mine/x", "relay.test", "", 404), ("/t/home/x", "relay.test", "", 200)]:
        with cases.case(f"{line} {host} {extra}"), target.client() as client:
            client.send(f"GET {line} HTTP/1.1\r\nHost: {host}\r\n{target.auth()}"
                        f"{extra}{chr(13) + chr(10) if extra else ''}\r\n".encode())
            got = client.response().status
            assert got in (status if isinstance(status, set) else {status}), got
    cases.check()


# ---- row 14 ----

def big(target, line="GET /t/home/x HTTP/1.1", fields=""):
    return f"{line}\r\nHost: h\r\n{target.auth()}{fields}\r\n\r\n".encode()


def test_row_14_heads_that_are_too_much(target):
    heads = {
        "a header of 1 MiB": (big(target, fields="X: " + "y" * (1 << 20)), {431}),
        "a name of 1 MiB": (big(target, fields="x" * (1 << 20) + ": y"), {431}),
        "10,000 headers": (big(target, fields="X: y\r\n" * 9999 + "X: y"), {431}),
        "10,000 empty headers": (big(target, fields="X:\r\n" * 9999 + "X:"), {431}),
        "101 headers": (big(target, fields="X: y\r\n" * 100 + "X: y"), {431}),
        "a URI of 64 KiB": (big(target, f"GET /t/home/{'x' * 65536} HTTP/1.1"), {414}),
        "a query of 64 KiB": (big(target, f"GET /t/home/x?{'x' * 65536} HTTP/1.1"), {414}),
        "an absolute form of 64 KiB": (
            big(target, f"GET http://{'h' * 65536}/t/home/x HTTP/1.1"), {414}),
        "a method of 64 KiB": (big(target, f"{'M' * 65536} /t/home/x HTTP/1.1"), {400, 414, 501}),
        "a version of 64 KiB": (big(target, f"GET /t/home/x HTTP/1.{'1' * 65536}"),
                                {400, 414, 505}),
        "a token of 1 MiB": (big(target, fields="Culvert-Authorization: Bearer " + "A" * (1 << 20)),
                             {431}),
        "spaces of 1 MiB": (big(target, fields="X:" + " " * (1 << 20) + "y"), {431}),
    }
    cases = Cases()
    with target.attack(peak_kib=FLAT_KIB):
        for name, (data, statuses) in heads.items():
            for piece in (len(data), 5000):
                before = target.service.received_bytes
                with cases.case(f"{name} in {piece}"), target.client() as client:
                    with contextlib.suppress(OSError):
                        for at in range(0, len(data), piece):
                            client.send(data[at:at + piece])
                    response = client.response()
                    assert response is not None and response.status in statuses, response
                    assert client.is_closed()
                    assert target.service.received_bytes == before
    cases.check()


def test_row_14_two_hundred_of_them_at_once(target):
    """What does not end is not kept: each costs a head's cap, not a megabyte."""
    with target.attack(peak_kib=FLAT_KIB + 200 * 64):
        crowd = [target.client() for _ in range(200)]
        for client in crowd:
            client.send(b"GET /t/home/x HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 15_000)
        for client in crowd:
            with contextlib.suppress(OSError):
                client.send(b"y" * 300_000)
        for client in crowd:
            assert client.response().status == 431
            client.close()
