# SPDX-License-Identifier: MIT
"""Spans: what is recorded of a request, to whom it is sent, and that a collector which misbehaves is
nobody's trouble but its own."""
import re
import time

import prometheus
import pytest
from client import Client
from collector import Collector, close_at_once
from culvert import free_port, wait_for

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
SERVER, INTERNAL, CLIENT = 2, 1, 3


@pytest.fixture
def collector(world):
    collector = Collector()
    world.cleanups.append(collector.close)
    yield collector
    assert not collector.faults, collector.faults


@pytest.fixture
def traced(scene, collector):
    """A scene whose relay sends its spans to the collector."""
    def make(env=None, **kw):
        return scene(relay_env={"TRACING_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50",
                                **(env or {})}, **kw)
    return make


def with_parent(flags="01"):
    return [("traceparent", f"00-{TRACE}-{PARENT}-{flags}")]


def one(spans, name):
    found = [span for span in spans if span.name == name]
    assert len(found) == 1, [span.name for span in spans]
    return found[0]


def test_a_request_is_a_trace_from_the_consumer_to_the_service(traced, collector):
    home = traced(env={"OTEL_SERVICE_NAME": "front",
                       "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=test%20bed,x=1"})
    answer = home.fetch("/some/path?secret=1", "POST", body=b"hello",
                        headers=[*with_parent(), ("tracestate", "one=1, two=2"),
                                 ("tracestate", "three=3")])
    assert answer.status == 200
    spans = collector.wait(trace_id=TRACE, count=4)
    server = one(spans, "POST /t/{tunnel}/{path}")
    forward = one(spans, "tunnel.forward_request")
    connection = one(spans, "tunnel.get_connection")
    stream = one(spans, "tunnel.ssh_forward")
    assert [s.kind for s in (server, forward, connection, stream)] == [SERVER, INTERNAL, INTERNAL,
                                                                      CLIENT]
    assert server.parent_id == PARENT and server.flags & 0x300 == 0x300
    assert forward.parent_id == server.span_id
    assert connection.parent_id == stream.parent_id == forward.span_id
    assert all(span.flags & 0x301 == 0x101 for span in (forward, connection, stream))
    assert server.start <= forward.start <= connection.end <= stream.start <= stream.end
    assert stream.end <= server.end
    assert [name for name, _ in stream.events] == ["first_byte"]
    found = server.attributes
    assert found["http.request.method"] == "POST"
    assert found["http.route"] == "/t/{tunnel}/{path}"
    assert found["url.path"] == "/t/home/some/path"
    assert found["url.scheme"] == "http"
    assert found["http.response.status_code"] == 200
    assert found["client.address"] == "127.0.0.1"
    assert found["enduser.id"] == "alice"
    assert found["culvert.request_id"] == answer.get("X-Request-Id")
    assert "error.type" not in found
    assert forward.attributes["http.request.body.size"] == 5
    assert all(span.status == 0 for span in spans)
    # The service's spans go on from the stream's.
    request = home.service.requests[-1]
    assert request.get("traceparent") == f"00-{TRACE}-{stream.span_id}-01"
    assert request.all("tracestate") == ["one=1,two=2,three=3"]
    assert answer.get("traceresponse") == f"00-{TRACE}-{server.span_id}-01"
    resource = server.resource
    assert resource["service.name"] == "front"
    assert resource["deployment.environment"] == "test bed"
    assert re.fullmatch(r"[0-9a-f]{16}", resource["service.instance.id"])
    # The log has the same ids.
    home.relay.wait_log("request", trace_id=TRACE, span_id=server.span_id)


def test_the_duration_of_a_request_points_to_its_trace(traced):
    home = traced()
    home.fetch("/", headers=with_parent())
    page = home.relay.fetch("/api/tunnel/metrics", home.world.token("root", "--admin"),
                            headers=[("Accept", "application/openmetrics-text")])
    prometheus.read(page, True)
    assert f'trace_id="{TRACE}"'.encode() in page.body


def test_a_link_is_a_short_span_that_requests_point_to(traced, collector):
    home = traced()
    upgrade = collector.wait("GET /tunnel")[0]
    assert upgrade.attributes["http.response.status_code"] == 101
    assert upgrade.end - upgrade.start < 60e9 and upgrade.kind == SERVER and upgrade.status == 0
    home.fetch("/")
    stream = collector.wait("tunnel.ssh_forward")[0]
    assert [(link["traceId"], link["spanId"]) for link in stream.links] == \
        [(upgrade.trace_id, upgrade.span_id)]
    # It comes back: another short span, which points to the first.
    home.world.run("reconnect", check=0)
    home.relay.wait_log("link_resumed")
    again = collector.wait("GET /tunnel", count=2)[1]
    assert again.links[0]["spanId"] == upgrade.span_id


