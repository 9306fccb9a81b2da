# SPDX-License-Identifier: MIT
"""Each number moves when its event happens, and by as much as happened."""
import json
import threading
import time

import prometheus
import pytest
from chaos import Chaos
from client import Client
from cryptography.hazmat.primitives.asymmetric import ec
from culvert import free_port, wait_for
from scene import Scene
from test_auth import AUDIENCE, ISSUER, Key
from test_metrics import fetch


class Watch:
    """Numbers of a relay, and what has been added to them since."""

    def __init__(self, port):
        self.port = port
        self.before = self.now()

    def now(self):
        return prometheus.read(fetch(self.port))

    def mark(self):
        self.before = self.now()

    def added(self, name, **labels):
        return self.now().get(name, **labels) - self.before.get(name, **labels)

    def wait_added(self, number, name, timeout=20, **labels):
        """Ends are counted a moment after the consumer has seen them."""
        wait_for(lambda: self.added(name, **labels) == number, timeout,
                 f"{name}{labels} +{number}, now {self.added(name, **labels)}")

    def wait_is(self, number, name, timeout=20, **labels):
        wait_for(lambda: self.now().get(name, **labels) == number, timeout,
                 f"{name}{labels} = {number}, now {self.now().get(name, **labels)}")


class Held:
    """A service that begins to answer and goes on when it is let."""

    def __init__(self):
        self.gate = threading.Event()

    def __call__(self, conn, request):
        conn.read_body(request)
        conn.start_chunked()
        conn.chunk(b"x")
        self.gate.wait(30)
        conn.end_chunks()
        return True


def silent(conn, request):
    conn.read_body(request)
    conn.wait_gone(20)
    return False


def started(world, agent_args=(), **env):
    port = free_port()
    scene = Scene(world, relay_args=("--metrics-listen", f"127.0.0.1:{port}"), relay_env=env,
                  agent_args=agent_args)
    scene.held = Held()
    world.cleanups.append(scene.held.gate.set)
    scene.service.on("/held", scene.held)
    scene.service.on("/silent", silent)
    wait_for(lambda: fetch(port, "/livez").status == 200, what="the second listener")
    scene.watch = Watch(port)
    return scene


@pytest.fixture(scope="module")
def usual(shared):
    return started(shared)


@pytest.fixture
def watch(usual):
    usual.watch.mark()
    return usual.watch


def test_a_request_that_goes_well(usual, watch):
    assert usual.fetch("/x", "POST", body=b"b" * 1000).status == 200
    watch.wait_added(1, "tunnel_requests_total", status="success", tier="free")
    for name, number in (("tunnel_requests_total", 1), ("tunnel_requests_success_total", 1),
                         ("tunnel_requests_failed_total", 0),
                         ("tunnel_request_duration_seconds_count", 1),
                         ("tunnel_request_first_byte_duration_seconds_count", 1),
                         ("tunnel_request_overhead_seconds_count", 2),
                         ("tunnel_request_latency_ms_count", 1), ("tunnel_errors_total", 0),
                         ("tunnel_slow_requests_total", 0)):
        assert watch.added(name) == number, name
    assert watch.added("tunnel_auth_attempts_total", result="ok") == 1
    to_service = watch.added("tunnel_bytes_transferred_total", direction="to_service")
    to_consumer = watch.added("tunnel_bytes_transferred_total", direction="to_consumer")
    assert 1100 < to_service < 3000 and 100 < to_consumer < 5000
    for direction in ("sent", "received"):
        assert watch.added("tunnel_websocket_frames_total", direction=direction,
                           opcode="binary") >= 1
    page = watch.now()
    assert page.get("tunnel_request_success_rate") <= 1
    assert 0 < page["tunnel_request_latency_avg_ms"] and 0 < page["tunnel_request_latency_p95_ms"]
    assert page["tunnel_request_latency_p95_ms"] <= page["tunnel_request_latency_p99_ms"]
    assert page.get("tunnel_request_latency_ms", quantile="0.99") > 0
    seconds = watch.added("tunnel_request_duration_seconds_sum")
    assert 0 < watch.added("tunnel_request_overhead_seconds_sum") <= seconds < 20


