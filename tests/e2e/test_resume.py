# SPDX-License-Identifier: MIT
"""A stream survives the loss of the connection below it: not a byte is lost or doubled, consumers
see a pause and nothing else; and where it cannot survive, it ends honestly and in time."""
import hashlib
import random
import re
import signal
import socket
import threading
import time
from types import SimpleNamespace

import pytest
from chaos import Chaos
from client import Client
from culvert import wait_for
from service import Gone
from streams import Load

MIB = 1 << 20


def start(world, relay_args=(), agent_args=(), relay_env=None, agent_env=None, **kw):
    relay = world.relay(*relay_args, env=relay_env, **kw)
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    service = world.service()
    agent = world.http(relay, service.port, *agent_args, url=chaos.url, env=agent_env)
    return SimpleNamespace(world=world, relay=relay, chaos=chaos, service=service, agent=agent,
                           token=world.token())


@pytest.fixture
def scene(world):
    return start(world)


def resumed(scene):
    return len(scene.agent.find("link_resumed"))


def test_a_cut_is_resumed(scene):
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200
    scene.chaos.cut()
    scene.agent.wait_log("link_resumed")
    scene.relay.wait_log("link_resumed")
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200
    assert len(scene.agent.find("tunnel_published")) == 1
    assert not scene.relay.find("link_down")


# ---- streams over a path that is cut again and again --------------------------------------------

def reset(scene):
    scene.chaos.cut()


def orderly(scene):
    scene.chaos.cut(is_reset=False)


def half_up(scene):
    scene.chaos.half_close(True)


def half_down(scene):
    scene.chaos.half_close(False)


def hole_both(scene):
    with scene.chaos.outage("hole"):
        wait_lost(scene)


def hole_up(scene):
    with scene.chaos.outage("hole_up"):
        wait_lost(scene)


def hole_down(scene):
    with scene.chaos.outage("hole_down"):
        wait_lost(scene)


def other_address(scene):
    """The old path is gone without a word; a new one works at once."""
    scene.chaos.forget()


def wait_lost(scene):
    before = len(scene.agent.find("connection_lost"))
    wait_for(lambda: len(scene.agent.find("connection_lost")) > before, 20, "the loss to be seen")
    scene.chaos.forget()


def survive(scene, cuts, size, events):
    """Cuts the path in all these ways, spread over the transfers."""
    load = Load(scene, size, events)
    for n, cut in enumerate(cuts):
        load.wait_progress((n + 0.5) / len(cuts))
        before = resumed(scene)
        cut(scene)
        wait_for(lambda before=before: resumed(scene) > before, 60,
                 f"a resume after {cut.__name__}")
    load.finish()


def test_streams_survive_cuts(world):
    scene = start(world, agent_env={"SSH_MAX_CHANNELS": "80"}, relay_env={"SSH_MAX_CHANNELS": "80"})
    survive(scene, [reset, orderly, half_up, half_down, reset, reset], 24 * MIB, 10)


@pytest.mark.parametrize("cut", [hole_both, hole_up, hole_down, other_address])
def test_streams_survive_a_silent_path(world, cut):
    scene = start(world, agent_env={"SSH_MAX_CHANNELS": "80"}, relay_env={"SSH_MAX_CHANNELS": "80"})
    survive(scene, [cut], 8 * MIB, 4)


@pytest.mark.long
def test_streams_survive_thirty_cuts(world):
    scene = start(world, agent_env={"SSH_MAX_CHANNELS": "80"}, relay_env={"SSH_MAX_CHANNELS": "80"})

    def outage(seconds):
        def cut(scene):
            scene.chaos.is_refusing = True
            scene.chaos.cut()
            time.sleep(seconds)
            scene.chaos.is_refusing = False
        return cut
    kinds = [reset, hole_both, hole_up, hole_down, other_address, outage(10)]
    cuts = [kinds[n % len(kinds)] for n in range(29)] + [outage(40)]
    survive(scene, cuts, 500 * MIB, 50)


def test_a_loss_in_the_middle_of_a_key_exchange_is_a_loss(world):
    """The path falls silent while keys are exchanged, and that is found out later than the exchange
    may take: the silence is the path's, the session goes on."""
    env = {"CULVERT_SSH_REKEY_BYTES": "16KiB", "CULVERT_SSH_HANDSHAKE_TIMEOUT": "1s"}
    scene = start(world, relay_env=env, agent_env=env)
    survive(scene, [hole_both], 8 * MIB, 0)
    assert not scene.agent.find("link_given_up") and len(scene.agent.find("link_up")) == 1


