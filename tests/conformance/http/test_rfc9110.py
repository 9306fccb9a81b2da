# SPDX-License-Identifier: MIT
"""RFC 9110 as far as it is about messages: fields, intermediaries, methods, Expect, Upgrade,
statuses."""
import email.utils
import re
import time

import pytest
from http_cases import CHUNKED, GET, POST

clause = pytest.mark.clause
OK = b"HTTP/1.1 200 OK\r\n"
UPGRADE = ("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
           "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA==\r\n")


# -- fields ----------------------------------------------------------------------------------------

@clause("9110:5.1-1", "9110:5.3-1", "9110:5.5-2")
def test_fields_pass_in_order_as_they_are(forwards):
    _, request = forwards(GET + "X-B: 1\r\nX-A: caf\xe9\tx\r\nx-b: 2\r\n"
                          "!#$%&'*+-.^_`|~: odd\r\n\r\n")
    assert request.all("X-B") == ["1", "2"] and request.all("X-A") == ["caf\xe9\tx"]
    assert request.get("!#$%&'*+-.^_`|~") == "odd"


@clause("9110:5.1-1", "9110:5.3-1")
def test_fields_of_answers_too(answers):
    response = answers(OK + b"X-B: 1\r\nX-A: \xe9\r\nx-b: 2\r\nContent-Length: 0\r\n\r\n")
    assert response.all("X-B") == ["1", "2"] and response.get("X-A") == "\xe9"


@clause("9110:5.6.1-1")
def test_empty_elements_of_a_list_mean_nothing(server):
    with server.connect() as client:
        client.send(server.bytes(GET + "Connection: , ,close,, x,\r\n\r\n"))
        assert client.response().status == 200
        assert client.is_closed()


IMF = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d (Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|"
                 r"Nov|Dec) \d{4} \d\d:\d\d:\d\d GMT")


