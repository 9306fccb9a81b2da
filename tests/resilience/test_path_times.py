# SPDX-License-Identifier: MIT
"""How long it takes to find that a path is dead, to come back over one that lives again, and to end
honestly when none comes back."""
import random
import threading
import time

import pytest
from client import Client
from culvert import INSTRUMENTS, wait_for
from figures_plugin import p95
from lab import in_parallel
from streams import Load

LABS = 5


# ---- coming back --------------------------------------------------------------------------------

def without_path(lab, chance):
    """What there is is reset, then nothing is forwarded."""
    before = len(lab.losses())
    with lab.network.rules(*lab.network.reset_rules(lab.port), "drop"):
        lab.wait_lost(before)
        time.sleep(chance.uniform(0.2, 3))
    return time.monotonic()


def refused(lab, chance):
    """Something on the way refuses all connections."""
    before = len(lab.losses())
    with lab.network.rules("meta l4proto tcp reject with tcp reset"):
        lab.wait_lost(before)
        time.sleep(chance.uniform(0.2, 2))
    return time.monotonic()


def without_address(lab, chance):
    """The machine has no network for a while."""
    before = len(lab.losses())
    for name in lab.network.WAYS:
        lab.network.take_address(name)
    lab.wait_lost(before)
    time.sleep(chance.uniform(0.2, 2))
    lab.network.give_address("wan0")
    back = time.monotonic()
    lab.network.give_address("wan1")
    return back


def measure_return(new_lab, trials, seed, times):
    chance = random.Random(seed)
    kinds = [without_path, refused, without_address]
    with new_lab() as lab:
        load = Load(lab, events=2)
        for n in range(trials):
            before = len(lab.resumes())
            kind = kinds[n % len(kinds)]
            back = kind(lab, chance)
            times.append((lab.wait_resumed(before) - back, kind.__name__))
            time.sleep(chance.uniform(0, 0.3))
        load.finish()