def test_the_agent_traces_its_links(scene, collector):
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}
    home = scene(relay_env=env, agent_env=env)
    connect = collector.wait("link.connect")[0]
    upgrade = collector.wait("GET /tunnel")[0]
    assert connect.kind == CLIENT and connect.parent_id is None and connect.status == 0
    assert (upgrade.trace_id, upgrade.parent_id) == (connect.trace_id, connect.span_id)
    assert connect.attributes["server.address"] == f"127.0.0.1:{home.relay.port}"
    home.world.run("reconnect", check=0)
    resume = collector.wait("link.resume")[0]
    again = collector.wait("GET /tunnel", count=2)[1]
    assert again.parent_id == resume.span_id and resume.status == 0
    home.relay.stop()
    failed = collector.wait("link.connect", count=2)[-1]
    assert failed.status == 2 and failed.attributes["error.type"].startswith("TUNNEL_")


def test_errors_of_consumers_are_no_errors_of_the_relay(traced, collector):
    def answer_with(status):
        def route(conn, request):
            conn.read_body(request)
            conn.reply(status, reason="Said")
            return True
        return route
    home = traced(routes={"/gone": answer_with(404), "/busy": answer_with(503)})
    cases = {
        "/t/home/gone": (404, 0, None),
        "/t/home/busy": (503, 2, "503"),
        "/t/nothing/": (404, 0, "TUNNEL_001"),
        "/nowhere": (404, 0, "TUNNEL_"),
    }
    for path, (status, code, error) in cases.items():
        answer = home.relay.fetch(path, home.token)
        assert answer.status == status
        trace_id = answer.get("traceresponse").split("-")[1]
        wait_for(lambda trace_id=trace_id: collector.find(trace_id=trace_id), 10, "span")
        span = [s for s in collector.find(trace_id=trace_id) if s.kind == SERVER][0]
        assert span.status == code, path
        assert (error is None) == ("error.type" not in span.attributes), path
        if status != 503 and error:
            assert answer.json()["trace_id"] == trace_id
            assert answer.json()["span_id"] == span.span_id
    assert one(collector.find(trace_id=trace_id), "GET")  # no route, and not the path either


def test_a_service_that_is_down_is_an_error_with_its_code(traced, collector):
    home = traced()
    home.service.close()
    answer = home.fetch("/")
    assert answer.status == 502
    spans = collector.wait(trace_id=answer.json()["trace_id"], count=3)
    assert one(spans, "tunnel.get_connection").status == 2
    server = one(spans, "GET /t/{tunnel}/{path}")
    assert server.status == 2 and server.attributes["error.type"] == answer.json()["code"]
    assert "tunnel.ssh_forward" not in {span.name for span in spans}


def test_a_consumer_that_leaves_leaves_a_span(traced, collector):
    def silent(conn, request):
        conn.wait_gone(20)
        return False
    home = traced(routes={"/": silent})
    with home.client() as client:
        client.request("GET", "/t/home/", home.token, headers=with_parent())
        home.service.wait_requests()
    server = one(collector.wait(trace_id=TRACE, count=4), "GET /t/{tunnel}/{path}")
    assert server.attributes["error.type"] == "cancelled" and server.status == 0
    assert "http.response.status_code" not in server.attributes


def test_credentials_in_a_path_do_not_leave(traced, collector):
    home = traced()
    home.fetch(f"/x/{home.token}", headers=with_parent())
    span = one(collector.wait(trace_id=TRACE, count=4), "GET /t/{tunnel}/{path}")
    assert "[hidden]" in span.attributes["url.path"]
    assert not any(home.token.encode() in body for _, body in collector.bodies)


@pytest.mark.parametrize("sampler,arg,flags,expected", [
    ("parentbased_always_on", None, "01", True),
    ("parentbased_always_on", None, "00", False),
    ("parentbased_always_off", None, "01", True),
    ("always_on", None, "00", True),
    ("always_off", None, "01", False),
    ("traceidratio", "0", "01", False),
    ("traceidratio", "1", "00", True),
])
def test_the_sampler_decides(traced, collector, sampler, arg, flags, expected):
    home = traced(env={"OTEL_TRACES_SAMPLER": sampler, "OTEL_TRACES_SAMPLER_ARG": arg})
    home.fetch("/", headers=with_parent(flags))
    said = home.service.requests[-1].get("traceparent").split("-")
    assert said[1] == TRACE and said[2] != PARENT and said[3] == ("01" if expected else "00")
    if expected:
        collector.wait(trace_id=TRACE, count=4)
    else:
        home.relay.stop()  # sends what there is
        assert not collector.find(trace_id=TRACE)


