# SPDX-License-Identifier: MIT
"""Rows 18 and 19: requests behind what ends a connection; fields that only the relay may write."""
import contextlib

import pytest
from attack import Cases
from culvert import wait_for


@pytest.fixture(scope="module")
def target(make_target):
    return make_target()


UPGRADE = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n")


def smuggled(target):
    return f"GET /t/home/smuggled HTTP/1.1\r\nHost: h\r\n{target.auth()}\r\n"


# name: (what comes first, statuses); {auth} becomes the Authorization field.
ENDS = {
    "an upgrade that is refused": (f"GET /t/home/x HTTP/1.1\r\nHost: h\r\n{{auth}}{UPGRADE}\r\n",
                                   {200}),
    "an upgrade with a body": (f"GET /t/home/x HTTP/1.1\r\nHost: h\r\n{{auth}}{UPGRADE}"
                               "Content-Length: 400\r\n\r\n", {200, 400}),
    "an upgrade without a token": (f"GET /tunnel HTTP/1.1\r\nHost: h\r\n{UPGRADE}"
                                   "Sec-WebSocket-Protocol: ssh\r\n\r\n", {401}),
    "an upgrade without a key": ("GET /tunnel HTTP/1.1\r\nHost: h\r\n{auth}Connection: Upgrade\r\n"
                                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n", {400}),
    "an upgrade of another version": (
        f"GET /tunnel HTTP/1.1\r\nHost: h\r\n{{auth}}{UPGRADE.replace('13', '12')}\r\n", {426}),
    "a foreign origin": (f"GET /t/home/x HTTP/1.1\r\nHost: h\r\n{{auth}}{UPGRADE}"
                         "Origin: http://evil.example\r\n\r\n", {403}),
    "a malformed request": ("GET /t/home/x HTTP/1.1\r\n{auth}\r\n", {400}),
    "both framings": ("POST /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 4\r\n"
                      "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", {400}),
    "a URI too long": (f"GET /{'x' * 9000} HTTP/1.1\r\nHost: h\r\n\r\n", {414}),
    "fields too large": (f"GET /t/home/x HTTP/1.1\r\nHost: h\r\nX: {'y' * 17000}\r\n\r\n", {431}),
    "a body nobody reads": ("POST /t/none/x HTTP/1.1\r\nHost: h\r\n{auth}Content-Length: 4000"
                            "\r\n\r\n", {404}),
    "a body without a token": ("POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 4000\r\n\r\n",
                               {401}),
    "a chunked body without a token": ("POST /t/home/x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
                                       "chunked\r\n\r\nffff\r\n", {401}),
    "another expectation": ("PUT /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Expect: x\r\n"
                            "Content-Length: 400\r\n\r\n", {417}),
    "CONNECT": ("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n{auth}\r\n", {400, 405}),
    "Connection: close": ("GET /t/home/x HTTP/1.1\r\nHost: h\r\n{auth}Connection: close\r\n\r\n",
                          {200}),
    "HTTP/1.0": ("GET /t/home/x HTTP/1.0\r\nHost: h\r\n{auth}\r\n", {200}),
}


def test_row_18_what_comes_behind_the_end_is_ignored(target):
    cases = Cases()
    before = len(target.service.requests)
    with target.attack():
        for name, (first, statuses) in ENDS.items():
            for count in (1, 200):
                with cases.case(f"{name}, {count} behind"), target.client() as client:
                    with contextlib.suppress(OSError):
                        client.send((first.replace("{auth}", target.auth())
                                     + smuggled(target) * count).encode())
                    response = client.response()
                    assert response.status in statuses, response
                    assert client.is_closed(), "answered, or still open"
    cases.check()
    assert all(r.path != "/smuggled" for r in target.service.requests[before:])


def test_row_18_a_malformed_request_behind_a_good_one_ends_the_connection(target):
    """The good one is answered, the bad one with 400, the good one behind that not at all."""
    before = len(target.service.requests)
    with target.attack(), target.client() as client:
        client.send((f"GET /t/home/first HTTP/1.1\r\nHost: h\r\n{target.auth()}\r\n"
                     "GET /t/home/bad HTTP/1.1\r\nHost : h\r\n\r\n" + smuggled(target)).encode())
        assert client.response().status == 200
        assert client.response().status == 400
        assert client.is_closed()
    assert all(r.path not in ("/smuggled", "/bad") for r in target.service.requests[before:])


def test_row_18_bytes_behind_an_accepted_upgrade_are_the_services(target):
    """Once the service has said 101, what looks like a request is its data."""
    def accept(conn, request):
        conn.send(b"HTTP/1.1 101 S\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        got.append(conn.read_exactly(len(data)))
        return False
    got, data = [], smuggled(target).encode()
    target.service.on("/ws", accept)
    with target.attack(), target.client() as client:
        client.send(f"GET /t/home/ws HTTP/1.1\r\nHost: h\r\n{target.auth()}{UPGRADE}\r\n".encode()
                    + data)
        assert client.head().status == 101
        wait_for(lambda: got, 5, "the bytes")
        assert got == [data]


# ---- row 19 ----

OPTIONS = ["X-Tenant, Authorization", "Host", "Content-Length", "Transfer-Encoding",
           "X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto", "Authorization",
           "Culvert-Authorization", "traceparent", "Content-Type", "Forwarded", "close, Host",
           "keep-alive, X-Forwarded-For, Forwarded, Via", "Culvert-Tenant", "Cookie, X-Tenant"]


def test_row_19_connection_strips_nothing_that_matters(target):
    """What Connection names is hop-by-hop (RFC 9110 §7.6.1), except what the relay writes."""
    cases = Cases()
    with target.attack():
        for option in OPTIONS:
            with cases.case(option):
                response = target.fetch("/strip", method="POST", body=b"hello", headers=[
                    ("Connection", option), ("X-Tenant", "evil"), ("Culvert-Tenant", "evil"),
                    ("X-Forwarded-Host", "evil")])
                assert response.status in (200, 400, 401), response
                if response.status != 200:
                    continue
                assert response.body == b"hello"
                request = [r for r in target.service.requests if r.path == "/strip"][-1]
                for name in ("Host", "Content-Length", "X-Request-Id", "X-Forwarded-For",
                             "X-Forwarded-Proto", "traceparent"):
                    assert len(request.all(name)) == 1, name
                named = {name.strip().lower() for name in option.split(",")}
                assert ("x-tenant" in named) == (not request.all("X-Tenant"))
                assert not request.all("Connection") or "evil" not in request.get("Connection")
                assert not request.all("Authorization"), "the relay's token went further"
                assert not request.all("Culvert-Tenant")
    cases.check()


FORGED = [("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Proto", "gopher"),
          ("X-Forwarded-Host", "evil"), ("X-Forwarded-Port", "666"),
          ("X-Forwarded-User", "root"), ("X-Forwarded-Prefix", "/evil"), ("X-Real-IP", "6.6.6.6"),
          ("Forwarded", "for=6.6.6.6;host=evil"), ("X-Request-Id", "evil"),
          ("Culvert-Agent", "evil"), ("Culvert-Link", "evil"), ("Culvert-User", "evil"),
          ("culvert-anything", "evil"), ("Proxy-Connection", "evil"), ("Keep-Alive", "evil"),
          ("Proxy-Authorization", "evil"), ("TE", "evil"), ("Upgrade", "evil"),
          ("traceparent", "evil"), ("X-Forwarded_For", None), ("Trailer", "evil")]


def test_row_19_forged_fields_are_stripped_or_rewritten(target):
    cases = Cases()
    with target.attack():
        for name, value in FORGED:
            for spelling in (name, name.lower(), name.upper()):
                if value is None:
                    continue
                with cases.case(f"{spelling}: {value}"):
                    response = target.fetch("/forged", headers=[(spelling, value), ("A", "b")])
                    assert response.status in (200, 400)
                    if response.status == 200:
                        request = [r for r in target.service.requests
                                   if r.path == "/forged"][-1]
                        assert request.get("A") == "b"
                        assert value.encode() not in request.head, request.head
    cases.check()


def test_row_19_the_caller_that_is_told_is_the_one_that_called(target):
    """Twice the same field, or a list, changes nothing in what the service is told."""
    target.fetch("/told", headers=[("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-For", "7.7.7.7"),
                                   ("Forwarded", "for=8.8.8.8, for=9.9.9.9"),
                                   ("X-Forwarded-Proto", "https")])
    request = [r for r in target.service.requests if r.path == "/told"][-1]
    assert request.all("X-Forwarded-For") == ["127.0.0.1"]
    assert request.all("X-Forwarded-Proto") == ["http"]
    assert len(request.all("Forwarded")) == 1 and "for=127.0.0.1" in request.get("Forwarded")
    assert request.all("X-Forwarded-Host") == ["relay.test"]


def test_row_19_the_services_hop_by_hop_fields_stay_behind(target):
    def answer(conn, request):
        conn.reply(body=b"ok", headers=[
            ("Connection", "X-Secret, keep-alive"), ("X-Secret", "evil"), ("Keep-Alive", "evil"),
            ("Proxy-Authenticate", "evil"), ("Trailer", "evil"), ("Upgrade", "evil"),
            ("X-Request-Id", "evil"), ("X-Kept", "yes")])
        return True
    target.service.on("/answer", answer)
    with target.attack():
        response = target.fetch("/answer")
        assert response.status == 200 and response.body == b"ok"
        assert response.get("X-Kept") == "yes" and "evil" not in str(response.headers)
