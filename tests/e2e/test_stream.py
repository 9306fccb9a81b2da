# SPDX-License-Identifier: MIT
"""Streaming: every token at once, and never a cut body that looks whole."""
import json
import subprocess
import threading
import time

import pytest
from client import Client
from culvert import wait_for
from service import Gone

LATE_S = 0.050


def tokens(content_type, count=40, interval=0.02, framing="chunked"):
    """A route that sends `count` tokens and notes when each went out."""
    sent = []

    def route(conn, request):
        conn.read_body(request)
        size = sum(len(b"data: token %03d\n\n" % n) for n in range(count))
        if framing == "chunked":
            conn.start_chunked(content_type)
        else:
            length = f"Content-Length: {size}\r\n" if framing == "length" else ""
            conn.send(f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\n{length}\r\n".encode())
        for number in range(count):
            time.sleep(interval)
            data = b"data: token %03d\n\n" % number
            sent.append(time.monotonic())
            (conn.chunk if framing == "chunked" else conn.send)(data)
        if framing == "chunked":
            conn.end_chunks()
        return framing != "close"
    route.sent = sent
    return route


def arrivals(response, count):
    """When each token was complete at the consumer."""
    times, seen = [], b""
    for at, data in response.pieces:
        seen += data
        while len(times) < count and b"token %03d\n\n" % len(times) in seen:
            times.append(at)
    return times


@pytest.mark.timing
@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("framing", ["chunked", "length", "close"])
def test_each_token_arrives_within_50_ms(scene, framing):
    route = tokens("text/event-stream", framing=framing)
    home = scene(routes={"/stream": route})

    def late_tokens():
        route.sent.clear()
        with home.client() as client:
            client.request("GET", "/t/home/stream", home.token)
            response = client.response()
        assert response.is_complete
        got = arrivals(response, 40)
        assert len(got) == 40
        return [(n, round(1000 * (a - s), 1))
                for n, (a, s) in enumerate(zip(got, route.sent)) if a - s > LATE_S]
    # A busy machine may hold this process up; what the program holds up, it does each time.
    runs = []
    for _ in range(4):
        runs.append(late_tokens())
        if not runs[-1]:
            return
    pytest.fail(f"late tokens (number, ms): {runs}")


@pytest.mark.timing
def test_tokens_arrive_on_time_while_bulk_goes_through_the_same_link(scene):
    def bulk(conn, request):
        block = b"x" * 65536
        conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n")
        for _ in range(16384):
            conn.send(block)

    route = tokens("text/event-stream")
    home = scene(routes={"/stream": route, "/bulk": bulk})
    with home.client() as heavy, home.client() as client:
        heavy.request("GET", "/t/home/bulk", home.token)
        drained = threading.Event()

        def drain():
            while not drained.is_set() and heavy.sock.recv(1 << 18):
                pass
        thread = threading.Thread(target=drain)
        thread.start()
        try:
            client.request("GET", "/t/home/stream", home.token)
            response = client.response()
        finally:
            drained.set()
            thread.join()
    late = [a - s for a, s in zip(arrivals(response, 40), route.sent)]
    assert len(late) == 40
    # Three busy Python threads share the machine with it: the median is what counts.
    assert sorted(late)[20] < LATE_S and max(late) < 0.5


@pytest.mark.timing
def test_a_request_body_is_streamed_up_as_it_is_written(home):
    worst = []
    while len(worst) < 4 and (not worst or worst[-1] > LATE_S):  # see above
        worst.append(_upload(home))
    assert worst[-1] < LATE_S, worst


def _upload(home):
    """Sends 20 pieces; gives how late the latest came."""
    count = len(home.service.requests)
    with home.client() as client:
        client.send(f"POST /t/home/up HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {home.token}\r\n"
                    "Transfer-Encoding: chunked\r\n\r\n".encode())
        sent = []
        for number in range(20):
            time.sleep(0.02)
            sent.append(time.monotonic())
            client.send(b"8\r\npiece%03d\r\n" % number)
        client.send(b"0\r\n\r\n")
        assert client.response().body == b"".join(b"piece%03d" % n for n in range(20))
    request = home.service.requests[count]
    seen, times = b"", []
    for at, data in request.pieces:
        seen += data
        while len(times) < 20 and b"piece%03d" % len(times) in seen:
            times.append(at)
    assert len(times) == 20
    return max(a - s for a, s in zip(times, sent))


@pytest.mark.timing
def test_the_head_is_on_the_wire_before_any_body(scene):
    def slow(conn, request):
        slow.sent = time.monotonic()
        conn.start_chunked("text/event-stream")
        time.sleep(0.5)
        conn.end_chunks()

    home = scene(routes={"/slow": slow})
    with home.client() as client:
        client.request("GET", "/t/home/slow", home.token)
        head = client.head()
        assert time.monotonic() - slow.sent < LATE_S + 0.05
        assert client.body(head).is_complete


# -- cut answers -----------------------------------------------------------------------------------

def cut_after(content_type, data, how="reset", headers=(), length=None):
    def route(conn, request):
        conn.read_body(request)
        if length is None:
            conn.start_chunked(content_type, headers)
            conn.chunk(data)
        else:
            conn.reply(body=data, headers=[("Content-Type", content_type),
                                           ("Content-Length", str(length)), *headers])
        time.sleep(0.2)  # so that the data is through before the reset
        conn.reset() if how == "reset" else conn.close()
        return False
    return route


def problem_in(text):
    """The error object of a mark; OpenAI's clients look for it under `error`."""
    mark = json.loads(text)
    return mark.get("error", mark)


def cut(scene, route, **kw):
    home = scene(routes={"/cut": route}, **kw)
    home.relay.expect_error(".*")
    home.agent.expect_error(".*")
    with home.client(timeout=30) as client:
        client.request("GET", "/t/home/cut", home.token)
        response = client.response()
        assert client.is_closed(), "the connection of a cut answer is closed"
    assert response.status == 200 and not response.is_complete
    return response


@pytest.mark.parametrize("how", ["reset", "close"])
def test_cut_sse_gets_an_error_event(scene, how):
    response = cut(scene, cut_after("text/event-stream", b"data: one\n\ndata: half", how))
    events = response.body.decode().split("\n\n")
    assert events[0] == "data: one"
    assert events[1] == "data: half", "the open line is completed first"
    lines = dict(line.split(": ", 1) for line in events[2].splitlines())
    assert lines["event"] == "error"
    problem = problem_in(lines["data"])
    assert problem["hop"] == "service" and problem["code"].startswith("TUNNEL_")
    assert events[3:] == [""]


@pytest.mark.parametrize("data", [b'{"a":1}\n', b'{"a":1}\n{"b":'])
def test_cut_ndjson_gets_an_error_object_on_a_line_of_its_own(scene, data):
    response = cut(scene, cut_after("application/x-ndjson", data))
    lines = response.body.decode().split("\n")
    assert lines[-1] == ""
    problem = problem_in(lines[-2])
    assert problem["hop"] == "service" and problem["code"].startswith("TUNNEL_")
    assert response.body.startswith(data)


def test_cut_plain_answer_gets_nothing_added(scene):
    assert cut(scene, cut_after("text/plain", b"half an ans")).body == b"half an ans"


def test_cut_compressed_sse_gets_nothing_added(scene):
    data = b"\x1f\x8b\x08\x00compressed"
    response = cut(scene, cut_after("text/event-stream", data,
                                    headers=[("Content-Encoding", "gzip")]))
    assert response.body == data


def test_an_answer_shorter_than_its_content_length_is_cut(scene):
    response = cut(scene, cut_after("text/plain", b"12345", "close", length=10))
    assert response.body == b"12345"


@pytest.mark.parametrize("length", [None, 10])
def test_curl_notices_the_cut(scene, length):
    home = scene(routes={"/cut": cut_after("text/plain", b"12345", length=length)})
    home.relay.expect_error(".*")
    home.agent.expect_error(".*")
    done = subprocess.run(
        ["curl", "-sS", "-H", f"Authorization: Bearer {home.token}",
         f"http://127.0.0.1:{home.relay.port}/t/home/cut"],
        capture_output=True, timeout=20, env=home.world.env())
    assert done.returncode == 18 and done.stdout == b"12345"


def test_an_answer_that_stops_coming_is_cut_by_the_idle_timer(scene):
    def stuck(conn, request):
        conn.start_chunked("text/event-stream")
        conn.chunk(b"data: one\n\n")
        stuck.gone_after = conn.wait_gone(20)

    response = cut(scene, stuck, relay_env={"CULVERT_TIMERS_IDLE": "1s"})
    assert b"event: error" in response.body and b"TUNNEL_007" in response.body
    wait_for(lambda: hasattr(stuck, "gone_after"), what="end of the service's connection")


def test_a_stream_that_goes_on_is_not_cut_by_the_idle_timer(scene):
    home = scene(routes={"/stream": tokens("text/event-stream", 12, 0.25)},
                 relay_env={"CULVERT_TIMERS_IDLE": "1s", "CULVERT_TIMERS_FIRST_BYTE": "1s"})
    assert home.fetch("/stream").is_complete


def test_the_total_timer_cuts_a_stream_that_goes_on(scene):
    def endless(conn, request):
        conn.start_chunked("text/event-stream")
        try:
            while True:
                conn.chunk(b"data: x\n\n")
                time.sleep(0.05)
        except Gone:
            return False

    response = cut(scene, endless, relay_env={"CULVERT_TIMERS_TOTAL": "1s"})
    assert b"TUNNEL_007" in response.body


def test_a_killed_agent_cuts_the_stream_with_hop_link(scene):
    def endless(conn, request):
        conn.start_chunked("text/event-stream")
        try:
            while True:
                conn.chunk(b"data: x\n\n")
                time.sleep(0.05)
        except Gone:
            return False

    home = scene(routes={"/s": endless}, relay_env={"CULVERT_LINK_RESUME_WINDOW": "500ms"})
    home.relay.expect_error(".*")
    with home.client(timeout=30) as client:
        client.request("GET", "/t/home/s", home.token)
        head = client.head()
        client.wait_bytes()
        home.agent.kill()
        response = client.body(head)
    assert not response.is_complete
    assert b"event: error" in response.body
    problem = problem_in(response.body.decode().rsplit("data: ", 1)[1])
    assert problem["hop"] in ("link", "agent")


# -- consumers that go away ------------------------------------------------------------------------

@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.tsan
def test_a_consumer_that_goes_away_cancels_the_request_at_once(scene):
    gone = []

    def endless(conn, request):
        conn.start_chunked("text/event-stream")
        conn.chunk(b"data: x\n\n")
        gone.append(conn.wait_gone(15))
        return False

    home = scene(routes={"/s": endless})
    with home.client() as client:
        client.request("GET", "/t/home/s", home.token)
        client.head()
        client.wait_bytes()
    wait_for(lambda: gone, 5, "end of the service's connection")
    assert home.fetch("/after").status == 200


def test_a_consumer_that_goes_away_before_the_head_cancels_too(scene):
    gone = []

    def silent(conn, request):
        gone.append(conn.wait_gone(15))
        return False

    home = scene(routes={"/s": silent})
    with home.client() as client:
        client.request("GET", "/t/home/s", home.token)
        home.service.wait_requests(1)
    wait_for(lambda: gone, 5, "end of the service's connection")


def test_many_streams_that_are_cancelled_leave_nothing_behind(scene):
    def endless(conn, request):
        conn.start_chunked("text/event-stream")
        conn.chunk(b"data: x\n\n")
        conn.wait_gone(15)
        return False

    home = scene(routes={"/s": endless})
    before = None
    for turn in range(6):
        clients = [Client(home.relay.port) for _ in range(8)]
        for client in clients:
            client.request("GET", "/t/home/s", home.token)
        for client in clients:
            assert client.head().status == 200
            client.close()
        wait_for(lambda: all(c.closed_at for c in home.service.connections), 5, "all cancelled")
        if turn == 0:
            before = home.relay.descriptors(), home.agent.descriptors()
    wait_for(lambda: home.relay.descriptors() <= before[0] and
             home.agent.descriptors() <= before[1], 5, "descriptors at their baseline")
