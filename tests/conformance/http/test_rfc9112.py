# SPDX-License-Identifier: MIT
"""RFC 9112, what is well-formed: read as it says, forwarded as it says, answered as it says."""
import time

import pytest
from client import Broken, Client
from culvert import wait_for
from http_cases import CHUNKED, GET, POST

clause = pytest.mark.clause


# -- requests, as the server and as the service read them -----------------------------------------

ACCEPTED = [
    # (clauses, name, text, the body that comes back)
    ("9112:2.2-1", "bytes over 127 in a value", GET + "X: caf\xe9\r\n\r\n", b""),
    ("9112:2.2-6", "an empty line in front", "\r\n" + GET + "\r\n", b""),
    ("9112:3-5", "a request line of 8,000 bytes",
     "GET {p}/" + "a" * 7900 + " HTTP/1.1\r\nHost: a\r\n{a}\r\n", b""),
    ("9112:3.2.2-1", "the absolute form", "GET http://a{p}/x HTTP/1.1\r\nHost: a\r\n{a}\r\n", b""),
    ("9112:3.2.2-1", "the absolute form of HTTP/1.0 without Host",
     "GET http://a{p}/x HTTP/1.0\r\n{a}\r\n", b""),
    ("9112:5.1-3", "white space around values",
     POST + "Content-Length: \t 5  \r\nX:\t\r\nY:\r\nZ: \t z \t\r\n\r\nhello", b"hello"),
    ("9112:6.3-8", "POST without framing", POST + "\r\n", b""),
    ("9112:6.3-8", "a length of 0", POST + "Content-Length: 0\r\n\r\n", b""),
    ("9112:6.3-8", "GET with a body", GET + "Content-Length: 5\r\n\r\nhello", b"hello"),
    ("9112:6.1-1 9112:7.1-1", "one chunk", CHUNKED + "5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("9112:7.1-1", "two chunks", CHUNKED + "5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
     b"hello world"),
    ("9112:7.1-1", "no chunk but the last", CHUNKED + "0\r\n\r\n", b""),
    ("9112:7.1-1", "leading zeros and capitals", CHUNKED + "000A\r\n0123456789\r\n00\r\n\r\n",
     b"0123456789"),
    ("9112:7-1", "the coding in capitals",
     POST + "Transfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", b"hello"),
    ("9112:7.1.1-1", "extensions",
     CHUNKED + "5;a;b=c;d=\"e f\\\"\"\r\nhello\r\n0;last\r\n\r\n", b"hello"),
    ("9112:7.1.2-1", "a trailer", CHUNKED + "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n", b"hello"),
]


@pytest.mark.parametrize("text, body", [
    pytest.param(text, body, id=name, marks=clause(*keys.split()))
    for keys, name, text, body in ACCEPTED])
@pytest.mark.parametrize("is_split", [False, True], ids=["whole", "pieces"])
def test_requests_that_are_read(server, text, body, is_split):
    data = server.bytes(text)
    step = len(data) if not is_split else 97 if len(data) > 2000 else 1
    with server.connect() as client:
        for at in range(0, len(data), step):
            client.send(data[at:at + step])
        response = client.response()
    assert response.status == 200, response.body
    assert response.body == body and response.is_complete
    if server.service:
        request = server.service.requests[-1]
        assert request.version == "HTTP/1.1" and request.body == body


@pytest.mark.parametrize("text, body", [pytest.param(text, body, id=name)
                                        for _, name, text, body in ACCEPTED])
def test_without_a_token_they_are_401_and_never_400(bare, text, body):
    response = bare.send(text)
    assert response.status == 401 and response.get("WWW-Authenticate")


@clause("9112:3-1")
def test_what_is_malformed_is_never_corrected(side):
    response = side.refuses("GET  {p}/x HTTP/1.1\r\nHost: a\r\n{a}\r\n")
    assert response.get("Location") is None


@clause("9112:2.2-9", "9112:3-1")
@pytest.mark.parametrize("text", ["G", "GET ", "GET {p}/x", "GET {p}/x ", "GET {p}/x HTTP",
                                  "GET {p}/x HTTP/1.1", "GET {p}/x HTTP/1.1\r",
                                  "GET {p}/x HTTP/1.1\r\n", "GET {p}/x HTTP/1.1\r\nHos",
                                  "GET {p}/x HTTP/1.1\r\nHost:", "GET {p}/x HTTP/1.1\r\nHost: a\r",
                                  "GET {p}/x HTTP/1.1\r\nHost: a\r\n",
                                  "GET {p}/x HTTP/1.1\r\nHost: a\r\n\r", "\r\n", "\r"])