def test_a_request_under_way(usual, watch):
    usual.held.gate.clear()
    with usual.client() as client:
        client.request("GET", "/t/home/held", usual.token)
        assert client.head().status == 200
        page = watch.now()
        assert page.get("tunnel_requests_in_flight", tier="free") == 1
        assert page.get("tunnel_connection_pool_connections", state="active") == 1
        capacity = page["tunnel_connection_pool_capacity"]
        assert capacity > 1
        assert page["tunnel_connection_pool_usage"] == pytest.approx(1 / capacity)
        assert page["tunnel_ssh_channels_active"] >= 1
        usual.held.gate.set()
        assert client.body
    watch.wait_is(0, "tunnel_requests_in_flight")
    watch.wait_is(0, "tunnel_connection_pool_connections", state="active")


def test_a_consumer_who_leaves(usual, watch):
    usual.held.gate.clear()
    with usual.client() as client:
        client.request("GET", "/t/home/held", usual.token)
        assert client.head().status == 200
    watch.wait_added(1, "tunnel_requests_total", status="cancelled")
    usual.held.gate.set()
    assert watch.added("tunnel_requests_failed_total") == 0


def test_a_service_that_is_silent(usual, watch):
    answer = usual.fetch("/silent", headers=[("Culvert-Timeout", "200")])
    assert answer.status == 504
    watch.wait_added(1, "tunnel_requests_total", status="timeout", tier="free")
    assert watch.added("tunnel_requests_failed_total", tier="free") == 1
    assert watch.added("tunnel_errors_total", error_category="server",
                       error_code="TUNNEL_007") == 1


def test_a_request_for_nothing(usual, watch):
    assert usual.relay.fetch("/t/none/", usual.token).status == 404
    watch.wait_added(1, "tunnel_requests_total", status="rejected", tier="free")
    assert watch.added("tunnel_errors_total", error_code="TUNNEL_011") == 1
    assert usual.relay.fetch("/nowhere", usual.token).status == 404
    assert watch.added("tunnel_requests_total") == 1, "that was no request for a tunnel"


def test_a_user_over_its_limit(usual, world):
    usual = started(world, RATE_LIMIT_PREMIUM_RPM="1")
    token = world.token("bob", "--tier", "premium")
    codes = [usual.relay.fetch("/t/home/x", token).status for _ in range(2)]
    assert codes == [404, 429]
    usual.watch.wait_added(1, "tunnel_rate_limit_rejections_total", scope="user", tier="premium")
    assert usual.watch.added("tunnel_rate_limit_rejections_total") == 1
    usual.watch.wait_added(2, "tunnel_requests_total", status="rejected", tier="premium")


def test_a_service_that_refuses_until_its_breaker_opens(world):
    scene = started(world, CB_FAILURE_THRESHOLD="2", CB_SUCCESS_THRESHOLD="2",
                    CB_RESET_TIMEOUT="60000")
    scene.service.close()
    for _ in range(2):
        assert scene.fetch("/x").status == 502
    watch = scene.watch
    watch.wait_added(2, "tunnel_requests_total", status="error", tier="free")
    assert watch.added("tunnel_errors_total", error_code="TUNNEL_013") == 2
    assert watch.added("tunnel_ssh_channel_open_failures_total", reason="connect_failed") == 2
    assert watch.added("tunnel_circuit_breaker_transitions_total", to="open") == 1
    page = watch.now()
    assert page["tunnel_circuit_breaker_state"] == 1
    assert page.get("tunnel_circuit_breakers", state="open") == 1
    assert scene.fetch("/x").status == 503
    assert watch.added("tunnel_circuit_breaker_rejections_total") == 1
    watch.wait_added(1, "tunnel_requests_total", status="rejected", tier="free")
    assert watch.now()["tunnel_request_success_rate"] == 0


