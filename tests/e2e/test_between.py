# SPDX-License-Identifier: MIT
"""What stands between a consumer and a service, and must not be confused by the relay: caches,
which know URLs and not users; balancers and the addresses that they name; rules and the fields by
which frameworks take another request than the rules were asked for."""
import pytest
from culvert import free_port, wait_for

NGINX_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


def answer(*fields, body=b"hello", status=b"200 OK"):
    lines = b"".join(f.encode() + b"\r\n" for f in fields)
    return b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, lines, len(body), body)


def route(*fields, **kw):
    def serve(conn, request):
        conn.read_body(request)
        conn.send(answer(*fields, **kw))
        return True
    return serve


def listed(response, name):
    return [item.strip() for value in response.all(name) for item in value.split(",")]


# -- caches (RFC 9111) -----------------------------------------------------------------------------

@pytest.mark.parametrize("fields, control", [
    ((), ["private"]),
    (("Cache-Control: public, max-age=60",), ["public", "max-age=60", "private"]),
    (("Cache-Control: s-maxage=60",), ["s-maxage=60", "private"]),
    (("Cache-Control: max-age=60", "Cache-Control: Private"), ["max-age=60", "Private"]),
    (("Cache-Control: no-store",), ["no-store"])])
def test_an_answer_is_for_the_user_who_asked(shared_home, fields, control):
    shared_home.service.on("/cached", route(*fields, "Vary: Accept"))
    response = shared_home.fetch("/cached")
    assert response.status == 200 and listed(response, "Cache-Control") == control
    assert listed(response, "Vary") == ["Accept", "Authorization", "Culvert-Authorization"]


def test_and_so_is_the_word_that_it_has_not_changed(shared_home):
    def unchanged(conn, request):
        conn.send(b"HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n"
                  b"Cache-Control: public, max-age=60\r\n\r\n")
        return True
    shared_home.service.on("/304", unchanged)
    response = shared_home.fetch("/304", headers=[("If-None-Match", "\"1\"")])
    assert response.status == 304 and "private" in listed(response, "Cache-Control")


def test_errors_are_not_stored(shared_home):
    """404, 405 and 414 may be, unless they forbid it (RFC 9110 §15.1)."""
    for target, method, token in (("/t/nothing/", "GET", shared_home.token),
                                  ("/nowhere", "GET", None), ("/livez", "POST", None),
                                  ("/t/home/", "GET", None), ("/" + "a" * 20000, "GET", None)):
        response = shared_home.relay.fetch(target, token, method)
        assert response.status >= 400 and response.all("Cache-Control") == ["no-store"]


def test_a_stream_of_the_users_own_leaves_it_to_the_service(shared):
    from scene import Scene
    scene = Scene(shared)
    scene.service.on("/cached", route("Cache-Control: public, max-age=60"))
    _, port = shared.forward(scene.relay, "home")
    from client import fetch
    response = fetch(port, "/cached")
    assert response.all("Cache-Control") == ["public, max-age=60"] and not response.all("Vary")
    # Who asks has no address there.
    request = scene.service.requests[-1]
    assert request.all("X-Forwarded-For") == ["unknown"]
    assert request.get("Forwarded").startswith("for=unknown;")


@pytest.mark.parametrize("name", ["Authorization", "Culvert-Authorization"])
def test_a_cache_in_front_keeps_users_apart(world, name):
    """The same URL means another service for another user, and both say that all may see it."""
    services = {}
    relay = world.relay()
    for user in ("alice", "bob"):
        services[user] = world.service({"/page": route("Cache-Control: public, max-age=60",
                                                       "ETag: \"1\"", body=user.encode())})
        world.http(relay, services[user].port, sub=user)
    port = free_port()
    temporary = "\n".join(f"{n}_temp_path {world.folder}/{n};" for n in NGINX_TEMPORARY)
    config = world.write("nginx.conf", f"""
daemon off; master_process off; worker_processes 1;
pid {world.folder}/nginx.pid; error_log {world.folder}/nginx.err;
events {{}}
http {{
    access_log off;
    {temporary}
    proxy_cache_path {world.folder}/cache keys_zone=c:1m use_temp_path=off;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{relay.port};
            proxy_cache c;
            add_header X-Cache $upstream_cache_status always;
        }}
    }}
}}
""")
    world.spawn("/usr/sbin/nginx", "-e", world.folder / "nginx.err", "-c", config)
    from client import fetch

    def ask(user):
        return fetch(port, "/t/home/page", headers=[(name, f"Bearer {world.token(user)}")])

    def is_up():
        try:
            return fetch(port, "/livez").status == 200
        except OSError:
            return False
    wait_for(is_up, 10, "nginx")
    for _ in range(2):
        for user in ("alice", "bob"):
            response = ask(user)
            assert response.status == 200 and response.body == user.encode()
    assert fetch(port, "/t/home/page").status == 401