def measure_returns(new_lab, figure, trials):
    seed = random.randrange(1 << 32)
    times = []
    in_parallel([(f"lab {n}, seed {seed}",
                  lambda n=n: measure_return(new_lab, trials // LABS, seed + n, times))
                 for n in range(LABS)])
    values = [value for value, _ in times]
    worst = max(times)
    figure(f"back after the network: {len(values)} trials, median "
           f"{sorted(values)[len(values) // 2]:.2f} s, p95 {p95(values):.2f} s, worst "
           f"{worst[0]:.2f} s ({worst[1]})")
    return values


@pytest.mark.timing
def test_agents_are_back_within_a_second(new_lab, figure):
    assert p95(measure_returns(new_lab, figure, 15)) < 1


@pytest.mark.long
@pytest.mark.timing
def test_agents_are_back_within_a_second_a_hundred_times(new_lab, figure):
    assert p95(measure_returns(new_lab, figure, 100)) < 1


# ---- finding loss -------------------------------------------------------------------------------

def measure_detection(new_lab, ways, seed, times):
    chance = random.Random(seed)
    with new_lab() as lab:
        load = Load(lab, events=2)
        for way in ways:
            lost, detached = len(lab.losses()), len(lab.relay.find("link_detached"))
            back = len(lab.resumes())
            time.sleep(chance.uniform(0.1, 3))
            dead = time.monotonic()
            with lab.network.hole(way):
                times.append((lab.wait_lost(lost) - dead, f"agent, {way}"))
                if way == "both":
                    wait_for(lambda: len(lab.relay.find("link_detached")) > detached, 30,
                             "a loss at the relay")
                    found = lab.relay.find("link_detached")[detached]["_at"]
                    times.append((found - dead, "relay, both"))
            lab.wait_resumed(back)
        load.finish()


def measure_detections(new_lab, figure, ways):
    seed = random.randrange(1 << 32)
    times = []
    in_parallel([(f"lab {n}, seed {seed}",
                  lambda n=n, mine=mine: measure_detection(new_lab, mine, seed + n, times))
                 for n, mine in enumerate(ways)])
    times.sort()
    worst = ", ".join(f"{value:.2f} s ({which})" for value, which in reversed(times[-3:]))
    figure(f"a dead path found: {len(times)} times, median {times[len(times) // 2][0]:.2f} s, "
           f"worst {worst}")
    return times[-1][0]


@pytest.mark.timing
def test_a_dead_path_is_found_within_ten_seconds(new_lab, figure):
    assert measure_detections(new_lab, figure, [["both"], ["both"], ["up"], ["down"]]) < 10


@pytest.mark.long
@pytest.mark.timing
def test_a_dead_path_is_found_within_ten_seconds_thirty_times(new_lab, figure):
    assert measure_detections(new_lab, figure, [["both", "up", "down"] * 2] * LABS) < 10


# ---- an outage that is too long -----------------------------------------------------------------

WINDOW_S = 3


def hang(conn, request):
    conn.read_body(request)
    conn.start_chunked("text/event-stream")
    conn.chunk(b"data: 1\n\n")
    conn.wait_gone(60)
    return False


def silent(conn, request):
    conn.read_body(request)
    conn.wait_gone(60)
    return False


class Asked:
    """A request that is going to be cut; `at` is when it ended."""

    def __init__(self, lab, method, target, began=None):
        self.response, self.at, self.fault = None, None, None
        self.method, self.target = method, target
        self.thread = threading.Thread(target=self._run, args=(lab, began), daemon=True)
        self.thread.start()

    def _run(self, lab, began):
        try:
            with Client(lab.port, timeout=60, tls=lab.relay.tls,
                        server_name=lab.relay.server_name) as client:
                client.request(self.method, self.target, lab.token)
                self.response = client.head()
                if began:
                    began.release()
                client.body(self.response, self.method)
        except Exception as error:  # noqa: BLE001 - told by the test
            self.fault = repr(error)
        self.at = time.monotonic()


def resting(process):
    return process.descriptors(), process.rss_kib()


def test_an_outage_longer_than_the_window_ends_all_and_leaves_nothing(new_lab, figure):
    window = {"CULVERT_LINK_RESUME_WINDOW": f"{WINDOW_S}s"}
    with new_lab(relay_env=window, agent_env=window) as lab:
        lab.service.on("/hang", hang).on("/silent", silent)
        lab.service.on("/quick", lambda conn, request: conn.reply(body=b"x") or True)
        ends, before = [], None
        for round_ in range(3):
            assert lab.fetch().status == 200
            served = len(lab.service.requests)
            began = threading.Semaphore(0)
            asked = [Asked(lab, "GET", "/t/home/hang", began) for _ in range(20)]
            asked += [Asked(lab, "POST", "/t/home/silent") for _ in range(10)]
            lab.service.wait_requests(served + 30)
            for _ in range(20):
                assert began.acquire(timeout=10)
            detached = len(lab.relay.find("link_detached"))
            back = len(lab.agent.find("link_up"))
            with lab.network.rules(*lab.network.reset_rules(lab.port), "drop"):
                wait_for(lambda: len(lab.relay.find("link_detached")) > detached, 20, "a loss")
                lost = lab.relay.find("link_detached")[detached]["_at"]
                asked += [Asked(lab, "GET", "/t/home/quick") for _ in range(5)]
                for each in asked:
                    each.thread.join(WINDOW_S + 30)
                # The service's connections end with the agent's own window.
                wait_for(lambda: all(c.closed_at for c in lab.service.connections), 20,
                         "the ends of the service's connections")
                health = lab.fetch("/health", host="localhost").json()
                assert health["tunnels"] == 0
            wait_for(lambda: len(lab.agent.find("link_up")) > back, 30, "a fresh link")
            check_ends(asked)
            ends.append(max(each.at for each in asked) - lost)
            if round_ == 0:  # what the first round has made lasts: caches, arenas
                wait_for(lambda: lab.fetch().status == 200, 20, "an answer")
                before = [resting(process) for process in (lab.relay, lab.agent)]
        wait_for(lambda: lab.fetch().status == 200, 20, "an answer")
        check_rest(lab, before)
        figure(f"an outage longer than the window of {WINDOW_S} s: 35 requests ended at the latest "
               f"{max(ends):.2f} s after the loss, with codes; nothing left")
        assert max(ends) < WINDOW_S + 5


def check_ends(asked):
    for each in asked:
        assert each.response is not None, (each.target, each.fault)
        if each.target.endswith("/hang"):
            assert not each.response.is_complete and b"TUNNEL_028" in each.response.body, each.fault
        elif each.target.endswith("/silent"):
            assert each.response.status == 502 and each.response.json()["code"] == "TUNNEL_028"
        else:
            assert each.response.status == 503 and each.response.json()["code"] == "TUNNEL_012"


def check_rest(lab, before):
    for process, (descriptors, rss_kib) in zip((lab.relay, lab.agent), before):
        wait_for(lambda p=process, d=descriptors: p.descriptors() <= d, 10,
                 f"descriptors given back by {process.name}")
        if not INSTRUMENTS:  # sanitizers keep what was freed for a while
            assert process.rss_kib() < rss_kib + 1024, f"{process.name} grows"