def test_requests_that_wait(world):
    scene = started(world)
    config = world.write("one.yaml", f"server: {scene.relay.url}\ntunnels:\n  - {{name: one, "
                                     f"target: '{scene.service.port}', concurrency: 1}}\n")
    world.start("agent", "agent", "-c", config,
                env={"CULVERT_TOKEN": scene.token}).wait_log("tunnel_published")
    with scene.client() as first, scene.client() as second:
        first.request("GET", "/t/one/held", scene.token)
        assert first.head().status == 200
        second.request("GET", "/t/one/x", scene.token, headers=[("Culvert-Priority", "batch")])
        scene.watch.wait_is(1, "tunnel_queued_requests", priority="batch")
        scene.held.gate.set()
        assert second.response().status == 200
    scene.watch.wait_is(0, "tunnel_queued_requests")
    assert scene.watch.added("tunnel_request_queue_duration_seconds_count", priority="batch") == 1
    assert scene.watch.added("tunnel_request_queue_duration_seconds_count") == 1


def test_a_link_that_goes_and_comes(world):
    port = free_port()
    relay = world.relay("--metrics-listen", f"127.0.0.1:{port}")
    wait_for(lambda: fetch(port, "/livez").status == 200, what="the second listener")
    watch = Watch(port)
    chaos = Chaos(relay.port)
    world.cleanups.append(chaos.close)
    service = world.service()
    agent = world.http(relay, service.port, url=chaos.url)
    watch.wait_is(1, "tunnel_active_connections")
    watch.wait_is(1, "tunnel_active_users", tier="free")
    assert watch.added("tunnel_connections_total", result="ok") == 1
    watch.wait_added(1, "tunnel_connection_setup_duration_seconds_count")
    watch.wait_is(1, "tunnel_connection_quality")
    watch.wait_is(0, "tunnel_connection_quality", quality="detached")
    chaos.cut()
    relay.wait_log("link_resumed")
    assert watch.added("tunnel_reconnections_total", kind="resumed") == 1
    assert watch.added("tunnel_connections_total", result="ok") == 2
    assert watch.now()["tunnel_connection_success_rate"] == 1
    chaos.is_refusing = True
    chaos.cut()
    watch.wait_is(1, "tunnel_connection_quality", quality="detached")
    chaos.is_refusing = False
    watch.wait_added(2, "tunnel_reconnections_total", kind="resumed")
    link = relay.fetch("/api/tunnel/tunnels", world.token()).json()["tunnels"][0]["links"][0]["id"]
    assert relay.fetch(f"/api/tunnel/links/{link}", world.token(), "DELETE").status == 202
    watch.wait_added(1, "tunnel_disconnections_total", reason="operator")
    watch.wait_added(1, "tunnel_reconnections_total", kind="fresh")
    agent.stop()
    watch.wait_is(0, "tunnel_active_connections")
    watch.wait_is(0, "tunnel_active_users")
    watch.wait_added(1, "tunnel_disconnections_total", reason="closed")
    assert watch.added("tunnel_connection_duration_seconds_count") == 2
    page = watch.now()
    for name in ("tunnel_connection_quality", "tunnel_ssh_channels_active",
                 "tunnel_connection_pool_capacity", "tunnel_connection_pool_connections"):
        assert page[name] == 0, name


