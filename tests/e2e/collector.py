# SPDX-License-Identifier: MIT
"""An OTLP collector over HTTP that is stricter than real ones: it checks every rule of the JSON form
that writers tend to miss, and keeps the spans. How it answers can be changed while it runs.
"""
import contextlib
import json
import re
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")
SPAN_ID = re.compile(r"(?!0{16})[0-9a-f]{16}")
DIGITS = re.compile(r"0|-?[1-9][0-9]*")
SPAN_KEYS = {"traceId", "spanId", "traceState", "parentSpanId", "flags", "name", "kind",
             "startTimeUnixNano", "endTimeUnixNano", "attributes", "droppedAttributesCount",
             "events", "droppedEventsCount", "links", "droppedLinksCount", "status"}
VALUE_KEYS = {"stringValue": str, "boolValue": bool, "intValue": str}


def once(pairs):
    """For json.loads: a member that is there twice is a fault."""
    found = dict(pairs)
    assert len(found) == len(pairs), [key for key, _ in pairs]
    return found


def attributes(items):
    found = {}
    for item in items:
        assert set(item) == {"key", "value"}, item
        assert len(item["value"]) == 1, item
        (kind, value), = item["value"].items()
        assert type(value) is VALUE_KEYS[kind], item
        if kind == "intValue":
            assert DIGITS.fullmatch(value), item
            value = int(value)
        assert item["key"] not in found, item
        found[item["key"]] = value
    return found


def nanoseconds(text):
    assert type(text) is str and DIGITS.fullmatch(text), text
    assert abs(int(text) / 1e9 - time.time()) < 3600, text
    return int(text)


class Span:
    """One span as it came, with its attributes as a dict."""

    def __init__(self, raw, resource):
        assert set(raw) <= SPAN_KEYS, set(raw) - SPAN_KEYS
        assert TRACE_ID.fullmatch(raw["traceId"]) and SPAN_ID.fullmatch(raw["spanId"]), raw
        assert "parentSpanId" not in raw or SPAN_ID.fullmatch(raw["parentSpanId"]), raw
        assert type(raw["kind"]) is int and 1 <= raw["kind"] <= 5, raw
        assert type(raw["flags"]) is int, raw
        self.raw = raw
        self.resource = resource
        self.name = raw["name"]
        self.trace_id, self.span_id = raw["traceId"], raw["spanId"]
        self.parent_id = raw.get("parentSpanId")
        self.kind = raw["kind"]
        self.flags = raw["flags"]
        self.start = nanoseconds(raw["startTimeUnixNano"])
        self.end = nanoseconds(raw["endTimeUnixNano"])
        assert self.start <= self.end, raw
        self.attributes = attributes(raw.get("attributes", []))
        self.events = [(event["name"], nanoseconds(event["timeUnixNano"]))
                       for event in raw.get("events", [])]
        self.links = raw.get("links", [])
        for link in self.links:
            assert TRACE_ID.fullmatch(link["traceId"]) and SPAN_ID.fullmatch(link["spanId"]), raw
        status = raw.get("status", {})
        assert set(status) <= {"code", "message"}, raw
        self.status = status.get("code", 0)
        assert type(self.status) is int, raw


class Collector:
    """Listens on a loopback port until close(). `answer` is what each request gets: a status, or a
    function of the handler that does as it likes."""

    def __init__(self, answer=200, port=0):
        self.answer = answer
        self.spans = []
        self.bodies = []  # (content type, bytes) of requests that were answered 2xx
        self.requests = []  # (time, headers) of all of them
        self.faults = []
        self.changed = threading.Condition()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                outer.take(self)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_):
                pass
        self.server = Server(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def take(self, handler):
        body = handler.rfile.read(int(handler.headers["Content-Length"]))
        with self.changed:
            self.requests.append((time.monotonic(), dict(handler.headers), handler.path))
        if callable(self.answer):
            self.answer(handler)
            return
        status, headers = self.answer if isinstance(self.answer, tuple) else (self.answer, {})
        reply = b"{}" if status == 200 else b""
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json",
                            "Content-Length": len(reply), **headers}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(reply)
        if 200 <= status < 300:
            self.keep(handler.headers["Content-Type"], body)

    def keep(self, kind, body):
        with self.changed:
            self.bodies.append((kind, body))
            try:
                if kind == "application/json":
                    self.spans += self.read(json.loads(body, object_pairs_hook=once))
            except (AssertionError, KeyError, TypeError, ValueError) as error:
                self.faults.append(f"{error!r} in {body[:2000]!r}")
            self.changed.notify_all()

    @staticmethod
    def read(request):
        assert set(request) == {"resourceSpans"}, set(request)
        for group in request["resourceSpans"]:
            assert set(group) == {"resource", "scopeSpans"}, set(group)
            assert set(group["resource"]) == {"attributes"}
            resource = attributes(group["resource"]["attributes"])
            for scope in group["scopeSpans"]:
                assert set(scope) == {"scope", "spans"}, set(scope)
                assert scope["scope"]["name"] == "culvert"
                for raw in scope["spans"]:
                    yield Span(raw, resource)

    def find(self, name=None, trace_id=None):
        with self.changed:
            return [s for s in self.spans if (name is None or s.name == name)
                    and (trace_id is None or s.trace_id == trace_id)]

    def wait(self, name=None, trace_id=None, count=1, timeout=15):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.find(name, trace_id)) >= count, timeout), \
                f"{len(self.find(name, trace_id))} of {count} spans {name} {trace_id}; there are " \
                f"{sorted({s.name for s in self.spans})}"
            assert not self.faults, self.faults
            return self.find(name, trace_id)

    def wait_requests(self, count, timeout=15):
        end = time.monotonic() + timeout
        while len(self.requests) < count:
            assert time.monotonic() < end, f"{len(self.requests)} of {count} requests"
            time.sleep(0.01)

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(5)


def close_at_once(handler):
    """What a collector that crashes does."""
    handler.close_connection = True
    with contextlib.suppress(OSError):
        handler.connection.shutdown(socket.SHUT_RDWR)
