# SPDX-License-Identifier: MIT
"""Presets: headers, timers and an allow-list that fit the service, enforced by the relay."""
import pytest
from culvert import World

ALLOWED = [("POST", "/api/chat"), ("POST", "/api/generate"), ("POST", "/api/embed"),
           ("POST", "/api/embeddings"), ("GET", "/api/tags"), ("POST", "/api/show"),
           ("GET", "/api/ps"), ("GET", "/api/version"), ("GET", "/v1/models"),
           ("POST", "/v1/chat/completions"), ("POST", "/v1/embeddings")]
REFUSED = [("POST", "/api/pull"), ("POST", "/api/push"), ("POST", "/api/create"),
           ("POST", "/api/copy"), ("DELETE", "/api/delete"), ("POST", "/api/blobs/sha256:00"),
           ("POST", "/api/chat/../pull"), ("POST", "/api/%70ull"), ("POST", "/api//pull"),
           ("POST", "//api/pull"), ("POST", "/api/chat%2f..%2fpull"), ("DELETE", "/api/chat"),
           ("POST", "/api\\pull"), ("POST", "/API/pull"), ("POST", "/api/pull?x=/api/chat")]


@pytest.fixture(scope="module")
def ollama(tmp_path_factory):
    from scene import Scene
    world = World(tmp_path_factory.mktemp("presets"))
    try:
        yield Scene(world, agent_args=["--preset", "ollama"],
                    relay_env={"CULVERT_TIMERS_FIRST_BYTE": "1s"})
    finally:
        world.close()


@pytest.mark.parametrize("method, path", ALLOWED)
def test_ollama_lets_through(ollama, method, path):
    assert ollama.fetch(path, method, body=b"{}").status == 200


@pytest.mark.parametrize("method, path", REFUSED)
def test_ollama_refuses(ollama, method, path):
    before = ollama.service.received_bytes
    response = ollama.fetch(path, method, body=b"{}")
    assert response.status in (400, 403), response.body
    if response.status == 403:
        problem = response.json()
        assert problem["code"] == "TUNNEL_018" and "preset" in problem["suggestion"]
    assert ollama.service.received_bytes == before


def test_host_and_origin_are_what_the_service_expects(ollama):
    ollama.fetch("/api/tags", headers=[("Origin", "https://app.example"),
                                       ("Referer", "https://app.example/page")])
    request = ollama.service.requests[-1]
    assert request.get("Host") in (f"localhost:{ollama.service.port}",
                                   f"127.0.0.1:{ollama.service.port}")
    origin = request.get("Origin")
    assert origin is None or origin == f"http://{request.get('Host')}"


def test_long_answers_are_waited_for(ollama):
    """The relay's first-byte timer is 1 s here; the preset's is 600 s."""
    import time

    def slow(conn, request):
        conn.read_body(request)
        time.sleep(2)
        conn.reply(body=b"at last")
    ollama.service.on("/api/generate", slow)
    assert ollama.fetch("/api/generate", "POST", body=b"{}").body == b"at last"


def test_openai_lets_v1_through_and_nothing_else(world):
    service = world.service()
    relay = world.relay()
    world.http(relay, service.port, "--preset", "openai")
    assert relay.fetch("/t/home/v1/chat/completions", world.token(), "POST", body=b"{}").status \
        == 200
    assert relay.fetch("/t/home/api/pull", world.token(), "POST", body=b"{}").status == 403


def test_none_lets_everything_through(world):
    service = world.service()
    relay = world.relay()
    world.http(relay, service.port, "--preset", "none")
    for method, path in REFUSED[:6]:
        assert relay.fetch(f"/t/home{path}", world.token(), method, body=b"{}").status == 200


def test_port_11434_means_ollama(world):
    """Nothing has to listen there: the relay refuses before anybody connects."""
    relay = world.relay()
    world.http(relay, 11434)
    assert relay.fetch("/t/home/api/pull", world.token(), "POST", body=b"{}").status == 403
    assert relay.fetch("/t/home/api/tags", world.token()).status in (200, 502)


def test_other_ports_mean_none(home):
    assert home.fetch("/api/pull", "POST", body=b"{}").status == 200


def test_rules_of_ones_own(world):
    service = world.service()
    relay = world.relay()
    config = world.write("agent.yaml", f"""
server: {relay.url}
tunnels:
  - name: home
    target: "{service.port}"
    allow: ["GET /public/*", "POST /api/chat"]
""")
    world.start("agent", "agent", "-c", config, env={"CULVERT_TOKEN": world.token()}) \
        .wait_log("tunnel_published")
    assert relay.fetch("/t/home/public/a", world.token()).status == 200
    assert relay.fetch("/t/home/api/chat", world.token(), "POST", body=b"").status == 200
    for method, path in (("POST", "/public/a"), ("GET", "/private"), ("GET", "/public/../private"),
                         ("GET", "/public/%2e%2e/private")):
        assert relay.fetch(f"/t/home{path}", world.token(), method).status in (400, 403)