def test_without_tracing_what_came_goes_on(scene):
    home = scene()
    answer = home.fetch("/", headers=[*with_parent("00"), ("tracestate", "one=1")])
    request = home.service.requests[-1]
    assert request.get("traceparent") == f"00-{TRACE}-{PARENT}-00"
    assert request.all("tracestate") == ["one=1"]
    assert answer.get("traceresponse") is None
    home.relay.wait_log("request", trace_id=TRACE, span_id=PARENT)
    assert "trace_id" not in home.fetch("/", token=None).json()


BROKEN = [
    f"00-{TRACE.upper()}-{PARENT}-01", f"00-{'0' * 32}-{PARENT}-01", f"00-{TRACE}-{'0' * 16}-01",
    f"00-{TRACE}-{PARENT}-01-more", f"ff-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}", "00",
    f"01-{TRACE}-{PARENT}-01.more", f"00_{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-0g", "",
]


def test_a_bad_traceparent_starts_a_new_trace(scene):
    home = scene()
    for bad in BROKEN:
        answer = home.fetch("/", headers=[("traceparent", bad), ("tracestate", "one=1")])
        request = home.service.requests[-1]
        assert answer.status == 200 and TRACE not in request.get("traceparent"), bad
        assert request.all("tracestate") == [], bad
    home.fetch("/", headers=[*with_parent(), *with_parent()])
    assert TRACE not in home.service.requests[-1].get("traceparent")
    # A version to come is read as far as it is known.
    home.fetch("/", headers=[("traceparent", f"cc-{TRACE}-{PARENT}-01-what-the-future-brings")])
    assert home.service.requests[-1].get("traceparent") == f"00-{TRACE}-{PARENT}-01"


@pytest.mark.parametrize("state,expected", [
    (["a=1", " b=2 ,, c=3"], "a=1,b=2,c=3"),
    (["a=1,b"], None),
    (["A=1"], None),
    ([",".join(f"k{i}=v" for i in range(33))], None),
    (["a=" + "x" * 200 + ",b=" + "y" * 200 + ",c=3," + "d=" + "z" * 200], "c=3"),
    ([",".join(f"k{i}=" + "v" * 100 for i in range(6))],
     ",".join(f"k{i}=" + "v" * 100 for i in range(4))),
], ids=range(6))
def test_tracestate_is_passed_on_within_bounds(shared_home, state, expected):
    shared_home.fetch("/", headers=[*with_parent(), *(("tracestate", line) for line in state)])
    assert shared_home.service.requests[-1].all("tracestate") == ([expected] if expected else [])


