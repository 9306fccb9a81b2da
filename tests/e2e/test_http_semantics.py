# SPDX-License-Identifier: MIT
"""HTTP/1.1 through the relay: RFC 9110 and 9112 as a consumer and a service see them."""
import asyncio
import re
import threading
import time

import pytest
import websockets
from client import Client
from culvert import free_port, wait_for

METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "REPORT", "X-ODD"]


def header_map(request):
    return {name.lower(): value for name, value in request.headers}


@pytest.fixture
def seen(shared_home):
    """Sends one request and gives (response, the request as the service saw it)."""
    def send(target="/x", method="GET", **kw):
        before = len(shared_home.service.requests)
        response = shared_home.fetch(target, method, **kw)
        return response, shared_home.service.wait_requests(before + 1)
    return send


# -- requests --------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", METHODS)
def test_every_method_passes_with_its_body(seen, method):
    response, request = seen(method=method, body=b"hello")
    assert (response.status, response.body) == (200, b"hello")
    assert request.method == method


@pytest.mark.parametrize("target", [
    "/", "/a/b", "/a%2Fb%20c?q=%41&r=", "/?", "/x?a=/../b", "/%E4%BD%A0", "//double", "/a;p=1",
    "/~user/!$&'()*+,=:@"])
def test_the_target_is_forwarded_as_it_came(seen, target):
    _, request = seen(target)
    assert request.target == target


def test_the_tunnels_root_without_a_slash(shared_home):
    response = shared_home.relay.fetch("/t/home", shared_home.token)
    assert response.status in (200, 301, 307, 308)
    if response.status != 200:
        assert response.get("Location").endswith("/t/home/")


