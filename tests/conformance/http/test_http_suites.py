# SPDX-License-Identifier: MIT
"""What h1spec, Http11Probe and the HTTP Garden send, to the parser alone, to a relay that nobody
knows, and through a relay to a service that records."""
import pytest
from http_cases import CHUNKED, GET, POST
from suite_cases import BAD, GOOD, framed, get


@pytest.mark.parametrize("text, statuses", [
    pytest.param(text, statuses or (400,), id=f"{suite} {name}")
    for suite, name, text, statuses in BAD])
def test_what_is_malformed(side, text, statuses):
    side.refuses(text, statuses)


@pytest.mark.parametrize("text, body", [pytest.param(text, body, id=f"{suite} {name}")
                                        for suite, name, text, body in GOOD])
def test_what_is_well_formed(server, text, body):
    response = server.send(text)
    assert response.status == 200 and response.body == body and response.is_complete
    assert response.get("Date") and response.get("Content-Type")


@pytest.mark.parametrize("text", [pytest.param(row[2], id=f"{row[0]} {row[1]}") for row in GOOD])
def test_what_is_well_formed_but_has_no_token(bare, text):
    assert bare.send(text).status == 401


@pytest.mark.parametrize("text, body", [
    (framed("Content-Length: 5\r\n"), b"hello"),
    (CHUNKED + "c\r\nHellO world1\r\n0\r\n\r\n", b"HellO world1"),
    (CHUNKED + "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world")])
def test_what_is_behind_the_head_is_the_content(echo, text, body):
    """h1spec reads an answer once and takes all behind the empty line for the content."""
    with echo.connect() as client:
        client.send(echo.bytes(text))
        client.fill()
        head, _, rest = bytes(client.buffer).partition(b"\r\n\r\n")
        assert rest == body and f"Content-Length: {len(body)}".encode() in head.splitlines()


def test_a_long_body_is_echoed_in_chunks(echo):
    body = bytes(range(256)) * 1000
    with echo.connect() as client:
        client.send(echo.bytes(CHUNKED))
        for at in range(0, len(body), 32000):
            part = body[at:at + 32000]
            client.send(b"%x\r\n%s\r\n" % (len(part), part))
        client.send(b"0\r\nX-Sum: 1\r\n\r\n")
        response = client.response()
        assert response.body == body and response.get("Transfer-Encoding") == "chunked"
        client.send(echo.bytes(get()))
        assert client.response().status == 200


@pytest.mark.parametrize("method, status", [
    ("DELETE", 405), ("TRACE", 405), ("FOOBAR", 501), ("get", 501), ("OPTIONS", 204),
    ("PUT", 200), ("PATCH", 200)])
def test_methods_of_the_echo(echo, method, status):
    """COMP-405-ALLOW, COMP-METHOD-TRACE, COMP-UNKNOWN-METHOD, COMP-METHOD-CASE, COMP-NO-CL-IN-204"""
    with echo.connect() as client:
        for _ in range(2):
            client.send(echo.bytes(get(f"{method} {{p}}/ HTTP/1.1\r\n")))
            response = client.response()
            assert response.status == status
            assert bool(response.get("Allow")) == (status in (405, 204))
            assert (response.get("Content-Length") is None) == (status == 204)


@pytest.mark.parametrize("text", [framed("Content-Length: 10\r\n"), CHUNKED + "5\r\nhello\r\n"])
def test_content_that_is_not_whole_is_not_answered(server, text):
    """POST-CL-UNDERSEND, CHUNKED-NO-FINAL"""
    with server.connect(timeout=0.3) as client:
        client.send(server.bytes(text))
        with pytest.raises(TimeoutError):
            client.fill()


@pytest.mark.parametrize("text", [
    POST + "Content-Length: 0\r\n\r\nX", GET + "Content-Length: 5\r\n\r\nhelloX",
    framed("Content-Length: 5\r\n", method="OPTIONS") + "X",
    framed("Content-Length: 5\r\nExpect: 100-continue\r\n") + "X"])
def test_one_byte_too_many_spoils_the_next_request_alone(server, text):
    """CL0-BODY-POISON, GET-CL-BODY-DESYNC, OPTIONS-CL-BODY-DESYNC, EXPECT-100-CL-DESYNC"""
    with server.connect() as client:
        client.send(server.bytes(text))
        assert client.response().status == 200
        client.send(server.bytes("\x00" + get()))
        assert client.response().status == 400
        assert client.is_closed()


def test_a_request_in_a_body_stays_there(server):
    """GET-CL-PREFIX-DESYNC, and the Garden's T21"""
    inner = "GET /evil HTTP/1.1\r\nHost: a\r\n"
    with server.connect() as client:
        client.send(server.bytes(GET + f"Content-Length: {len(inner)}\r\n\r\n" + inner))
        assert client.response().body == inner.encode()
        client.send(server.bytes("\r\n" + get()))
        assert client.response().status == 200
    assert not server.service or all(r.target != "/evil" for r in server.service.requests)


def test_an_invalid_request_behind_a_good_one_costs_only_itself(server):
    """The Garden's S45, B3"""
    for last in ("Connection: close\r\n", ""):
        with server.connect() as client:
            client.send(server.bytes(get(rest=last) + "Invalid\r\n\r\n"))
            assert client.response().status == 200
            if not last:
                assert client.response().status == 400
            assert client.is_closed()
    with server.connect() as client:
        client.send(server.bytes(CHUNKED + "0\r\n\r\n\x00"))
        assert client.response().status == 200
        assert client.response().status == 400


def test_nothing_is_sent_to_who_says_nothing(side):
    """MAL-EMPTY-REQUEST, MAL-INCOMPLETE-REQUEST"""
    for text in ("", "GET {p}/ HTTP/1.1\r\nHost: a\r\nX-Test: value"):
        with side.connect(timeout=0.3) as client:
            client.send(side.bytes(text))
            with pytest.raises(TimeoutError):
                client.fill()