def test_where_spans_go_is_said_in_many_ways(scene, collector):
    """The variables that all of OpenTelemetry's programs share."""
    home = scene(relay_env={"OTEL_EXPORTER_OTLP_ENDPOINT": f"{collector.url}/base/",
                            "OTEL_EXPORTER_OTLP_HEADERS": "x-api-key=a%20b, x-team = red",
                            "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    home.fetch("/", headers=with_parent())
    collector.wait(trace_id=TRACE, count=4)
    _, headers, path = collector.requests[0]
    assert path == "/base/v1/traces"
    assert headers["x-api-key"] == "a b" and headers["x-team"] == "red"
    assert headers["Content-Type"] == "application/json"
    ignored = home.relay.find("environment_ignored")
    assert [record["variable"] for record in ignored] == ["OTEL_EXPORTER_OTLP_PROTOCOL"]
    assert not any("a b" in line for line in home.relay.lines)


@pytest.mark.parametrize("env", [{"OTEL_SDK_DISABLED": "true"}, {"TRACING_ENABLED": "false"}],
                         ids=["sdk-disabled", "own-setting"])
def test_tracing_is_switched_off(traced, collector, env):
    home = traced(env=env)
    assert home.fetch("/").get("traceresponse") is None
    home.relay.stop()
    assert not collector.requests


@pytest.mark.parametrize("choice,field", [("server-timing", "Server-Timing"), ("none", None)])
def test_how_an_answer_tells_its_trace(traced, choice, field):
    def route(conn, request):
        conn.read_body(request)
        conn.reply(headers=[("traceresponse", "of-the-service"), ("Server-Timing", "db;dur=5")])
        return True
    home = traced(config=f"tracing:\n  answer: {choice}\n", routes={"/": route})
    answer = home.fetch("/", headers=with_parent())
    said = answer.all("Server-Timing")
    assert said[0] == "db;dur=5"
    if field:
        assert re.fullmatch(rf'traceparent;desc="00-{TRACE}-[0-9a-f]{{16}}-01"', said[1])
        assert answer.get("traceresponse") is None
    else:
        assert answer.get("traceresponse") == "of-the-service" and len(said) == 1


def ask_for(home, seconds):
    """Requests one after the other; all must be good. How many there were, and the slowest."""
    count, slowest = 0, 0.0
    end = time.monotonic() + seconds
    with Client(home.relay.port) as client:
        while time.monotonic() < end:
            start = time.monotonic()
            client.request("GET", "/t/home/x", home.token)
            response = client.response()
            assert response is not None and response.status == 200
            slowest = max(slowest, time.monotonic() - start)
            count += 1
    return count, slowest


def wait_until_taken(home):
    """There must be spans for that."""
    wait_for(lambda: home.fetch("/").status == 200 and home.relay.find("spans_taken"), 60,
             "spans that are taken")


def dropped(home, reason):
    page = home.relay.fetch("/api/tunnel/metrics", home.world.token("root", "--admin"))
    return prometheus.read(page).samples["tunnel_otlp_spans_dropped_total",
                                         frozenset({("reason", reason)})]


def hang(handler):
    handler.close_connection = True
    time.sleep(30)


def talk_nonsense(handler):
    handler.close_connection = True
    handler.connection.sendall(b"\x16\x03\x01 what is this \r\n\r\n")


def drown(handler):
    handler.close_connection = True
    handler.send_response(200)
    handler.send_header("Content-Length", str(1 << 30))
    handler.end_headers()
    try:
        for _ in range(1024):
            handler.wfile.write(b"x" * 65536)
    except OSError:
        pass


@pytest.mark.parametrize("answer", [hang, close_at_once, talk_nonsense, drown, 500, 400, 503],
                         ids=lambda a: getattr(a, "__name__", str(a)))
def test_a_collector_that_misbehaves_disturbs_nobody(traced, collector, answer):
    home = traced(env={"OTEL_EXPORTER_OTLP_TIMEOUT": "500"})
    collector.answer = answer
    count, _ = ask_for(home, 1.0)
    assert count > 20
    home.relay.wait_log("spans_not_taken")
    collector.wait_requests(1)
    # It comes to its senses: what is sent from then on arrives. A 503 is tried again after a second.
    collector.answer = 200
    wait_until_taken(home)


def test_a_collector_that_is_away_disturbs_nobody(scene, world):
    port = free_port()
    home = scene(relay_env={"TRACING_ENDPOINT": f"http://127.0.0.1:{port}",
                            "OTEL_BSP_SCHEDULE_DELAY": "50"})
    ask_for(home, 0.5)
    home.relay.wait_log("spans_not_taken")
    collector = Collector(port=port)
    world.cleanups.append(collector.close)
    wait_until_taken(home)
    home.fetch("/", headers=with_parent())
    collector.wait(trace_id=TRACE, count=4)
    collector.close()
    start = time.monotonic()
    home.fetch("/")
    home.relay.stop()
    assert time.monotonic() - start < 20


def test_retry_after_is_heeded(traced, collector):
    home = traced()
    collector.wait("GET /tunnel")
    before = len(collector.requests)
    collector.answer = (429, {"Retry-After": "3"})
    home.fetch("/", headers=with_parent())
    collector.wait_requests(before + 1)
    collector.answer = 200
    collector.wait(trace_id=TRACE, count=4)
    first, second = collector.requests[before][0], collector.requests[before + 1][0]
    assert 2.9 < second - first < 20


def test_the_last_spans_are_sent_before_the_relay_ends(traced, collector):
    home = traced(env={"OTEL_BSP_SCHEDULE_DELAY": "60000"})
    for _ in range(10):
        home.fetch("/")
    assert not collector.requests
    home.agent.stop()
    home.relay.stop()
    assert len(collector.find("tunnel.ssh_forward")) == 10


def test_more_spans_than_are_sent_are_dropped_not_waited_for(traced, collector):
    """A ring is full after 1,024 requests; a collector that hangs takes none of them."""
    home = traced(env={"OTEL_EXPORTER_OTLP_TIMEOUT": "60000"})
    collector.answer = hang
    wait_for(lambda: ask_for(home, 0.5)[0] and dropped(home, "queue_full") > 8, 120, "full ring")
    rss = home.relay.rss_kib()
    assert ask_for(home, 0.5)[0] > 10
    assert home.relay.rss_kib() < rss + 16 * 1024


def test_what_a_collector_refuses_is_counted(traced, collector):
    def take_some(handler):
        body = b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"no room"}}'
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)
    home = traced()
    collector.wait("GET /tunnel")
    collector.answer = take_some
    home.fetch("/")
    wait_for(lambda: dropped(home, "rejected") == 3, 10, "refused spans")
    collector.answer = 400
    home.fetch("/")
    home.relay.wait_log("spans_not_taken", httpStatus=400)
    wait_for(lambda: dropped(home, "rejected") >= 7, 10, "refused spans")