def test_links_that_are_not_let_in(usual, watch):
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"),
               ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]
    link = [*upgrade, ("Sec-WebSocket-Protocol", "culvert.v1")]
    resume = [*link, ("Culvert-Link", "0" * 32), ("Culvert-Resume", "1"),
              ("Culvert-Nonce", "0" * 64), ("Culvert-Received", "0"), ("Culvert-Proof", "0" * 64)]
    for headers, token, result in ((link, None, "unauthorized"), (link, "nonsense", "unauthorized"),
                                   (upgrade, usual.token, "bad_request"),
                                   (resume, usual.token, "resume_refused")):
        watch.mark()
        with usual.client() as client:
            client.request("GET", "/tunnel", token, headers=headers)
            assert client.response().status >= 400
        watch.wait_added(1, "tunnel_connections_total", result=result)
        assert watch.added("tunnel_connections_total") == 1
    assert watch.now()["tunnel_connection_success_rate"] < 1


def test_pings(world):
    scene = started(world, agent_args=(), WS_PING_INTERVAL="1000")
    wait_for(lambda: scene.watch.added("tunnel_websocket_ping_rtt_seconds_count") >= 1, 20,
             "a pong")
    assert scene.watch.added("tunnel_websocket_frames_total", direction="sent", opcode="ping") >= 1
    assert scene.watch.added("tunnel_websocket_frames_total", direction="received",
                             opcode="pong") >= 1
    assert scene.watch.now().get("tunnel_connection_quality", quality="unknown") == 0


def test_a_link_that_is_silent(world):
    scene = started(world, WS_PING_INTERVAL="1000", WS_PONG_TIMEOUT="1000")
    scene.agent.signal(19)  # SIGSTOP
    try:
        scene.watch.wait_added(1, "tunnel_ssh_keepalive_failures_total")
        scene.watch.wait_is(1, "tunnel_connection_quality", quality="detached")
    finally:
        scene.agent.signal(18)
    scene.agent.wait_log("link_resumed", 60)


def test_tokens_and_the_keys_they_are_checked_with(world):
    key, stranger = (Key(ec.generate_private_key(ec.SECP256R1()), "ES256") for _ in range(2))

    def jwks(conn, request):
        conn.read_body(request)
        conn.reply(body=json.dumps({"keys": [key.jwk]}).encode(),
                   headers=[("Content-Type", "application/json")])
    service, port = world.service({"/jwks": jwks}), free_port()
    relay = world.relay("--metrics-listen", f"127.0.0.1:{port}", dev=False, config=f"""
trusted_proxy: [127.0.0.1/32]
auth: {{jwks_url: 'http://127.0.0.1:{service.port}/jwks', issuer: '{ISSUER}',
  audience: ['{AUDIENCE}']}}
limits: {{ip: {{auth_failures_per_minute: 1000}}}}
""")
    wait_for(lambda: fetch(port, "/livez").status == 200, what="the second listener")
    watch, now = Watch(port), int(time.time())
    assert watch.now().get("tunnel_auth_jwks_refreshes_total", result="ok") >= 1
    forged = Key(stranger.private, "ES256", kid=key.kid)
    for result, token in (("ok", key.sign()), ("expired", key.sign(exp=now - 3600, iat=now - 7200)),
                          ("not_yet_valid", key.sign(nbf=now + 3600)),
                          ("bad_signature", forged.sign()), ("malformed", "a.b.c"),
                          ("missing", None), ("wrong_audience", key.sign(aud="https://other")),
                          ("wrong_issuer", key.sign(iss="https://other/"))):
        watch.mark()
        relay.fetch("/t/none/", token)
        watch.wait_added(1, "tunnel_auth_attempts_total", result=result)
        assert watch.added("tunnel_auth_attempts_total") == 1, result
    watch.mark()
    service.close()
    relay.expect_error(".*")
    wait_for(lambda: relay.fetch("/t/none/", stranger.sign()).status == 401 and watch.added(
        "tunnel_auth_jwks_refreshes_total", result="failed") >= 1, 60, "a failed refresh", 0.5)
    assert watch.added("tunnel_auth_attempts_total", result="unknown_key") >= 1