# ---- while the link has no connection -----------------------------------------------------------

def interrupt(scene):
    scene.chaos.is_refusing = True
    scene.chaos.cut()
    scene.relay.wait_log("link_detached")


def mend(scene):
    scene.chaos.is_refusing = False
    scene.agent.wait_log("link_resumed")


def test_a_new_request_waits_for_the_link(scene):
    interrupt(scene)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(scene.relay.fetch("/t/home/x", scene.token, timeout=60)))
    thread.start()
    time.sleep(0.5)
    assert thread.is_alive() and not scene.service.requests
    mend(scene)
    thread.join(30)
    assert results[0].status == 200
    assert len(scene.service.requests) == 1


def test_a_request_does_not_wait_longer_than_its_first_byte(world):
    scene = start(world, relay_env={"CULVERT_TIMERS_FIRST_BYTE": "1s"})
    interrupt(scene)
    response = scene.relay.fetch("/t/home/x", scene.token, timeout=30)
    assert response.status == 503 and response.json()["code"] == "TUNNEL_012"
    mend(scene)
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200


def test_timers_rest_while_the_link_is_away(world):
    """A model that needs longer than the idle time minus the outage is not cut."""
    scene = start(world, relay_env={"CULVERT_TIMERS_FIRST_BYTE": "2s",
                                    "CULVERT_TIMERS_TOTAL": "3s"})
    go_on = threading.Event()

    def slow(conn, request):
        conn.read_body(request)
        go_on.wait(30)
        conn.reply(body=b"done")
        return True
    scene.service.on("/slow", slow)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(scene.relay.fetch("/t/home/slow", scene.token, timeout=60)))
    thread.start()
    scene.service.wait_requests()
    interrupt(scene)
    time.sleep(4)
    assert thread.is_alive()
    mend(scene)
    go_on.set()
    thread.join(30)
    assert results[0].status == 200 and results[0].body == b"done"


def test_a_consumer_that_leaves_meanwhile_cancels_the_work(scene):
    gone = threading.Event()

    def hang(conn, request):
        conn.read_body(request)
        conn.start_chunked()
        try:
            conn._fill()
        except Gone:
            gone.set()
            raise
        return False
    scene.service.on("/hang", hang)
    client = Client(scene.relay.port)
    client.request("GET", "/t/home/hang", scene.token)
    assert client.head().status == 200
    interrupt(scene)
    client.close()
    assert not gone.wait(0.5), "the service's connection did not outlive the link's"
    mend(scene)
    assert gone.wait(10), "the cancellation did not arrive"


def hold(scene):
    """A request whose answer waits for the event; and the list that gets the response."""
    go_on, results = threading.Event(), []

    def route(conn, request):
        conn.read_body(request)
        go_on.wait(30)
        conn.reply(body=b"done")
        return True
    scene.service.on("/held", route)
    thread = threading.Thread(
        target=lambda: results.append(scene.relay.fetch("/t/home/held", scene.token, timeout=60)))
    thread.start()
    scene.service.wait_requests()
    return go_on, results, thread


def test_an_agent_that_stops_without_a_path_does_not_wait(world):
    """What is on a link that cannot be taken up again can never be finished."""
    scene = start(world, relay_env={"CULVERT_LINK_RESUME_WINDOW": "2s"})
    go_on, results, thread = hold(scene)
    interrupt(scene)
    since = time.monotonic()
    scene.agent.stop(timeout=8)
    assert time.monotonic() - since < 8, "shutdown.drain is 10 s"
    given_up = scene.agent.find("link_given_up")[0]
    assert given_up["streams"] == 1 and given_up["error"]["code"] == "TUNNEL_001", given_up
    go_on.set()
    thread.join(30)
    assert results[0].status in (502, 503), results[0].status


def test_an_agent_that_stops_ends_what_a_resume_under_way_brings_back(scene):
    go_on, results, thread = hold(scene)
    with scene.chaos.outage():
        scene.chaos.cut()
        wait_for(lambda: scene.agent.find("state", to="resuming"), what="a try")
        scene.agent.signal(signal.SIGTERM)
        scene.agent.wait_log("shutdown_started")
    scene.agent.wait_log("link_resumed")
    go_on.set()
    thread.join(30)
    assert results[0].body == b"done"
    scene.agent.stop()
    assert not scene.agent.find("link_given_up")


