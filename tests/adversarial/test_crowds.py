# SPDX-License-Identifier: MIT
"""Row 44 again: many users at once, names that are made up to cross over, and one user or address
that takes all it can get. Nobody else is to notice."""
import contextlib
import itertools
import re
import threading
import time

import pytest
from attack import RSS_KIB, SLACK, UPGRADE, reset
from bystander import WAKE_UPS
from client import Client
from culvert import INSTRUMENTS, World, wait_for

USERS = TUNNELS = 20
MIB5 = RSS_KIB if INSTRUMENTS else 5 * 1024


# ---- twenty users with twenty tunnels ----

class Town:
    """Each user's tunnels lead to a service that says whose it is; all have one called `home`."""

    def __init__(self, world):
        self.world = world
        self.relay = world.relay(env={"LOG_LEVEL": "info"})
        self.users = [f"user{n}" for n in range(USERS)]
        self.names = {user: [f"{user}-t{k}" for k in range(TUNNELS - 1)] + ["home"]
                      for user in self.users}
        self.tokens = {user: world.token(user) for user in self.users}
        for user in self.users:
            service = world.service(default=self.sign(user))
            tunnels = "".join(f"  - {{name: {name}, target: '{service.port}'}}\n"
                              for name in self.names[user])
            config = world.write(f"{user}.yaml", f"server: {self.relay.url}\ntunnels:\n{tunnels}")
            world.start(f"agent:{user}", "agent", "-c", config,
                        env={"CULVERT_TOKEN": self.tokens[user], "LOG_LEVEL": "info"})
        wait_for(lambda: self.relay.fetch("/health").json()["tunnels"] == USERS * TUNNELS, 60,
                 "all tunnels")

    @staticmethod
    def sign(user):
        def route(conn, request):
            conn.read_body(request)
            conn.reply(body=user.encode())
            return True
        return route


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("town"), 2)
    try:
        yield Town(world)
    finally:
        world.close()


def shape(answer, name):
    """The answer without what is different each time, the request's id (of any length), and
    without the name that was asked for."""
    body = re.sub(rb'"request_id": ?"[^"]*"', b"", answer.body).replace(name.encode(), b"NAME")
    return answer.status, [(n.lower(), v) for n, v in answer.headers
                           if n.lower() not in ("x-request-id", "date", "content-length")], body


def test_row_44_twenty_users_reach_their_own_tunnels_and_no_other(town):
    """Each with every name there is: 8,000 requests."""
    for user in town.users:
        with Client(town.relay.port) as client:
            def ask(name, client=client, token=town.tokens[user]):
                client.request("GET", f"/t/{name}/x", token)
                return client.response()
            nothing = shape(ask("nobody-t1"), "nobody-t1")
            assert nothing[0] == 404
            for owner, name in ((o, n) for o in town.users for n in town.names[o]):
                answer = ask(name)
                if owner == user or name == "home":
                    assert answer.status == 200 and answer.body == user.encode(), name
                else:
                    assert shape(answer, name) == nothing, name
    for owner in town.users:  # and no log line of one names another's tunnel
        for record in town.relay.find(userId=owner):
            others = [o for o in town.users if o != owner and f"{o}-" in str(record)]
            assert not others, record


LOOKALIKES = ["us\u0435r1-t1", "user\uff11-t1", "user1\u2010t1", "USER1-t1", "user1-t1\u0301",
              "user1-t1.", "user1-t1%00", "user1\u200b-t1"]


def made_up_targets():
    other = "user1-t1"
    yield from (f"/t/home/../{other}/x", f"/t/home/%2e%2e/{other}/x", f"/t/home/..%2f{other}/x",
                f"/t/home/..;/{other}/x", f"/t/home\\..\\{other}/x", f"/t/%2e%2e/t/{other}/x",
                f"/t/./{other}/x", f"/t//{other}/x", f"//t/{other}/x", f"/t/{other}%2fx",
                f"/t/user1%2dt1/x", f"/t/%75ser1-t1/x", f"/t/{other}%00/x", f"/t/{other}\0/x",
                f"/t/{other}\t/x", f"/t/{'a' * 4096}/x", f"/t/{'../' * 600}{other}/x",
                f"/t/user1~{other}/x", f"/t/user1~user1-t1/../x", f"/t/home?/../{other}/x",
                f"/t/home#/../{other}/x", f"/t/{other}?x=/t/home/", f"/t/{other}/x@home",
                f"http://user1-t1.relay.test/x", f"/t/{other};home/x", f"/t/{other},home/x")
    for name in LOOKALIKES:
        raw = name.encode()
        yield "/t/" + raw.decode("latin-1") + "/x"
        yield "/t/" + "".join(f"%{byte:02X}" for byte in raw) + "/x"


@pytest.mark.parametrize("target", list(made_up_targets()),
                         ids=lambda t: ascii(t)[1:60])
def test_row_44_names_that_are_made_up_never_cross(town, target):
    """user0 asks: whatever the answer, it is not user1's, and tells nothing of him."""
    host = "relay.test"
    with Client(town.relay.port) as client:
        client.request("GET", target, town.tokens["user0"], host=host)
        answer = client.response()
    if answer is None:
        return
    assert answer.body != b"user1"
    if answer.status == 200:
        assert answer.body == b"user0"
    else:
        assert answer.status in (308, 400, 403, 404, 414, 431), answer.status