@clause("9110:6.6.1-1", "9110:5.6.7-1")
@pytest.mark.parametrize("text", [GET + "\r\n", "GET /nowhere HTTP/1.1\r\nHost: a\r\n\r\n",
                                  "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "BAD\r\n\r\n"])
def test_answers_have_a_date(side, text):
    date = side.send(text).get("Date")
    assert IMF.fullmatch(date)
    assert abs(email.utils.parsedate_to_datetime(date).timestamp() - time.time()) < 60


@clause("9110:6.6.1-2")
def test_an_answer_gets_a_date_and_keeps_its_own(answers):
    assert IMF.fullmatch(answers(OK + b"Content-Length: 0\r\n\r\n").get("Date"))
    own = b"Sun, 06 Nov 1994 08:49:37 GMT"
    response = answers(OK + b"Date: " + own + b"\r\nContent-Length: 0\r\n\r\n")
    assert response.all("Date") == [own.decode()]


# -- intermediaries --------------------------------------------------------------------------------

@clause("9110:7.6.1-1", "9110:7.6.1-2", "9110:7.6.1-3")
def test_what_is_for_one_hop_stays_there(forwards):
    _, request = forwards(GET + "Connection: x-a, X-B\r\nConnection: KEEP-ALIVE\r\nX-A: 1\r\n"
                          "X-B: 2\r\nX-C: 3\r\nKeep-Alive: timeout=5\r\nProxy-Connection: x\r\n"
                          "TE: gzip\r\nUpgrade: h2c\r\nProxy-Authorization: x\r\n\r\n")
    names = {name.lower() for name, _ in request.headers}
    assert not names & {"connection", "x-a", "x-b", "keep-alive", "proxy-connection", "te",
                        "upgrade", "proxy-authorization"}
    assert request.get("X-C") == "3"


@clause("9110:7.6.1-1", "9110:7.6.1-2")
def test_and_so_on_the_way_back(answers):
    response = answers(OK + b"Connection: X-A\r\nX-A: 1\r\nKeep-Alive: timeout=5\r\nX-C: 3\r\n"
                       b"Proxy-Authenticate: x\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n")
    names = {name.lower() for name, _ in response.headers}
    assert not names & {"x-a", "keep-alive", "proxy-authenticate", "upgrade"} and "x-c" in names


@clause("9110:7.6.1-4")
def test_connection_does_not_take_what_is_for_all(forwards):
    _, request = forwards(POST + "Connection: Host, Content-Length, Cookie, X-Forwarded-For\r\n"
                          "Cookie: a=b\r\nContent-Length: 5\r\n\r\nhello")
    assert request.get("Host") and request.get("Cookie") == "a=b" and request.body == b"hello"
    assert request.get("X-Forwarded-For") == "127.0.0.1"


@clause("9110:7.6.2-1", "9110:7.6.2-2")
def test_max_forwards(relay, forwards):
    before = relay.seen()
    response = relay.send("OPTIONS {p}/x HTTP/1.1\r\nHost: a\r\n{a}Max-Forwards: 0\r\n\r\n")
    assert response.status == 204 and "GET" in response.get("Allow")
    assert relay.seen() == before
    _, request = forwards("OPTIONS {p}/x HTTP/1.1\r\nHost: a\r\n{a}Max-Forwards: 2\r\n\r\n")
    assert request.all("Max-Forwards") == ["1"]
    _, request = forwards(GET + "Max-Forwards: 0\r\n\r\n")
    assert request.method == "GET" and request.all("Max-Forwards") == ["0"]


@clause("9110:7.6.3-1")
def test_via_names_us_behind_the_others(forwards):
    _, request = forwards(GET + "\r\n")
    assert request.all("Via") == ["1.1 culvert"]
    _, request = forwards("GET {p}/x HTTP/1.0\r\nHost: a\r\n{a}Via: 1.1 one\r\nX: y\r\n"
                          "Via: 1.1 two (a; b)\r\n\r\n")
    assert request.all("Via") == ["1.1 one, 1.1 two (a; b), 1.0 culvert"]


@clause("9110:7.7-1")
@pytest.mark.parametrize("target", ["/", "/a%2Fb/../%2e%2e/c", "/?", "/x?a=/../b&%00", "//a//b",
                                    "/a;p=1", "/~!$&'()*+,=:@-._"])
def test_path_and_query_are_not_touched(forwards, target):
    _, request = forwards(f"GET {{p}}{target} HTTP/1.1\r\nHost: a\r\n{{a}}\r\n")
    assert request.target == target


# -- Upgrade ---------------------------------------------------------------------------------------

@clause("9110:7.8-1")
@pytest.mark.parametrize("text", [
    GET + "Connection: Upgrade\r\nUpgrade: made-up/1.0\r\n\r\n",
    GET + UPGRADE.replace("Connection: Upgrade\r\n", "") + "\r\n",
    GET + UPGRADE.replace("websocket", "h2c, websocket") + "\r\n",
    POST + UPGRADE + "\r\n", GET + UPGRADE.replace("Version: 13", "Version: 99") + "\r\n"])
def test_nobody_switches_to_what_was_not_asked_for(server, text):
    assert server.send(text).status != 101


@clause("9110:7.8-1")
def test_a_service_that_switches_unasked_is_502(answers):
    assert answers(b"HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n").status == 502


@clause("9110:7.8-2")
def test_http_1_0_cannot_upgrade(server):
    response = server.send("GET {p}/x HTTP/1.0\r\nHost: a\r\n{a}" + UPGRADE + "\r\n")
    assert response.status == 200
    if server.service:
        assert not server.service.requests[-1].all("Upgrade")


@clause("9110:7.8-3", "9110:15.2.2-1")
def test_an_upgrade_says_connection_upgrade_both_ways(relay):
    def route(conn, request):
        assert request.get("Connection").lower() == "upgrade"
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade"
                  b"\r\n\r\n")
        return False
    relay.service.on("/up", route)
    response = relay.send((GET + UPGRADE + "\r\n").replace("/x", "/up"))
    assert response.status == 101
    assert response.get("Upgrade") == "websocket"
    assert response.get("Connection").lower() == "upgrade"


@clause("9110:7.8-4")
def test_426_says_which_protocol(relay):
    response = relay.send("GET /tunnel HTTP/1.1\r\nHost: a\r\n{a}\r\n")
    assert response.status == 426 and response.get("Upgrade") == "websocket"


# -- methods ---------------------------------------------------------------------------------------

@clause("9110:9.1-1")
def test_methods_have_their_case(forwards):
    _, request = forwards("get {p}/x HTTP/1.1\r\nHost: a\r\n{a}\r\n")
    assert request.method == "get"


@clause("9110:9.1-2", "9110:15.5.6-1")
@pytest.mark.parametrize("text", ["POST /livez HTTP/1.1\r\nHost: a\r\n\r\n",
                                  "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n",
                                  "CONNECT b:443 HTTP/1.1\r\nHost: a\r\n\r\n",
                                  "TRACE {p}/x HTTP/1.1\r\nHost: a\r\n{a}\r\n"])
def test_405_says_what_is_allowed(relay, text):
    response = relay.send(text)
    assert response.status == 405 and "GET" in response.get("Allow")


@clause("9110:9.3.7-1")
def test_options_asterisk(side):
    response = side.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert response.status in (200, 204) and "GET" in response.get("Allow")


@clause("9110:9.3.8-1")
def test_trace_shows_nothing_secret(relay):
    before = relay.seen()
    response = relay.send("TRACE {p}/x HTTP/1.1\r\nHost: a\r\n{a}Cookie: secret\r\n\r\n")
    assert b"secret" not in response.body and b"Bearer" not in response.body
    assert relay.seen() == before


# -- Expect ----------------------------------------------------------------------------------------

@clause("9110:10.1.1-1", "9110:15.2-1")
def test_http_1_0_expects_nothing(server):
    response = server.send("POST {p}/x HTTP/1.0\r\nHost: a\r\n{a}Expect: 100-continue\r\n"
                           "Content-Length: 5\r\n\r\nhello")
    assert response.status == 200 and response.body == b"hello" and not response.interim


@clause("9110:10.1.1-2", "9110:10.1.1-3", "9110:10.1.1-4")
def test_100_comes_before_the_content(server):
    with server.connect(timeout=10) as client:
        client.send(server.bytes(POST + "Expect: 100-Continue\r\nContent-Length: 5\r\n\r\n"))
        client.fill()
        assert client.buffer == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        response = client.response()
        assert response.body == b"hello" and [s for s, _ in response.interim] == [100]


@clause("9110:10.1.1-7")
@pytest.mark.parametrize("text", ["Content-Length: 5\r\n\r\nhello", "Content-Length: 5\r\n\r\nh",
                                  "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"])
def test_who_does_not_wait_is_not_told_to_go_on(server, text):
    """Some clients take the first answer for the last."""
    with server.connect() as client:
        client.send(server.bytes(POST + "Expect: 100-continue\r\n" + text))
        if text.endswith("h"):
            client.send(b"ello")
        response = client.response()
        assert response.status == 200 and response.body == b"hello" and not response.interim


@clause("9110:10.1.1-2")
def test_or_the_final_answer_comes_instead(bare):
    response = bare.send(POST + "Expect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    assert response.status == 401 and not response.interim
    assert response.get("Connection").lower() == "close"


@clause("9110:10.1.1-2")
def test_an_expectation_without_content_is_an_ordinary_request(server):
    with server.connect() as client:
        for _ in range(2):
            client.send(server.bytes(GET + "Expect: 100-continue\r\n\r\n"))
            assert client.response().status == 200


@clause("9110:10.1.1-6")
def test_a_service_is_asked_to_expect_nothing(forwards):
    _, request = forwards(GET + "Expect: 100-continue\r\n\r\n")
    assert not request.all("Expect")


# -- statuses --------------------------------------------------------------------------------------

@clause("9110:15.2-1")
def test_interim_answers_do_not_go_to_http_1_0(answers):
    response = answers(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK +
                       b"Content-Length: 2\r\n\r\nok", version="HTTP/1.0")
    assert response.body == b"ok" and not response.interim


@clause("9110:15.2-2", "9110:15.2-3")
def test_interim_answers_pass_but_for_100(answers):
    response = answers(b"HTTP/1.1 100 Continue\r\n\r\n" +
                       b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3 +
                       b"HTTP/1.1 102 Processing\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok")
    assert response.body == b"ok"
    assert [status for status, _ in response.interim] == [103, 103, 103, 102]


@clause("9110:15.5.2-1")
def test_401_says_how(bare):
    response = bare.send(GET + "\r\n")
    assert response.status == 401 and response.get("WWW-Authenticate").startswith("Bearer ")


@clause("9110:9.3.2-1")
def test_errors_to_head_have_no_content(bare):
    with bare.connect() as client:
        for _ in range(2):
            client.send(bare.bytes("HEAD {p}/x HTTP/1.1\r\nHost: a\r\n\r\n"))
            response = client.response("HEAD")
            assert response.status == 401 and int(response.get("Content-Length")) > 0
            assert client.buffer == b""


@clause("9110:8.6-3")
def test_a_length_is_written_anew_with_what_it_measures(forwards):
    _, request = forwards(CHUNKED + "5\r\nhello\r\n0\r\n\r\n")
    assert not request.all("Content-Length") and request.all("Transfer-Encoding") == ["chunked"]
