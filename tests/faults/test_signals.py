# SPDX-License-Identifier: MIT
"""Signals at any time: those that mean something do it once, the others do nothing."""
import contextlib
import errno
import random
import signal
import subprocess
import time

import pytest
from attack import IS_SANITIZED
from client import Client
from culvert import BIN, SANITIZER, free_port, wait_for
from scene import Scene

PAUSE_S = 2
HARMLESS = [signal.SIGPIPE, signal.SIGCHLD, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH,
            signal.SIGURG, signal.SIGXFSZ]


def ticks(conn, request):
    """A tick every 50 ms for 2 s."""
    conn.read_body(request)
    conn.start_chunked()
    for number in range(40):
        conn.chunk(b"%d\n" % number)
        time.sleep(0.05)
    conn.end_chunks()


TICKS = b"".join(b"%d\n" % number for number in range(40))


def begin(home):
    client = home.client(timeout=60)
    client.request("GET", "/t/home/ticks", home.token)
    return client, client.head()


@pytest.mark.parametrize("which", ["relay", "agent"])
@pytest.mark.parametrize("number", HARMLESS, ids=lambda number: number.name)
def test_signals_that_mean_no_end_end_nothing(home, which, number):
    process = getattr(home, which)
    for _ in range(5):
        process.signal(number)
        assert home.fetch("/x", method="POST", body=b"on").body == b"on"
    assert process.process.poll() is None


def test_the_relay_reads_again_at_sighup_and_serves_on(scene):
    home = scene(routes={"/ticks": ticks})
    client, head = begin(home)
    for _ in range(20):
        home.relay.signal(signal.SIGHUP)
        time.sleep(0.02)
    home.relay.wait_log("reload_keys")
    with client:
        client.body(head)
        assert head.body == TICKS and head.is_complete
    assert home.fetch("/x").status == 200


@pytest.mark.parametrize("which", ["relay", "agent"])
def test_a_stopped_process_goes_on_where_it_was(scene, which):
    """Shorter than every timer: no stream ends, not a byte is lost."""
    home = scene(routes={"/ticks": ticks})
    process = getattr(home, which)
    client, head = begin(home)
    with client:
        for _ in range(3):
            client.wait_bytes()
        process.signal(signal.SIGSTOP)
        wait_for(lambda: state(process) == "T", 10, "stopped process")
        late = Client(home.relay.port, timeout=60)
        late.request("POST", "/t/home/x", home.token, body=b"meanwhile")
        time.sleep(PAUSE_S)
        process.signal(signal.SIGCONT)
        with late:
            assert late.response().body == b"meanwhile"
        client.body(head)
    assert head.body == TICKS and head.is_complete
    assert len(home.agent.find("tunnel_published")) == 1, "the link was lost"


def state(process):
    with open(f"/proc/{process.pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0]


@pytest.mark.parametrize("which", ["relay", "agent"])
def test_many_ends_at_once_are_one(home, which):
    process = getattr(home, which)
    for _ in range(20):
        with contextlib.suppress(ProcessLookupError):
            process.signal(random.choice([signal.SIGTERM, signal.SIGINT]))
    process.stopped = True
    assert process.wait(10) in (0, -signal.SIGTERM, -signal.SIGINT)
    assert not any(SANITIZER.search(line) for line in process.lines)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1],
                         ids=lambda number: number.name)
@pytest.mark.parametrize("command", ["server", "http"])
def test_a_signal_at_any_time_of_the_start(world, command, number):
    """It ends by the signal or in order, without a word of a sanitizer, and in time."""
    scale = 10 if IS_SANITIZED else 1
    words = ["server", "--dev", "--listen", "127.0.0.1:0"] if command == "server" else \
        ["http", "1", "--server", f"ws://127.0.0.1:{free_port()}", "--name", "home"]
    env = world.env({"CULVERT_TOKEN": world.token("alice")})
    is_end = number in (signal.SIGTERM, signal.SIGINT)
    for delay in (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.03, 0.06):
        process = subprocess.Popen([str(BIN), *words], env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            time.sleep(delay * scale)
            process.send_signal(number)
            if not is_end:
                time.sleep(0.02)
                process.send_signal(signal.SIGTERM)
            _, log = process.communicate(timeout=30)
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()
        assert process.returncode in (0, -number, -signal.SIGTERM), (delay, process.returncode, log)
        assert not SANITIZER.search(log.decode())


def test_signals_while_data_flows(world, new_faults):
    """The log level goes up and down and files are read again while bytes go through in pieces."""
    faults = new_faults()
    home = Scene(world, relay_env=faults.env())
    for direction in ("socket_read", "socket_write"):
        faults.shorten(direction, 2000, chance=0.5)
        faults.fail(direction, errno.EINTR, chance=0.2)
    body = random.randbytes(1 << 20)
    with home.client(timeout=60) as client:
        client.request("POST", "/t/home/x", home.token, body=body)
        for number in range(60):
            home.relay.signal((signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)[number % 3])
            home.agent.signal((signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)[number % 3])
            time.sleep(0.005)
        assert client.response().body == body
