# SPDX-License-Identifier: MIT
"""Incidents of relays at a real Alertmanager: opened, one for all relays, resolved; and what
happens to requests when it is killed."""
import towers
from culvert import wait_for
from receiver import Receiver
from test_incidents import QUICK


class Site:
    """A relay whose tunnel `home` works or does not, and an Alertmanager that it tells."""

    def __init__(self, world, tower):
        self.world = world
        self.is_ill = False
        self.service = world.service({"/x": self.answer})
        self.relay = world.relay(env={**QUICK, "CULVERT_INCIDENTS_ALERTMANAGER_URL": tower.url})
        world.http(self.relay, self.service.port)
        self.token = world.token("alice")

    def answer(self, conn, request):
        conn.read_body(request)
        if self.is_ill:
            conn.reset()
            return False
        conn.reply(200, b"x")
        return True

    def ask(self):
        return self.relay.fetch("/t/home/x", self.token).status

    def break_it(self):
        self.is_ill = True
        wait_for(lambda: self.ask() == 503, 20, "an open breaker")

    def mend_it(self):
        self.is_ill = False
        wait_for(lambda: self.ask() == 200, 20, "a good answer", interval=0.1)


def active(tower):
    return tower.get("/api/v2/alerts", active="true", silenced="false", inhibited="false")


def statuses(receiver):
    return [alert["status"] for post in receiver.posts for alert in post["body"]["alerts"]]


def test_a_breaker_is_one_incident_of_two_relays_from_beginning_to_end(world):
    receiver = Receiver(world)
    tower = towers.alertmanager(world, receiver)
    sites = [Site(world, tower), Site(world, tower)]
    for site in sites:
        site.break_it()
        site.relay.wait_log("incident_told", receiver="alertmanager", status="firing")
    alerts = active(tower)
    assert len(alerts) == 1
    assert alerts[0]["labels"]["alertname"] == "CulvertBreakerOpen"
    assert alerts[0]["labels"]["tunnel"] == "home" and alerts[0]["labels"]["service"] == "culvert"
    notes = alerts[0]["annotations"]
    assert notes["runbook_url"].endswith("/breaker-open.md") and "requests" in notes["metrics"]
    assert notes["last_errors"] and "home" in notes["affected_tunnels"]
    wait_for(lambda: "firing" in statuses(receiver), 20, "a notification")
    # One relay sees it no more: the incident stays, the other one repeats it.
    sites[0].mend_it()
    sites[0].relay.wait_log("incident_told", receiver="alertmanager", status="resolved")
    starts = active(tower)[0]["updatedAt"]
    wait_for(lambda: active(tower)[0]["updatedAt"] > starts, 10, "a repetition")
    assert "resolved" not in statuses(receiver)
    sites[1].mend_it()
    wait_for(lambda: "resolved" in statuses(receiver), 30, "its end")
    assert not active(tower)


def test_alertmanager_is_killed_under_load(world):
    """Requests do not notice; when it is back it hears of what still is, and of its end."""
    receiver = Receiver(world)
    tower = towers.alertmanager(world, receiver)
    site = Site(world, tower)
    other = world.service({"/y": lambda conn, request: conn.reply(200, b"y")})
    world.http(site.relay, other.port, name="other")
    token = world.token("alice")
    tower.kill()
    site.break_it()
    site.relay.wait_log("incident_untold", receiver="alertmanager")
    for _ in range(50):
        assert site.relay.fetch("/t/other/y", token).status == 200
    tower.start()
    wait_for(lambda: active(tower), 30, "the incident")
    site.mend_it()
    wait_for(lambda: "resolved" in statuses(receiver), 30, "its end")