# -- balancers -------------------------------------------------------------------------------------

def behind(world, header):
    from scene import Scene
    return Scene(world, config=f"trusted_proxy: [127.0.0.1/32]\ntrusted_header: {header}\n")


@pytest.fixture(scope="module")
def balanced(tmp_path_factory):
    from culvert import World
    made = World(tmp_path_factory.mktemp("balanced"))
    scenes = {}

    def get(header):
        if header not in scenes:
            scenes[header] = behind(made, header)
        return scenes[header]
    yield get
    made.close()


def told(scene, *fields):
    """(X-Forwarded-For, Forwarded without host and proto) that the service gets."""
    assert scene.fetch("/x", headers=list(fields)).status == 200
    request = scene.service.requests[-1]
    assert len(request.all("X-Forwarded-For")) == len(request.all("Forwarded")) == 1
    return (request.get("X-Forwarded-For"),
            [e.strip().partition(";")[0] for e in request.get("Forwarded").split(",")])


FORGED, REAL, V6 = "6.6.6.6", "192.0.2.1", "2001:db8::1"


@pytest.mark.parametrize("fields, chain", [
    ([], []),
    ([("X-Forwarded-For", REAL)], [REAL]),
    ([("X-Forwarded-For", f"{FORGED}, {REAL}")], [FORGED, REAL]),
    # haproxy's `option forwardfor` adds a line of its own behind the client's.
    ([("X-Forwarded-For", FORGED), ("X-Forwarded-For", REAL)], [FORGED, REAL]),
])
def test_the_balancers_list_goes_on_whole(balanced, fields, chain):
    listed_for, forwarded = told(balanced("x-forwarded-for"), *fields)
    assert listed_for == ", ".join([*chain, "127.0.0.1"])
    assert forwarded == [f"for={ip}" for ip in [*chain[-1:], "127.0.0.1"]]


def test_the_header_that_is_not_the_balancers_is_the_clients_word(balanced):
    listed_for, forwarded = told(balanced("x-forwarded-for"), ("Forwarded", f"for={FORGED}"),
                                 ("X-Forwarded-For", V6))
    assert listed_for == f"{V6}, 127.0.0.1"
    assert forwarded == [f'for="[{V6}]"', "for=127.0.0.1"]
    listed_for, forwarded = told(balanced("forwarded"), ("X-Forwarded-For", FORGED),
                                 ("Forwarded", f"for={REAL}"))
    assert listed_for == f"{REAL}, 127.0.0.1" and forwarded == [f"for={REAL}", "for=127.0.0.1"]
    listed_for, forwarded = told(balanced("none"), ("X-Forwarded-For", FORGED),
                                 ("Forwarded", f"for={FORGED}"))
    assert listed_for == "127.0.0.1" and forwarded == ["for=127.0.0.1"]


def test_an_open_quote_does_not_swallow_what_is_behind_it(balanced):
    _, forwarded = told(balanced("forwarded"), ("Forwarded", f'for="{FORGED}'),
                        ("Forwarded", f"for={REAL}"))
    assert forwarded == [f"for={REAL}", "for=127.0.0.1"]


def test_a_long_list_is_no_obstacle(balanced):
    chain = [f"10.{n // 250}.{n % 250}.1" for n in range(600)]
    listed_for, _ = told(balanced("x-forwarded-for"), ("X-Forwarded-For", ", ".join(chain)))
    assert listed_for == ", ".join([*chain, "127.0.0.1"])


# -- rules -----------------------------------------------------------------------------------------

OVERRIDES = [("X-HTTP-Method-Override", "DELETE"), ("X-HTTP-Method", "DELETE"),
             ("X-Method-Override", "DELETE"), ("X-Original-URL", "/api/delete"),
             ("X-Rewrite-URL", "/api/delete"), ("X_Original_URL", "/api/delete")]


def test_rules_cannot_be_talked_around(world):
    from scene import Scene
    scene = Scene(world, agent_args=["--preset", "ollama"])
    assert scene.fetch("/api/chat", "POST", body=b"{}", headers=OVERRIDES).status == 200
    request = scene.service.requests[-1]
    assert not any(request.all(name) for name, _ in OVERRIDES) and b"delete" not in request.head


def test_without_rules_they_are_the_services_own(shared_home):
    assert shared_home.fetch("/x", "POST", body=b"{}", headers=OVERRIDES).status == 200
    request = shared_home.service.requests[-1]
    assert all(request.all(name) == [value] for name, value in OVERRIDES)