@pytest.mark.parametrize("headers", [
    [("X-Forwarded-User", "user1")], [("Culvert-User", "user1")], [("X-Tenant", "user1")],
    [("Forwarded", "for=user1")], [("X-Original-URL", "/t/user1-t1/x")],
    [("X-Rewrite-URL", "/t/user1-t1/x")], [("X-Forwarded-Host", "user1-t1.relay.test")],
    [("X-HTTP-Method-Override", "GET"), ("X-Forwarded-Prefix", "/t/user1-t1")]])
def test_row_44_headers_that_name_another_change_nothing(town, headers):
    assert town.relay.fetch("/t/home/x", town.tokens["user0"], headers=headers).body == b"user0"
    assert town.relay.fetch("/t/user1-t1/x", town.tokens["user0"], headers=headers).status == 404


# ---- one that takes all it can get ----

@pytest.fixture(scope="module")
def target(make_target):
    return make_target(env={"RATE_LIMIT_IP_RPM": "1000000", "CULVERT_QUEUE_SIZE": "100",
                            "LOG_LEVEL": "info"})


def slow(conn, request):
    conn.read_body(request)
    time.sleep(0.02)
    conn.reply(body=b"x" * 1000)
    return True


@contextlib.contextmanager
def saturated(target, width=130):
    """Alice keeps every stream busy, the queue full, and is refused again and again."""
    target.service.routes["/slow"] = slow
    stop, seen = threading.Event(), {200: 0, 503: 0}

    def run():
        while not stop.is_set():
            with contextlib.suppress(OSError, AssertionError), target.client(timeout=20) as client:
                while not stop.is_set():
                    client.request("GET", "/t/home/slow", target.token)
                    answer = client.response()
                    if answer is None:
                        break
                    status = answer.status
                    seen[status] = seen.get(status, 0) + 1
                    stop.wait(0.2 if status == 503 else 0.02)
    threads = [threading.Thread(target=run, daemon=True) for _ in range(width)]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: seen[503] > 10, 30, "a full queue")
        yield seen
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def test_row_44_a_user_with_a_full_queue_is_alone_with_it(target):
    with target.attack(rss_kib=MIB5), saturated(target) as seen:
        time.sleep(2)
    assert seen[503] > 10 and seen[200] > 10


@pytest.mark.timing
def test_row_44_a_saturating_user_costs_another_under_2_ms(target):
    """At p95, on the same worker, beyond what the machine costs everybody at that time."""
    def p95(times):
        return sorted(times)[int(len(times) * 0.95)]
    quiet = target._watch(3)
    with saturated(target):
        busy = target._watch(3)
    noise = WAKE_UPS * max(0, p95(busy.control) - p95(quiet.control))
    grown = p95(busy.probe) - p95(quiet.probe)
    assert not busy.faults
    assert grown < (0.002 + noise) * SLACK, (grown, noise)


BAD = ["token", "key", "version", "protocol"]


def bad_upgrade(number, token):
    fields = dict(UPGRADE)
    kind = BAD[number % len(BAD)]
    if kind == "token":
        token = token[:-8] + f"{number:08d}"
    elif kind == "key":
        fields["Sec-WebSocket-Key"] = "short"
    elif kind == "version":
        fields["Sec-WebSocket-Version"] = "12"
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    protocol = "chat" if kind == "protocol" else "culvert.v1"
    return (f"GET /tunnel HTTP/1.1\r\nHost: relay.test\r\n{lines}Sec-WebSocket-Protocol: "
            f"{protocol}\r\nAuthorization: Bearer {token}\r\n\r\n").encode()


def test_row_44_ten_thousand_bad_upgrades_from_one_address(target):
    count = 2000 if INSTRUMENTS else 10000
    links = target.counters()["links"]
    with target.attack(rss_kib=MIB5):
        ring = []
        for number in range(count):
            client = Client(target.relay.port, source="127.0.0.66", timeout=20)
            with contextlib.suppress(OSError):
                client.send(bad_upgrade(number, target.token))
            ring.append(client)
            if len(ring) == 400:
                reset(ring.pop(0).sock)
        for client in ring:
            reset(client.sock)
    assert target.counters()["links"] == links


def test_row_44_failures_of_one_address_do_not_slow_good_tokens_from_there(target):
    bad = target.token[:-8] + "AAAAAAAA"
    held = []
    for _ in range(60):
        client = Client(target.relay.port, source="127.0.0.67", timeout=20)
        client.request("GET", "/t/home/x", bad)
        held.append(client)
    target.relay.wait_log("auth_slowed")
    begin = time.monotonic()
    with Client(target.relay.port, source="127.0.0.67") as client:
        for _ in range(50):
            client.request("GET", "/t/home/x", target.token)
            assert client.response().status == 200
    assert time.monotonic() - begin < 4
    for client in held:
        client.close()


def test_row_44_half_handshakes_of_one_address_leave_room_for_others(target):
    """More than it may have: the rest is closed, and another address is served meanwhile."""
    with target.attack(rss_kib=MIB5):
        crowd = []
        for _ in range(400):
            client = Client(target.relay.port, source="127.0.0.68", timeout=20)
            with contextlib.suppress(OSError):
                client.send(b"GET /t/home/x HTTP/1.1\r\nHo")
            crowd.append(client)
        wait_for(lambda: sum(closed(c) for c in crowd) >= 144, 10, "the ones too many")
        assert sum(closed(c) for c in crowd) == 144
        for client in itertools.chain(crowd):
            client.close()


def closed(client):
    client.sock.setblocking(False)
    try:
        return client.sock.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True