def test_an_answer_given_meanwhile_arrives_whole(scene):
    """The service answers while there is no path; what it says waits for the link."""
    away, told = threading.Event(), threading.Event()
    body = random.Random(5).randbytes(MIB)

    def route(conn, request):
        conn.read_body(request)
        away.wait(20)
        conn.reply(body=body)
        told.set()
        return True
    scene.service.on("/late", route)
    results = []
    thread = threading.Thread(
        target=lambda: results.append(scene.relay.fetch("/t/home/late", scene.token, timeout=60)))
    thread.start()
    scene.service.wait_requests()
    interrupt(scene)
    away.set()
    assert told.wait(10), "the agent did not take the answer while the link was away"
    mend(scene)
    thread.join(30)
    assert results[0].body == body


def test_when_the_window_passes_everything_ends_honestly(world):
    window = 2
    scene = start(world, relay_env={"CULVERT_LINK_RESUME_WINDOW": f"{window}s"},
                  agent_env={"CULVERT_LINK_RESUME_WINDOW": f"{window}s"})
    descriptors = scene.relay.descriptors()

    def hang(conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        conn.chunk(b"data: 1\n\n")
        conn.wait_gone(30)
        return False

    def silent(conn, request):
        conn.read_body(request)
        conn.wait_gone(30)
        return False
    scene.service.on("/hang", hang).on("/silent", silent)
    results = {}

    began_to_answer = threading.Event()

    def ask(method, path):
        with Client(scene.relay.port, timeout=60) as client:
            client.request(method, f"/t/home{path}", scene.token)
            results[path] = client.head()
            began_to_answer.set()
            client.body(results[path], method)
            results[path].at = time.monotonic()
    threads = [threading.Thread(target=ask, args=args)
               for args in (("GET", "/hang"), ("POST", "/silent"))]
    for thread in threads:
        thread.start()
    scene.service.wait_requests(2)
    assert began_to_answer.wait(10)
    interrupt(scene)
    began = time.monotonic()
    threads.append(threading.Thread(target=ask, args=("GET", "/waiting")))
    threads[-1].start()
    for thread in threads:
        thread.join(30)
    assert not results["/hang"].is_complete
    assert b"TUNNEL_028" in results["/hang"].body
    assert results["/silent"].status == 502 and results["/silent"].json()["code"] == "TUNNEL_028"
    assert results["/waiting"].status == 503 and results["/waiting"].json()["code"] == "TUNNEL_012"
    assert all(r.at - began < window + 5 for r in results.values())
    wait_for(lambda: len([c for c in scene.service.connections if c.closed_at]) >= 2, 10,
             "the service's connections to end")
    wait_for(lambda: scene.relay.descriptors() < descriptors, 10, "descriptors given back")
    health = scene.relay.fetch("/health", host="localhost").json()
    assert health["tunnels"] == 0
    scene.chaos.is_refusing = False
    wait_for(lambda: scene.relay.fetch("/t/home/x", scene.token).status == 200, 20, "a fresh link")


# ---- who may take a link up ---------------------------------------------------------------------

def claim_of(scene):
    """The request with which the agent took its link up last."""
    for head in reversed(scene.chaos.heads):
        if b"Culvert-Resume:" in head:
            return bytes(head).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    raise AssertionError("the agent has not resumed")


def replace(head, name, value):
    return re.sub(rb"(?i)(" + name + rb": )[^\r]*", rb"\g<1>" + value, head)


def say(scene, head):
    with Client(scene.relay.port) as client:
        client.send(head)
        return client.response()


def test_a_link_is_not_taken_up_by_others(scene):
    scene.chaos.cut()
    scene.agent.wait_log("link_resumed")
    claim = claim_of(scene)
    counter = int(re.search(rb"Culvert-Resume: (\d+)", claim)[1])
    mallory = scene.world.token("mallory").encode()
    with Client(scene.relay.port) as open_one:
        open_one.request("GET", "/t/home/x", scene.token)
        assert open_one.response().status == 200
        for head, status, reason in [
                (claim, 409, "said before"),
                (replace(claim, b"Culvert-Resume", b"%d" % (counter + 1)), 403, "a higher counter"),
                (replace(claim, b"Culvert-Proof", b"0" * 64), 403, "no proof"),
                (replace(claim, b"Culvert-Nonce", b"1" * 64), 403, "another nonce"),
                (replace(claim, b"Culvert-Received", b"1"), 403, "another offset"),
                (replace(claim, b"Culvert-Link", b"a" * 32), 410, "an unknown link"),
                (replace(claim, b"Authorization", b"Bearer " + mallory), 410, "another user"),
                (replace(claim, b"Authorization", b"Bearer x.y.z"), 401, "no token"),
                (replace(claim, b"Culvert-Proof", b"zz"), 400, "nonsense"),
                (replace(claim, b"Culvert-Received", b"-1"), 400, "a negative offset"),
                (replace(claim, b"Culvert-Resume", b"0"), 400, "counter zero")]:
            answer = say(scene, head)
            assert answer.status == status, (reason, answer.status, answer.body)
            if status in (403, 409, 410):
                assert answer.json()["code"] == "TUNNEL_032"
        # None of it has done the link any harm.
        open_one.request("GET", "/t/home/y", scene.token)
        assert open_one.response().status == 200
    assert resumed(scene) == 1 and not scene.agent.find("connection_lost", since=0)[1:]


def test_a_storm_of_claims_does_no_harm(scene):
    scene.chaos.cut()
    scene.agent.wait_log("link_resumed")
    bad = replace(claim_of(scene), b"Culvert-Proof", b"0" * 64)
    statuses = []

    def storm():
        for _ in range(50):
            statuses.append(say(scene, bad).status)
    threads = [threading.Thread(target=storm) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(20):
        assert scene.relay.fetch("/t/home/x", scene.token).status == 200
    for thread in threads:
        thread.join(60)
    assert set(statuses) == {403} and len(statuses) == 200
    assert resumed(scene) == 1
    assert len(scene.relay.find("resume_refused")) < 60, "the log is not limited"


def test_an_impostor_is_handed_nothing(scene):
    """Somebody between answers the claim with a 101 but cannot prove that it has the link."""
    got = []
    impostor = socket.create_server(("127.0.0.1", 0))
    real = scene.chaos.target

    def serve():
        conn, _ = impostor.accept()
        head = b""
        while b"\r\n\r\n" not in head:
            head += conn.recv(65536)
        import base64
        key = re.search(rb"Sec-WebSocket-Key: (\S+)", head)[1]
        accept = base64.b64encode(hashlib.sha1(
            key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        conn.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                     b"Upgrade: websocket\r\nSec-WebSocket-Protocol: culvert.v1\r\n"
                     b"Sec-WebSocket-Accept: " + accept + b"\r\nCulvert-Received: 0\r\n"
                     b"Culvert-Proof: " + b"0" * 64 + b"\r\n\r\n")
        scene.chaos.target = real
        conn.settimeout(10)
        while data := conn.recv(65536):
            got.append(data)
        conn.close()
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    scene.chaos.target = impostor.getsockname()[1]
    scene.chaos.cut()
    scene.agent.wait_log("link_resumed")
    thread.join(10)
    impostor.close()
    assert not got, "an impostor was handed bytes of the link"
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200


# ---- processes that die or stand still ----------------------------------------------------------

def test_the_agent_is_killed(scene):
    """Its successor has another link: what hung on the old one ends at once, not with the window."""
    def hang(conn, request):
        conn.read_body(request)
        conn.wait_gone(30)
        return False
    scene.service.on("/hang", hang)
    results = []
    thread = threading.Thread(target=lambda: results.append(
        scene.relay.fetch("/t/home/hang", scene.token, "POST", timeout=60)))
    thread.start()
    scene.service.wait_requests()
    scene.agent.kill()
    scene.relay.wait_log("link_detached")
    scene.world.http(scene.relay, scene.service.port)
    thread.join(20)
    assert results[0].status in (502, 503, 409), results[0].status
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200


def test_the_relay_is_killed_and_comes_back(scene):
    port = scene.relay.port
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200
    scene.relay.kill()
    relay = scene.world.relay(port=port)
    began = time.monotonic()
    wait_for(lambda: relay.fetch("/t/home/x", scene.token).status == 200, 20, "the agent back")
    assert time.monotonic() - began < 5
    scene.agent.wait_log("link_given_up")
    assert len(scene.agent.find("tunnel_published")) == 2


def test_the_service_restarts(scene):
    scene.service.close()
    assert scene.relay.fetch("/t/home/x", scene.token).status == 502
    service = scene.world.service(port=scene.service.port)
    assert scene.relay.fetch("/t/home/x", scene.token).status == 200
    assert len(service.requests) == 1
