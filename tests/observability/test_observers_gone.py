# SPDX-License-Identifier: MIT
"""Whatever watches the relay may die under load: the trace collector, Alertmanager, a webhook, the
disk with history, audit log and incidents, Prometheus itself. No request notices."""
import resource
import socket
import threading
import time

import culvert
import pytest
import sse
import towers
from collector import Collector
from culvert import wait_for
from receiver import Receiver
from test_incidents import QUICK

BEFORE_S, GONE_S = 1, 3


class Askers:
    """Three who ask without a pause; what went wrong, and how long each answer took."""

    def __init__(self, world, relay, token):
        self.relay, self.token = relay, token
        self.stopped = threading.Event()
        self.answers, self.faults = [], []
        self.threads = [threading.Thread(target=self.ask) for _ in range(3)]
        for thread in self.threads:
            thread.start()
        world.cleanups.append(self.stop)

    def ask(self):
        while not self.stopped.is_set():
            start = time.monotonic()
            try:
                answer = self.relay.fetch("/t/home/x", self.token)
                if answer.status != 200 or answer.body != b"well":
                    self.faults.append(answer)
            except Exception as error:  # noqa: BLE001 - told by the test
                self.faults.append(error)
                return
            self.answers.append(time.monotonic() - start)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join(30)


@pytest.fixture
def prober(world):
    """Somebody who scrapes and never reads."""
    held = []
    yield lambda port: held.append(hang(port))
    for sock in held:
        sock.close()


def hang(port):
    sock = socket.create_connection(("127.0.0.1", port), 5)
    sock.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    return sock


def test_no_request_notices_that_nobody_watches(world, prober):
    collector, webhook = Collector(), Receiver(world)
    alertmanager = towers.alertmanager(world, Receiver(world))
    metrics_port = culvert.free_port()
    relay = world.relay("--metrics-listen", f"127.0.0.1:{metrics_port}", env={
        **QUICK, "TRACING_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "50",
        "CULVERT_AUDIT_EVENTS": "link,auth,forward,limit,admin", "CULVERT_AUDIT_FSYNC": "always",
        "CULVERT_INCIDENTS_ALERTMANAGER_URL": alertmanager.url,
        "CULVERT_INCIDENTS_WEBHOOK_URL": webhook.url})
    service = world.service({"/x": lambda conn, request: conn.reply(200, b"well")})
    events = sse.serve(service, BEFORE_S + GONE_S + 1)
    ill = world.service({"/x": lambda conn, request: conn.reset()})
    world.http(relay, service.port)
    world.http(relay, ill.port, name="ill")
    token = world.token("alice")
    askers = Askers(world, relay, token)
    stream = {}
    streamer = threading.Thread(target=lambda: stream.update(
        answer=relay.fetch("/t/home/events", token, timeout=60)))
    streamer.start()
    time.sleep(BEFORE_S)  # a while with everything there, to compare with
    before = len(askers.answers)
    assert before and collector.spans

    # All of it at once.
    collector.close()
    alertmanager.kill()
    webhook.mood = "hang"
    limits = resource.prlimit(relay.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, (0, limits[1]))  # no file takes a byte
    prober(metrics_port)
    wait_for(lambda: relay.fetch("/t/ill/x", token).status == 503, 20, "an open breaker")
    relay.wait_log("incident_untold", receiver="alertmanager")
    relay.wait_log("incidents_unsaved")
    time.sleep(GONE_S)
    during = len(askers.answers) - before
    streamer.join(60)
    assert not askers.faults
    sse.check(stream["answer"], events)
    # Whatever the machine is busy with meanwhile: about as many as before, and nobody waited for a
    # time-out.
    assert during > before / 3
    assert max(askers.answers) < 4
    relay.expect_error("audit|history")

    # What there is to tell is told once they are back.
    resource.prlimit(relay.pid, resource.RLIMIT_FSIZE, limits)
    webhook.mood = 200
    webhook.released.set()
    alertmanager.start()
    wait_for(lambda: alertmanager.get("/api/v2/alerts"), 30, "the incident")
    wait_for(lambda: webhook.bodies(status="firing"), 40, "the incident at the webhook")
    path = world.state / f"incidents-127.0.0.1:{relay.port}.json"
    wait_for(lambda: path.exists() and "breaker" in path.read_text(), 30, "the file")
    assert not askers.faults