def test_a_head_that_may_still_be_right_is_waited_for(side, text):
    with side.connect(timeout=0.15) as client:
        client.send(side.bytes(text))
        with pytest.raises(TimeoutError):
            client.fill()


# -- what the service gets -------------------------------------------------------------------------

def strict(data, canaries=()):
    """Insists on requests in canonical form, one after the other; gives their heads."""
    heads = []
    while data:
        head, mark, data = data.partition(b"\r\n\r\n")
        assert mark, data
        lines = head.split(b"\r\n")
        assert not any(b"\r" in line or b"\n" in line or b"\0" in line for line in lines), lines
        assert lines[0].endswith(b" HTTP/1.1") and lines[0].count(b" ") == 2, lines[0]
        names = []
        for line in lines[1:]:
            name, colon, value = line.partition(b": ")
            assert colon and name and not set(name) & set(b" \t\"(),/:;<=>?@[\\]{}"), line
            assert value == value.strip(), line
            names.append(name.lower())
        assert names.count(b"host") == 1, names
        assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1, names
        heads.append(head)
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        if fields.get(b"transfer-encoding"):
            assert fields[b"transfer-encoding"] == b"chunked"
            while True:
                size, mark, data = data.partition(b"\r\n")
                assert mark and size == b"%x" % int(size, 16), size
                if size == b"0":
                    break
                assert data[int(size, 16):int(size, 16) + 2] == b"\r\n"
                data = data[int(size, 16) + 2:]
            while not data.startswith(b"\r\n"):
                data = data.partition(b"\r\n")[2]
            data = data[2:]
        else:
            data = data[int(fields.get(b"content-length", 0)):]
    return heads


@clause("9112:2.2-3", "9112:2.2-5", "9112:2.2-7", "9112:3.2-1", "9112:3.2-3", "9112:5.2-1",
        "9112:6.2-1", "9112:6.1-2", "9112:2.3-2")
def test_all_that_a_service_ever_gets_is_in_canonical_form(world):
    from scene import Scene
    scene = Scene(world)
    auth = f"Authorization: Bearer {scene.token}\r\n"
    with scene.client() as client:
        for _, _, text, _ in ACCEPTED:
            if "HTTP/1.0" in text:
                continue
            client.send(text.replace("{p}", "/t/home").replace("{a}", auth).encode("latin-1"))
            assert client.response().status == 200
    heads = [head for conn in scene.service.connections for head in strict(bytes(conn.raw))]
    assert len(heads) == len([row for row in ACCEPTED if "HTTP/1.0" not in row[2]])
    assert all(b"\r\nHost: 127.0.0.1:%d\r\n" % scene.service.port in head or
               b"\r\nHost: localhost:%d\r\n" % scene.service.port in head for head in heads)


@clause("9112:3.2.1-1", "9112:3.2.2-3")
def test_an_empty_path_becomes_a_slash_and_host_the_services_own(forwards, relay):
    _, request = forwards("GET http://a{p} HTTP/1.1\r\nHost: a\r\n{a}\r\n".replace("{p}", "{p}/"))
    assert request.target == "/"
    _, request = forwards("GET http://a{p}/?q HTTP/1.1\r\nHost: a\r\n{a}\r\n")
    assert request.target == "/?q" and request.get("Host") != "a"