def test_absolute_form_is_understood(shared_home):
    with shared_home.client() as client:
        client.request("GET", "http://relay.test/t/home/abs", shared_home.token)
        assert client.response().status == 200
    assert shared_home.service.requests[-1].target == "/abs"


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [0, 1, 65536, 3_000_000])
def test_bodies_of_all_sizes_come_back_whole(shared_home, size, chunked):
    body = bytes(range(256)) * (size // 256) + b"z" * (size % 256)
    response = shared_home.fetch("/x", "POST", body=body, chunked=chunked)
    assert response.body == body and response.is_complete


def test_request_framing_is_kept(seen):
    _, request = seen(method="POST", body=b"12345")
    assert request.get("Content-Length") == "5" and not request.get("Transfer-Encoding")
    _, request = seen(method="POST", body=b"12345", chunked=True)
    assert request.get("Transfer-Encoding") == "chunked" and not request.get("Content-Length")
    _, request = seen()
    assert not request.get("Content-Length") and not request.get("Transfer-Encoding")


def test_request_trailers_pass(seen):
    _, request = seen(method="POST", body=b"x", chunked=True, trailers=[("X-Checksum", "abc")])
    assert request.trailers == [("X-Checksum", "abc")]


def test_exactly_one_host_and_it_is_the_local_services(seen, shared_home):
    _, request = seen(host="evil.example")
    hosts = request.all("Host")
    assert hosts in ([f"127.0.0.1:{shared_home.service.port}"],
                     [f"localhost:{shared_home.service.port}"])


def test_the_relays_token_goes_no_further(seen, shared_home):
    _, request = seen()
    assert request.get("Authorization") is None
    assert shared_home.token.encode() not in request.head


def test_the_services_own_authorization_passes_beside_culvert_authorization(seen, shared_home):
    _, request = seen(token=None, headers=[
        ("Culvert-Authorization", f"Bearer {shared_home.token}"),
        ("Authorization", "Basic c2VydmljZTpvd24=")])
    assert request.all("Authorization") in (["Basic c2VydmljZTpvd24="], [])
    assert request.get("Culvert-Authorization") is None
    assert shared_home.token.encode() not in request.head


def test_authorization_passes_where_the_tunnel_asks_for_it(world):
    service = world.service()
    relay = world.relay()
    config = world.write("agent.yaml", f"""
server: {relay.url}
tunnels:
  - name: home
    target: "{service.port}"
    authorization: pass
""")
    world.start("agent", "agent", "-c", config, env={"CULVERT_TOKEN": world.token()}) \
        .wait_log("tunnel_published")
    relay.fetch("/t/home/", None, headers=[
        ("Culvert-Authorization", f"Bearer {world.token()}"),
        ("Authorization", "Basic c2VydmljZTpvd24=")])
    assert service.requests[0].all("Authorization") == ["Basic c2VydmljZTpvd24="]


def test_hop_by_hop_fields_are_dropped_on_the_way_up(seen):
    _, request = seen(headers=[
        ("Connection", "X-Secret, keep-alive"), ("X-Secret", "1"), ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic eDp5"), ("Proxy-Connection", "keep-alive"),
        ("TE", "gzip"), ("Upgrade", "h2c"), ("X-Kept", "yes")])
    names = header_map(request)
    for name in ("x-secret", "keep-alive", "proxy-authorization", "proxy-connection", "upgrade"):
        assert name not in names
    assert names["x-kept"] == "yes"


def test_connection_cannot_strip_what_matters(seen):
    _, request = seen(method="POST", body=b"12345",
                      headers=[("Connection", "Host, Content-Length, X-Forwarded-For, close")])
    assert request.all("Host") and request.body == b"12345"
    assert request.get("X-Forwarded-For")


def test_forwarding_fields_are_set_and_forged_ones_replaced(seen):
    _, request = seen(host="public.example", headers=[
        ("X-Forwarded-For", "6.6.6.6"), ("X-Forwarded-Host", "forged"),
        ("X-Forwarded-Proto", "gopher"), ("Forwarded", "for=6.6.6.6"), ("X-Real-IP", "6.6.6.6")])
    assert request.all("X-Forwarded-For") == ["127.0.0.1"]
    assert request.all("X-Forwarded-Proto") == ["http"]
    assert request.all("X-Forwarded-Host") == ["public.example"]
    assert len(request.all("Forwarded")) == 1
    assert "for=127.0.0.1" in request.get("Forwarded") and "6.6.6.6" not in request.get("Forwarded")
    assert b"6.6.6.6" not in request.head


def test_every_request_has_an_id_of_its_own(seen):
    first_response, first = seen()
    second_response, second = seen()
    for response, request in ((first_response, first), (second_response, second)):
        assert len(request.all("X-Request-Id")) == 1
        assert response.get("X-Request-Id") == request.get("X-Request-Id")
    assert first.get("X-Request-Id") != second.get("X-Request-Id")


TRACEPARENT = re.compile(r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")


def test_the_trace_goes_on(seen):
    _, request = seen(headers=[
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    assert TRACEPARENT.match(request.get("traceparent"))
    assert request.get("traceparent").split("-")[1] == "0af7651916cd43dd8448eb211c80319c"


@pytest.mark.parametrize("broken", [None, "garbage", "00-" + "0" * 32 + "-b7ad6b7169203331-01"])
def test_a_bad_or_missing_traceparent_starts_a_trace(seen, broken):
    _, request = seen(headers=[("traceparent", broken)] if broken else [])
    assert len(request.all("traceparent")) == 1
    assert TRACEPARENT.match(request.get("traceparent"))
    assert request.get("traceparent").split("-")[1] != "0" * 32


def test_repeated_and_odd_fields_pass_in_order(seen):
    _, request = seen(headers=[("X-A", "1"), ("X-B", ""), ("X-A", "2, 3"), ("X-C", "caf\xe9 \t x")])
    assert request.all("X-A") == ["1", "2, 3"]
    assert request.all("X-B") == [""] and request.all("X-C") == ["caf\xe9 \t x"]


# -- responses -------------------------------------------------------------------------------------

def raw(data, close=False):
    def route(conn, request):
        conn.read_body(request)
        conn.send(data)
        if close:
            return False
        return True
    return route


def test_head_has_the_fields_and_no_body(shared_home):
    shared_home.service.on("/head", raw(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX-A: 1\r\n\r\n"))
    with shared_home.client() as client:
        for _ in range(2):
            client.request("HEAD", "/t/home/head", shared_home.token)
            response = client.response("HEAD")
            assert response.get("Content-Length") == "12345" and response.get("X-A") == "1"
        client.request("GET", "/t/home/after", shared_home.token)
        assert client.response().status == 200


@pytest.mark.parametrize("status", [204, 304])
def test_statuses_without_a_body(shared_home, status):
    shared_home.service.on("/none", raw(b"HTTP/1.1 %d X\r\nETag: \"e\"\r\n\r\n" % status))
    with shared_home.client() as client:
        for _ in range(2):
            client.request("GET", "/t/home/none", shared_home.token)
            response = client.response()
            assert response.status == status and response.body == b"" and response.get("ETag")


@pytest.mark.parametrize("status", [200, 201, 206, 302, 400, 401, 404, 418, 429, 500, 503, 599])
def test_statuses_pass_as_they_are(shared_home, status):
    shared_home.service.on("/status", raw(
        b"HTTP/1.1 %d Odd Reason\r\nContent-Length: 4\r\n\r\nbody" % status))
    response = shared_home.fetch("/status")
    assert (response.status, response.body) == (status, b"body")


def test_chunked_answers_with_trailers(shared_home):
    def route(conn, request):
        conn.start_chunked(headers=[("Trailer", "X-Sum")])
        conn.chunk(b"abc")
        conn.end_chunks([("X-Sum", "42")])
    shared_home.service.on("/trailers", route)
    response = shared_home.fetch("/trailers", headers=[("TE", "trailers")])
    assert response.body == b"abc" and response.is_complete
    assert response.trailers == [("X-Sum", "42")]


def test_an_answer_until_close_is_whole(shared_home):
    shared_home.service.on("/close", raw(b"HTTP/1.0 200 OK\r\n\r\nall of it", close=True))
    response = shared_home.fetch("/close")
    assert response.body == b"all of it" and response.is_complete


def test_hop_by_hop_fields_are_dropped_on_the_way_down(shared_home):
    shared_home.service.on("/hop", raw(
        b"HTTP/1.1 200 OK\r\nConnection: X-Internal, keep-alive\r\nX-Internal: 1\r\n"
        b"Keep-Alive: timeout=1\r\nProxy-Authenticate: Basic\r\nX-Kept: 1\r\n"
        b"Content-Length: 0\r\n\r\n"))
    response = shared_home.fetch("/hop")
    names = {name.lower() for name, _ in response.headers}
    assert not names & {"x-internal", "keep-alive", "proxy-authenticate"}
    assert "x-kept" in names


def test_early_hints_pass(shared_home):
    shared_home.service.on("/hints", raw(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
    response = shared_home.fetch("/hints")
    assert response.body == b"ok"
    assert [status for status, _ in response.interim] == [103]


def test_a_flood_of_interim_answers_is_bounded(scene):
    home = scene(routes={"/flood": raw(b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n" * 5000)})
    home.relay.expect_error(".*")
    response = home.fetch("/flood")
    assert response.status == 502 and len(response.interim) < 200
    assert home.fetch("/after").status == 200


BAD_ANSWERS = {
    "unasked 101": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "both framings": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"0\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello",
    "injected field": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    "huge head": b"HTTP/1.1 200 OK\r\n" + b"X: " + b"a" * 300_000 + b"\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_answers_that_are_no_http_become_502(shared_home, name):
    shared_home.relay.expect_error(".*")
    shared_home.service.on("/bad", raw(BAD_ANSWERS[name], close=True))
    response = shared_home.fetch("/bad")
    assert response.status == 502
    assert response.json()["hop"] == "service"
    assert shared_home.fetch("/after").status == 200


def test_a_body_longer_than_its_content_length_is_cut_and_not_reused(shared_home):
    smuggled = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nsmuggled"
    shared_home.service.on("/long", raw(
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" + smuggled))
    assert shared_home.fetch("/long").body == b"hello"
    assert shared_home.fetch("/after", "POST", body=b"mine").body == b"mine"


def test_a_bad_chunk_cuts_the_answer(shared_home):
    shared_home.relay.expect_error(".*")
    shared_home.service.on("/chunk", raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nXYZ\r\nmore\r\n"))
    with shared_home.client() as client:
        client.request("GET", "/t/home/chunk", shared_home.token)
        response = client.response()
    assert response.status == 502 or \
        (response.body == b"hello" and not response.is_complete)


# -- Expect ----------------------------------------------------------------------------------------

def test_expect_continue_is_answered_before_the_body(shared_home):
    def route(conn, request):
        if request.get("Expect"):
            conn.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        conn.read_body(request)
        conn.reply(body=request.body)
    shared_home.service.on("/expect", route)
    with shared_home.client(timeout=10) as client:
        client.send(f"POST /t/home/expect HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
                    f"Authorization: Bearer {shared_home.token}\r\n"
                    "Expect: 100-continue\r\n\r\n".encode())
        client.fill()
        assert client.buffer.startswith(b"HTTP/1.1 100")
        client.send(b"hello")
        response = client.response()
    assert response.body == b"hello"
    assert [status for status, _ in response.interim] == [100]


def test_a_refusal_comes_instead_of_100(shared_home):
    with shared_home.client(timeout=10) as client:
        client.send(b"POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
                    b"Expect: 100-continue\r\n\r\n")
        response = client.response()
        assert response.status == 401 and not response.interim


def test_expect_without_a_body_that_follows_is_bounded(scene):
    home = scene(relay_env={"CULVERT_LIMITS_BODY_IDLE_TIMEOUT": "1s"})
    with home.client(timeout=15) as client:
        client.send(f"POST /t/home/x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n"
                    f"Authorization: Bearer {home.token}\r\n"
                    "Expect: 100-continue\r\n\r\n".encode())
        assert client.response().status in (408, 504)
        assert client.is_closed(5)


def test_unknown_expectations_are_refused(shared_home):
    assert shared_home.fetch("/x", headers=[("Expect", "the-unexpected")]).status == 417


# -- connections -----------------------------------------------------------------------------------

def test_keep_alive_serves_many_requests(shared_home):
    with shared_home.client() as client:
        for number in range(50):
            client.request("POST", "/t/home/x", shared_home.token, body=b"%d" % number)
            assert client.response().body == b"%d" % number


def test_connection_close_is_honoured(shared_home):
    with shared_home.client() as client:
        client.request("GET", "/t/home/x", shared_home.token, headers=[("Connection", "close")])
        response = client.response()
        assert (response.get("Connection") or "").lower() == "close"
        assert client.is_closed()


def test_pipelined_requests_are_answered_in_order(shared_home):
    def slow_first(conn, request):
        conn.read_body(request)
        if request.get("X-Number") == "0":
            time.sleep(0.3)
        conn.reply(body=request.get("X-Number").encode())
    shared_home.service.on("/pipe", slow_first)
    with shared_home.client() as client:
        client.send(b"".join(
            f"GET /t/home/pipe HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {shared_home.token}\r\n"
            f"X-Number: {n}\r\n\r\n".encode() for n in range(20)))
        assert [client.response().body for _ in range(20)] == [b"%d" % n for n in range(20)]


def test_pipelined_bodies_do_not_run_into_each_other(shared_home):
    with shared_home.client() as client:
        for number in range(10):
            client.request("POST", "/t/home/x", shared_home.token, body=b"b%d" % number,
                           chunked=number % 2 == 0)
        assert [client.response().body for _ in range(10)] == [b"b%d" % n for n in range(10)]


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_http_1_0_consumers(shared_home, framing):
    def route(conn, request):
        if framing == "chunked":
            conn.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
            conn.start_chunked()
            conn.chunk(b"answer")
            conn.end_chunks()
        else:
            conn.reply(body=b"answer")
    shared_home.service.on("/one-oh", route)
    with shared_home.client() as client:
        client.request("GET", "/t/home/one-oh", shared_home.token, version="HTTP/1.0")
        response = client.response()
        assert response.body == b"answer" and not response.interim
        assert not response.get("Transfer-Encoding")
        assert client.is_closed()


def test_idle_streams_are_reused(home):
    for _ in range(20):
        assert home.fetch("/x").status == 200
    assert len(home.service.connections) <= 2


def test_a_service_that_closes_each_connection_still_serves_every_request(world):
    def closing(conn, request):
        conn.read_body(request)
        conn.reply(body=request.body, headers=[("Connection", "close")])
        return False
    service = world.service(default=closing)
    relay = world.relay()
    world.http(relay, service.port)
    for number in range(30):
        body = b"%d" % number
        assert relay.fetch("/t/home/x", world.token(), "POST", body=body).body == body


def test_a_service_that_drops_idle_connections_still_serves_every_request(world):
    def dropping(conn, request):
        conn.read_body(request)
        conn.reply(body=request.body)
        return False  # without saying so
    service = world.service(default=dropping)
    relay = world.relay()
    world.http(relay, service.port)
    for number in range(30):
        body = b"%d" % number
        assert relay.fetch("/t/home/x", world.token(), "POST", body=body).body == body
        time.sleep(0.01)


def test_an_answer_before_the_request_ended_is_passed_on(shared_home):
    def hasty(conn, request):
        conn.reply(413, b"too much", [("Connection", "close")], "Content Too Large")
        time.sleep(0.1)
        return False
    shared_home.service.on("/hasty", hasty)
    with shared_home.client() as client:
        client.send(f"POST /t/home/hasty HTTP/1.1\r\nHost: h\r\nContent-Length: 100000000\r\n"
                    f"Authorization: Bearer {shared_home.token}\r\n\r\n".encode() + b"x" * 1000)
        response = client.response()
        assert (response.status, response.body) == (413, b"too much")
        assert client.is_closed(15), "the rest of the body is not waited for"


# -- paths, hosts, cookies -------------------------------------------------------------------------

def test_cookies_and_locations_stay_inside_the_tunnel(shared_home):
    port = shared_home.service.port
    shared_home.service.on("/login", raw((
        "HTTP/1.1 302 Found\r\nLocation: /next?x=1\r\nSet-Cookie: a=1; Path=/; HttpOnly\r\n"
        "Set-Cookie: b=2; path=/sub\r\nSet-Cookie: c=3\r\nContent-Length: 0\r\n\r\n").encode()))
    response = shared_home.fetch("/login")
    assert response.get("Location") == "/t/home/next?x=1"
    cookies = response.all("Set-Cookie")
    parts = [[part.strip().lower() for part in cookie.split(";")] for cookie in cookies]
    assert parts[0][0] == "a=1" and sorted(parts[0][1:]) == ["httponly", "path=/t/home/"]
    assert parts[1] == ["b=2", "path=/t/home/sub"]
    assert parts[2][0] == "c=3" and parts[2][1:] in ([], ["path=/t/home/"])
    for host in (f"127.0.0.1:{port}", f"localhost:{port}"):
        shared_home.service.on("/absolute", raw(
            f"HTTP/1.1 302 Found\r\nLocation: http://{host}/abs\r\nContent-Length: 0\r\n\r\n"
            .encode()))
        location = shared_home.fetch("/absolute").get("Location")
        if location.endswith("/t/home/abs"):
            break
    else:
        pytest.fail(f"the service's own address leaks: {location}")


def test_locations_elsewhere_and_relative_ones_are_left_alone(shared_home):
    for value in ("https://login.example/x", "relative/path", "?page=2"):
        shared_home.service.on("/away", raw(
            f"HTTP/1.1 302 Found\r\nLocation: {value}\r\nContent-Length: 0\r\n\r\n".encode()))
        assert shared_home.fetch("/away").get("Location") == value


@pytest.fixture(scope="module")
def public(tmp_path_factory):
    from scene import Scene
    from culvert import World
    world = World(tmp_path_factory.mktemp("public"))
    try:
        yield Scene(world, relay_env={"CULVERT_PUBLIC_HOST": "tunnels.example",
                                      "CULVERT_CORS_ORIGINS": "https://app.example"})
    finally:
        world.close()


def test_the_public_host_names_the_tunnel(public):
    public.service.on("/p", raw(b"HTTP/1.1 302 Found\r\nLocation: /next\r\n"
                                b"Set-Cookie: a=1; Path=/\r\nContent-Length: 0\r\n\r\n"))
    for host in ("home.tunnels.example", "HOME.Tunnels.Example", "home.tunnels.example:8080"):
        response = public.relay.fetch("/p", public.token, host=host)
        assert response.status == 302
        assert response.get("Location") == "/next"
        assert response.get("Set-Cookie") == "a=1; Path=/"


@pytest.mark.parametrize("path", ["/livez", "/health", "/t/home/x", "/tunnel",
                                  "/api/tunnel/tunnels"])
def test_the_public_host_has_no_management_routes(public, path):
    response = public.relay.fetch(path, public.token, host="home.tunnels.example")
    assert response.get("X-Request-Line") == f"GET {path}", "the service answers, not the relay"
    assert public.relay.fetch(path, None, host="home.tunnels.example").status == 401


@pytest.mark.parametrize("host", ["nothing.tunnels.example", "a.home.tunnels.example",
                                  "xhome.tunnels.example"])
def test_other_names_under_the_public_host_lead_nowhere(public, host):
    assert public.relay.fetch("/x", public.token, host=host).status == 404


def test_routes_that_do_not_exist(shared_home):
    for path in ("/", "/nothing", "/t", "/t/", "/t//x", "/t/Home/x", "/t/-home/x", "/t/ho%6De/x",
                 "/t/" + "a" * 64 + "/x", "/t/../livez"):
        response = shared_home.relay.fetch(path, shared_home.token)
        assert response.status in (400, 404), path
        assert response.get("Content-Type") == "application/problem+json"


def test_connect_is_refused(shared_home):
    with shared_home.client() as client:
        client.request("CONNECT", "127.0.0.1:22", shared_home.token, host="127.0.0.1:22")
        assert client.head().status in (400, 404, 405, 501)


# -- CORS ------------------------------------------------------------------------------------------

PREFLIGHT = [("Origin", "https://app.example"), ("Access-Control-Request-Method", "POST"),
             ("Access-Control-Request-Headers", "authorization, content-type")]


def test_preflight_needs_no_token_and_tells_nothing_about_names(public):
    before = public.service.received_bytes
    answers = [public.relay.fetch(f"/t/{name}/api", None, "OPTIONS", headers=PREFLIGHT)
               for name in ("home", "nothing")]
    for response in answers:
        assert response.status in (200, 204)
        assert response.get("Access-Control-Allow-Origin") == "https://app.example"
        assert "POST" in response.get("Access-Control-Allow-Methods")
        allowed = response.get("Access-Control-Allow-Headers").lower()
        assert "authorization" in allowed and "content-type" in allowed
        assert "origin" in (response.get("Vary") or "").lower()

    def stable(response):
        return sorted((n, v) for n, v in response.headers
                      if n.lower() not in ("date", "x-request-id", "traceparent"))
    assert stable(answers[0]) == stable(answers[1])
    assert public.service.received_bytes == before, "a preflight does not reach the service"


def test_answers_and_errors_carry_the_origin(public):
    for target, token in (("/t/home/x", public.token), ("/t/nothing/x", public.token),
                          ("/t/home/x", None)):
        response = public.relay.fetch(target, token, headers=[("Origin", "https://app.example")])
        assert response.all("Access-Control-Allow-Origin") == ["https://app.example"]


def test_the_services_own_cors_fields_do_not_double(public):
    public.service.on("/cors", raw(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\n"
                                   b"Content-Length: 0\r\n\r\n"))
    response = public.fetch("/cors", headers=[("Origin", "https://app.example")])
    assert response.all("Access-Control-Allow-Origin") == ["https://app.example"]


def test_foreign_origins_get_no_leave(public):
    headers = [("Origin", "https://evil.example"), *PREFLIGHT[1:]]
    response = public.relay.fetch("/t/home/x", None, "OPTIONS", headers=headers)
    assert response.get("Access-Control-Allow-Origin") is None


# -- WebSocket -------------------------------------------------------------------------------------

class EchoServer:
    """python3-websockets as the local service."""

    def __init__(self):
        self.port = free_port()
        self.subprotocols = []
        self.headers = []
        self.loop = asyncio.new_event_loop()
        started = threading.Event()

        async def handler(socket):
            self.subprotocols.append(socket.subprotocol)
            self.headers.append(socket.request_headers)
            async for message in socket:
                await socket.send(message)

        async def serve():
            await websockets.serve(handler, "127.0.0.1", self.port, max_size=None,
                                   subprotocols=["chat"])
            started.set()

        self.loop.create_task(serve())
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        assert started.wait(10)


@pytest.fixture(scope="module")
def ws_home(shared):
    server = EchoServer()
    relay = shared.relay()
    shared.http(relay, server.port, name="ws")
    return server, relay, shared.token()


def talk(coroutine):
    return asyncio.run(asyncio.wait_for(coroutine, 30))


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_websocket_echo_through_the_tunnel(ws_home, compression):
    server, relay, token = ws_home

    async def run():
        async with websockets.connect(
                f"ws://127.0.0.1:{relay.port}/t/ws/echo", max_size=None, compression=compression,
                extra_headers={"Authorization": f"Bearer {token}"}) as socket:
            for message in ("text", "é" * 1000, b"\x00\xff" * 500_000, ""):
                await socket.send(message)
                assert await socket.recv() == message
            await (await socket.ping())
        assert socket.close_code == 1000
    talk(run())
    assert "authorization" not in server.headers[-1]


def test_a_browsers_token_comes_as_a_subprotocol_and_is_taken_out(ws_home):
    server, relay, token = ws_home

    async def run():
        async with websockets.connect(f"ws://127.0.0.1:{relay.port}/t/ws/echo",
                                      subprotocols=["chat", f"bearer.{token}"]) as socket:
            await socket.send("x")
            assert await socket.recv() == "x"
            return socket.subprotocol
    assert talk(run()) == "chat"
    assert server.subprotocols[-1] == "chat"
    assert token not in str(server.headers[-1])


def test_websocket_without_a_token_is_refused(ws_home):
    _, relay, _ = ws_home

    async def run():
        with pytest.raises(websockets.InvalidStatusCode) as failure:
            await websockets.connect(f"ws://127.0.0.1:{relay.port}/t/ws/echo")
        assert failure.value.status_code == 401
    talk(run())


def test_a_refused_upgrade_is_an_ordinary_answer(shared_home):
    key = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")]
    with shared_home.client() as client:
        client.request("GET", "/t/home/no-websocket", shared_home.token, headers=key)
        assert client.response().status == 200


def test_a_websocket_ends_when_the_consumer_goes_away(scene):
    gone = []

    def upgrade(conn, request):
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                  b"Connection: Upgrade\r\n\r\nhello")
        gone.append(conn.wait_gone(15))
        return False

    home = scene(routes={"/ws": upgrade})
    with home.client() as client:
        client.request("GET", "/t/home/ws", home.token, headers=[
            ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")])
        assert client.head().status == 101
        while client.buffer != b"hello":
            assert client.fill()
    wait_for(lambda: gone, 5, "end of the service's connection")


def test_nginx_as_the_local_service(world):
    port = free_port()
    (world.folder / "www").mkdir()
    (world.folder / "www" / "file.bin").write_bytes(bytes(range(256)) * 4096)
    config = world.write("nginx.conf", f"""
daemon off; master_process off; pid {world.folder}/nginx.pid; error_log {world.folder}/nginx.err;
events {{ worker_connections 64; }}
http {{
    access_log off; root {world.folder}/www;
    client_body_temp_path {world.folder}/t1; proxy_temp_path {world.folder}/t2;
    fastcgi_temp_path {world.folder}/t3; uwsgi_temp_path {world.folder}/t4;
    scgi_temp_path {world.folder}/t5;
    gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;
    server {{ listen 127.0.0.1:{port}; location /status {{ return 200 "fine"; }} }}
}}
""")
    world.spawn("/usr/sbin/nginx", "-e", world.folder / "nginx.err", "-c", config)
    wait_for(lambda: _is_open(port), what="nginx")
    relay = world.relay()
    world.http(relay, port)
    data = bytes(range(256)) * 4096
    assert relay.fetch("/t/home/status", world.token()).body == b"fine"
    assert relay.fetch("/t/home/file.bin", world.token()).body == data
    part = relay.fetch("/t/home/file.bin", world.token(), headers=[("Range", "bytes=10-19")])
    assert part.status == 206 and part.body == data[10:20]
    import gzip
    packed = relay.fetch("/t/home/file.bin", world.token(), headers=[("Accept-Encoding", "gzip")])
    assert packed.get("Content-Encoding") == "gzip" and gzip.decompress(packed.body) == data
    assert relay.fetch("/t/home/missing", world.token()).status == 404


def _is_open(port):
    try:
        Client(port, timeout=1).close()
        return True
    except OSError:
        return False