def test_log_lines_and_the_process(usual, watch):
    assert watch.now().get("tunnel_log_messages_total", level="info") > 0
    page = watch.now()
    assert page["process_resident_memory_bytes"] > 1e6 and page["process_open_fds"] > 5
    assert abs(page["process_start_time_seconds"] - time.time()) < 600
    assert page["process_cpu_seconds_total"] > 0
    assert page["tunnel_metrics_series"] == len(page.samples)
    assert page["tunnel_metrics_series_refused_total"] == 0


def test_nothing_that_a_consumer_says_is_in_a_label(usual, watch):
    with Client(usual.relay.port) as client:
        client.request("GET", "/t/home/mark-in-the-path?mark-in-query", usual.token,
                       headers=[("User-Agent", "mark-agent"), ("X-Mark", "mark-field")])
        assert client.response().status == 200
    usual.relay.fetch("/t/mark-tunnel/", usual.token)
    watch.wait_added(2, "tunnel_requests_total")
    for path in ("/metrics",):
        text = fetch(watch.port, path).body.decode()
        for mark in ("mark", "alice", "home", "127.0.0.1"):
            assert mark not in text


OPENAI = [b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n',
          b'data: {"choices":[{"delta":{"content":"one"}}]}\n\n',
          b'data: {"choices":[{"delta":{"content":" two"}}],"usage":{"prompt_tokens":11,'
          b'"completion_tokens":2}}\n\n', b"data: [DONE]\n\n"]
OLLAMA = [b'{"model":"m","response":"one","done":false}\n',
          b'{"model":"m","done":true,"prompt_eval_count":26,"eval_count":290,'
          b'"eval_duration":2900000000}\n']


def model(kind, pieces):
    def answer(conn, request):
        conn.read_body(request)
        conn.start_chunked(kind)
        for piece in pieces:
            for at in range(0, len(piece), 7):
                conn.chunk(piece[at:at + 7])
        conn.end_chunks()
        return True
    return answer


@pytest.mark.parametrize(("api", "kind", "pieces", "prompt", "completion"), [
    ("openai", "text/event-stream; charset=utf-8", OPENAI, 11, 2),
    ("ollama", "application/x-ndjson", OLLAMA, 26, 290)])
def test_a_models_stream(usual, watch, api, kind, pieces, prompt, completion):
    usual.service.on("/model", model(kind, pieces))
    assert usual.fetch("/model").body == b"".join(pieces)
    watch.wait_added(prompt, "tunnel_model_tokens_total", api=api, kind="prompt")
    assert watch.added("tunnel_model_tokens_total", api=api, kind="completion") == completion
    for name in ("first_token_seconds", "prompt_tokens", "completion_tokens"):
        assert watch.added(f"tunnel_model_{name}_count") == 1
        assert watch.added(f"tunnel_model_{name}_count", api=api) == 1
    assert watch.added("tunnel_model_completion_tokens_sum") == completion
    if api == "ollama":
        assert watch.added("tunnel_model_tokens_per_second_sum") == 100
    usual.service.on("/model", model("text/plain", pieces))
    usual.fetch("/model")
    watch.wait_added(2, "tunnel_requests_total")
    assert watch.added("tunnel_model_tokens_total") == prompt + completion


def test_models_are_not_looked_at_when_that_is_switched_off(world):
    scene = started(world, CULVERT_METRICS_MODELS="false")
    scene.service.on("/model", model("text/event-stream", OPENAI))
    assert scene.fetch("/model").body == b"".join(OPENAI)
    scene.watch.wait_added(1, "tunnel_requests_total")
    assert scene.watch.added("tunnel_model_tokens_total") == 0
    assert scene.watch.added("tunnel_model_first_token_seconds_count") == 0


@pytest.mark.long
def test_a_slow_service(usual, watch):
    def slow(conn, request):
        conn.read_body(request)
        time.sleep(5.3)
        conn.reply(body=b"late")
    usual.service.on("/slow", slow)
    assert usual.fetch("/slow").status == 200
    watch.wait_added(1, "tunnel_slow_requests_total")