@clause("9112:2.3-2", "9110:2.5-1")
def test_versions_are_our_own_both_ways(forwards, answers):
    response, request = forwards("GET {p}/x HTTP/1.0\r\nHost: a\r\n{a}\r\n")
    assert request.version == "HTTP/1.1" and response.version == "HTTP/1.1"
    response = answers(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    assert response.version == "HTTP/1.1"


@clause("9112:7.4-1")
def test_te_stays_here(forwards):
    _, request = forwards(GET + "TE: trailers, gzip\r\nConnection: TE\r\n\r\n")
    assert not request.all("TE") and "te" not in (request.get("Connection") or "").lower()


@clause("9112:7.1.2-1", "9110:6.5.1-2")
def test_trailers_stay_trailers(forwards):
    _, request = forwards(CHUNKED + "5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")
    assert request.trailers == [("X-Sum", "1")] and not request.all("X-Sum")


# -- answers ---------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


@clause("9112:4-1", "9112:4-2")
def test_a_reason_may_be_missing_the_space_may_not(relay):
    def route(conn, request):
        conn.send(b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok")
    relay.service.on("/bare", route)
    with relay.connect() as client:
        client.send(relay.bytes("GET {p}/bare HTTP/1.1\r\nHost: a\r\n{a}\r\n"))
        client.fill()
        assert client.buffer.startswith(b"HTTP/1.1 200 ")
        assert client.response().body == b"ok"


BAD_ANSWERS = [
    ("9112:5.1-2", "space before a colon", OK + b"X : a\r\nContent-Length: 0\r\n\r\n"),
    ("9112:5.2-3", "a folded line", OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n"),
    ("9112:6.3-3", "both framings",
     OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("9112:6.3-6", "two lengths", OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"),
    ("9112:6.3-6", "a signed length", OK + b"Content-Length: +2\r\n\r\nok"),
    ("9112:6.3-6", "no number", OK + b"Content-Length: two\r\n\r\nok"),
    ("9112:2.2-4", "CR in a value", OK + b"X: a\rY: b\r\nContent-Length: 0\r\n\r\n"),
    ("9112:2.2-2", "LF for a line's end", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("9112:6.1-7", "a coding on HTTP/1.0",
     b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ("9110:5.5-1", "NUL in a value", OK + b"X: a\x00b\r\nContent-Length: 0\r\n\r\n"),
    ("9112:5.1-4", "an empty name", OK + b": a\r\nContent-Length: 0\r\n\r\n"),
    ("9112:2.3-1", "HTTP/2.0", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    ("9112:8-1", "a head that breaks off", OK + b"Content-Le"),
]


@pytest.mark.parametrize("data", [pytest.param(data, id=name, marks=clause(*keys.split()))
                                  for keys, name, data in BAD_ANSWERS])
def test_answers_that_are_malformed_are_502_and_end_the_stream(relay, answers, data):
    response = answers(data, close=data.endswith(b"-Le"))
    assert response.status == 502
    conn = next(c for c in relay.service.connections if not c.closed_at or b"/answer" in c.raw)
    wait_for(lambda: all(c.closed_at for c in relay.service.connections
                         if c.raw.rstrip().endswith(b"culvert") or b"/answer " in c.raw[-2000:]),
             10, f"the end of {conn}")


@clause("9112:6.1-4", "9112:6.3-1", "9110:8.6-1")
@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_end_with_their_head(answers, status):
    response = answers(b"HTTP/1.1 %d X\r\n%s\r\n" % (
        status, b"Transfer-Encoding: chunked\r\n" if status == 204 else b"Content-Length: 7\r\n"))
    assert response.status == status and response.body == b"" and response.raw_rest == b""
    if status == 204:
        assert not response.all("Transfer-Encoding") and not response.all("Content-Length")


@clause("9112:6.1-4", "9110:8.6-1", "9112:6.3-1")
def test_interim_answers_have_no_framing(answers):
    response = answers(b"HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nLink: </a>\r\n\r\n" + OK +
                       b"Content-Length: 2\r\n\r\nok")
    assert response.body == b"ok"
    for _, fields in response.interim:
        assert not {n.lower() for n, _ in fields} & {"content-length", "transfer-encoding"}


@clause("9112:6.3-1", "9110:9.3.2-1", "9112:9.3-3")
def test_head_has_no_content_and_the_connection_goes_on(server):
    with server.connect() as client:
        for _ in range(3):
            client.send(server.bytes("HEAD {p}/x HTTP/1.1\r\nHost: a\r\n{a}\r\n"))
            response = client.response("HEAD")
            assert response.status == 200 and client.buffer == b""
        client.send(server.bytes(GET + "\r\n"))
        assert client.response().status == 200


@clause("9112:6.1-5")
def test_http_1_0_gets_no_chunks(answers):
    response = answers(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                       version="HTTP/1.0")
    assert response.body == b"ok" and not response.all("Transfer-Encoding")


@clause("9112:6.3-9")
def test_an_answer_without_framing_is_all_until_the_close(answers):
    response = answers(OK + b"\r\nall of it", close=True)
    assert response.body == b"all of it" and response.is_complete


@clause("9112:6.3-10")
def test_bytes_behind_an_answer_answer_nothing(relay, answers):
    assert answers(OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil"
                   ).body == b"ok"
    for _ in range(3):
        assert relay.scene.fetch("/after", "POST", body=b"mine").body == b"mine"


@clause("9112:6.3-7", "9112:8-1", "9112:8-2")
@pytest.mark.parametrize("data", [
    OK + b"Content-Length: 10\r\n\r\nhello",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello"])
def test_an_answer_that_breaks_off_does_not_look_whole(answers, data):
    try:
        response = answers(data, close=True)
    except Broken:
        return
    assert not response.is_complete and b"hello".startswith(response.body)


@clause("9112:6.3-7", "9112:8-2")
@pytest.mark.parametrize("text", [POST + "Content-Length: 10\r\n\r\nhello",
                                  CHUNKED + "5\r\nhello\r\n"])
def test_a_request_that_breaks_off_is_no_request(relay, text):
    """The service waits for the rest, and is told in the end that there is none."""
    mark = f"cut{time.monotonic_ns()}"
    with relay.connect() as client:
        client.send(relay.bytes(text.replace("/x", f"/{mark}")))
        conns = wait_for(lambda: [c for c in relay.service.connections
                                  if mark.encode() in c.raw], 10, "the head")
    wait_for(lambda: conns[0].closed_at, 10, "the end of the stream")
    assert not bytes(conns[0].raw).endswith(b"0\r\n\r\n")


# -- connections -----------------------------------------------------------------------------------

@clause("9112:9.3-1")
@pytest.mark.parametrize("version, option, goes_on", [
    ("1.1", None, True), ("1.1", "close", False), ("1.1", "keep-alive", True),
    ("1.0", None, False), ("1.0", "keep-alive", True), ("1.0", "Keep-Alive, close", False)])
def test_which_connections_go_on(server, version, option, goes_on):
    line = f"Connection: {option}\r\n" if option else ""
    with server.connect() as client:
        client.send(server.bytes(f"GET {{p}}/x HTTP/{version}\r\nHost: a\r\n{{a}}{line}\r\n"))
        assert client.response().status == 200
        if goes_on:
            client.send(server.bytes(GET + "Connection: close\r\n\r\n"))
            assert client.response().status == 200
        assert client.is_closed()


@clause("9112:9.6-1", "9112:9.6-2", "9112:9.6-3")
def test_close_is_the_last_request(server):
    before = server.seen()
    with server.connect() as client:
        client.send(server.bytes(GET + "Connection: x, CLOSE\r\n\r\n" + (GET + "\r\n") * 2))
        response = client.response()
        assert response.status == 200 and (response.get("Connection") or "").lower() == "close"
        assert client.is_closed()
    if before:
        assert server.seen()[1] == before[1] + 1


@clause("9112:9.3.2-1")
def test_pipelined_requests_are_answered_in_order(server):
    texts = [GET.replace("/x", f"/n{n}") + "\r\n" if n % 3 else
             CHUNKED.replace("/x", f"/n{n}") + "2\r\nok\r\n0\r\n\r\n" for n in range(12)]
    with server.connect() as client:
        client.send(b"".join(server.bytes(text) for text in texts))
        for n in range(12):
            response = client.response()
            line = response.get("X-Echo-Target") or response.get("X-Request-Line").split()[1]
            assert line == f"/n{n}" and response.body == (b"" if n % 3 else b"ok")


@clause("9112:9.3-2")
def test_an_answer_before_the_body_closes_or_reads_it(bare):
    with bare.connect() as client:
        client.send(bare.bytes(POST + "Content-Length: 33\r\n\r\n"))
        assert client.response().status == 401
        try:
            client.send(b"GET /t/home/x HTTP/1.1\r\nHost: a\r\n\r\n")
        except OSError:
            pass
        assert client.is_closed(), "the body was taken for a request"


@clause("9112:9.6-4")
def test_a_service_that_says_close_gets_nothing_more_there(relay):
    def route(conn, request):
        conn.reply(body=b"bye", headers=[("Connection", "close")])
        return True  # and does not close
    relay.service.on("/bye", route)
    for _ in range(3):
        assert relay.scene.fetch("/bye").body == b"bye"
    ends = [c for c in relay.service.connections if b"GET /bye " in c.raw]
    assert all(bytes(c.raw).endswith(b"\r\n\r\n") and bytes(c.raw).count(b"/bye ") == 1
               for c in ends) and len(ends) == 3


@clause("9112:9.6-5")
def test_a_close_in_stages_saves_the_answer(side):
    """Half a megabyte is on its way when the head is refused."""
    with side.connect() as client:
        try:
            client.send(side.bytes("BAD LINE\r\n\r\n") + b"x" * 500_000)
        except OSError:
            pass
        assert client.response().status == 400


@clause("9112:9.3.1-1")
def test_what_is_not_idempotent_is_not_repeated(relay):
    def route(conn, request):
        conn.read_body(request)
        return False  # no answer
    relay.service.on("/once", route)
    relay.scene.relay.expect_error(".*")
    assert relay.scene.fetch("/once", "POST", body=b"x").status == 502
    assert sum(r.path == "/once" for r in relay.service.requests) == 1


def test_a_client_that_only_connects_hurts_nobody(side):
    with Client(side.port):
        pass
    assert side.send("GET {p}/x HTTP/1.1\r\nHost: a\r\n{a}\r\n").status in (200, 401)
