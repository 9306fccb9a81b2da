# SPDX-License-Identifier: MIT
"""A disk that is full or broken, a log that nobody reads, standard descriptors that are closed."""
import contextlib
import errno
import fcntl
import json
import os
import resource
import signal
import subprocess
import time

import pytest
from attack import IS_SANITIZED
from client import Client, fetch
from culvert import BIN, SANITIZER, free_port, wait_for
from scene import Scene

MIB = 1 << 20


class Bare:
    """A relay whose standard descriptors are of the test's own choice."""

    def __init__(self, world, env=None, **descriptors):
        self.world = world
        self.port = free_port()
        self.url = f"ws://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [str(BIN), "server", "--dev", "--listen", f"127.0.0.1:{self.port}", "--workers", "2"],
            env=world.env(env), start_new_session=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **descriptors})
        world.cleanups.append(self.kill)
        wait_for(self.is_ready, 20, "relay that is ready")

    def is_ready(self):
        assert self.process.poll() is None, f"the relay ended with {self.process.returncode}"
        with contextlib.suppress(OSError, AssertionError):
            return fetch(self.port, "/readyz", timeout=5).status == 200
        return False

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0

    def chatter(self, count):
        """Requests that each leave a line in the log."""
        for _ in range(count):
            assert fetch(self.port, "/t/home/x", "no.such.token").status == 401

    def rss(self):
        with open(f"/proc/{self.process.pid}/status") as lines:
            return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))


BROKEN_WRITES = [("file_write", errno.ENOSPC), ("file_write", errno.EDQUOT),
                 ("file_write", errno.EIO), ("sync", errno.EIO), ("link", errno.ENOSPC),
                 ("link", errno.EPERM)]


@pytest.mark.parametrize(("call", "error"), BROKEN_WRITES,
                         ids=[f"{call}-{errno.errorcode[error]}" for call, error in BROKEN_WRITES])
def test_a_first_start_on_a_full_disk_says_so_and_leaves_no_half_key(world, new_faults, call, error):
    faults = new_faults()
    faults.fail(call, error)
    done = world.run("server", "--dev", "--listen", "127.0.0.1:0", env=faults.env())
    assert done.returncode == 1
    assert os.strerror(error).lower() in done.stderr.lower(), done.stderr
    assert list(world.state.iterdir()) == [], "something half written is left"
    faults.clear()
    home = Scene(world)
    assert home.fetch("/x").status == 200


def test_short_writes_of_keys_are_completed(world, new_faults):
    faults = new_faults()
    faults.shorten("file_write", 5)
    faults.fail("file_write", errno.EINTR, chance=0.3)
    relay = world.relay(env=faults.env())
    assert faults.hits("file_write") > 20
    faults.clear()
    relay.stop()
    home = Scene(world)
    assert home.fetch("/x").status == 200


def test_half_a_line_in_known_hosts_is_taken_back(world, new_faults):
    """Else the agent would know a wrong key of this relay for ever."""
    faults = new_faults()
    service = world.service()
    relay = world.relay()
    faults.shorten("file_write", 40)
    agent = world.http(relay, service.port, env=faults.env(), ready=False)
    agent.expect_error("known_hosts|giving up|gave_up")
    agent.wait_log(text="known_hosts")
    known = world.state / "known_hosts"
    wait_for(lambda: faults.hits("file_write"), 10, "short write")
    faults.clear()
    agent.process.wait(10) if agent.process.poll() is not None else None
    assert all(line.count(" ") == 2 and line.endswith("\n")
               for line in known.read_text().splitlines(keepends=True))
    agent.kill()
    world.http(relay, service.port)
    assert relay.fetch("/t/home/x", world.token("alice")).status == 200


def test_a_log_on_a_full_disk_loses_lines_and_serves_on(world, new_faults):
    faults = new_faults()
    path = world.folder / "relay.log"
    with open(path, "wb") as log:
        relay = Bare(world, env=faults.env(), stderr=log)
    faults.fail("file_write", errno.ENOSPC)
    relay.chatter(20)
    size = path.stat().st_size
    assert faults.hits("file_write") > 5
    faults.clear()
    relay.chatter(5)
    relay.stop()
    added = path.read_bytes()[size:]
    assert b"log_dropped" in added
    for line in added.splitlines():
        json.loads(line)


def test_a_log_at_the_limit_of_file_size_does_not_end_the_relay(world):
    """RLIMIT_FSIZE sends SIGXFSZ, whose default is the end of the process."""
    path = world.folder / "relay.log"
    with open(path, "wb") as log:
        relay = Bare(world, stderr=log)
    size = path.stat().st_size + 50
    resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (size, -1))
    relay.chatter(10)
    assert relay.process.poll() is None
    assert path.stat().st_size <= size
    resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (-1, -1))
    relay.chatter(2)
    relay.stop()
    assert b"log_dropped" in path.read_bytes()


def test_a_log_pipe_without_a_reader_does_not_end_the_relay(world):
    reader, writer = os.pipe()
    relay = Bare(world, stderr=writer)
    os.close(writer)
    os.close(reader)
    relay.chatter(20)
    relay.stop()


def test_a_log_pipe_that_is_not_read_holds_nothing_up_in_flat_memory(world):
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    relay = Bare(world, stderr=writer, env={"LOG_LEVEL": "trace"})
    os.close(writer)
    os.set_blocking(reader, False)
    world.http(relay, world.service().port)
    token = world.token("alice")
    text = b""

    def requests(count):
        with Client(relay.port) as client:
            for _ in range(count):
                client.request("POST", "/t/home/x", token, body=b"on")
                assert client.response().body == b"on"

    def read():
        nonlocal text
        with contextlib.suppress(BlockingIOError):
            while data := os.read(reader, 65536):
                text += data
        return b"log_dropped" in text

    requests(200)
    before = relay.rss()
    requests(800)
    grown = relay.rss() - before
    assert grown < (100 if IS_SANITIZED else 8) * MIB, f"{grown} bytes more"
    wait_for(lambda: requests(1) or read(), 20, "word of what was dropped")
    relay.process.send_signal(signal.SIGTERM)
    wait_for(lambda: read() and relay.process.poll() is not None, 20, "its end")
    assert relay.process.wait() == 0
    os.close(reader)
    assert not SANITIZER.search(text.decode())


@pytest.mark.parametrize("which", ["0<&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_standard_descriptors_are_not_taken_by_sockets(world, which):
    port = free_port()
    process = subprocess.Popen(
        ["/bin/sh", "-c", f'exec "$0" "$@" {which}', str(BIN), "server", "--dev", "--listen",
         f"127.0.0.1:{port}"], env=world.env(), start_new_session=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        def is_up():
            assert process.poll() is None, process.returncode
            with contextlib.suppress(OSError):
                return fetch(port, "/readyz", timeout=5).status == 200
            return False
        wait_for(is_up, 20, "relay")
        for fd in range(3):
            assert os.readlink(f"/proc/{process.pid}/fd/{fd}") == "/dev/null"
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


@pytest.mark.parametrize("words", [["version"], ["token", "--dev", "--sub", "alice"], ["--help"],
                                   ["server", "--help"], ["config", "show", "--json"]],
                         ids=lambda words: " ".join(words))
def test_output_that_cannot_be_written_is_a_failure(world, words):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([str(BIN), *words], env=world.env(), stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=30)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr


@pytest.mark.parametrize("hours", [1, -1, 24 * 365 * 20, -24 * 365 * 60])
def test_a_stepped_clock_ends_no_stream(world, new_faults, hours):
    """Tokens are judged by the new time; what runs goes on by the monotonic clock."""
    faults = new_faults()

    def ticks(conn, request):
        conn.read_body(request)
        conn.start_chunked()
        for _ in range(40):
            conn.chunk(b"tick\n")
            time.sleep(0.02)
        conn.end_chunks()
    home = Scene(world, relay_env=faults.env(), routes={"/ticks": ticks})
    with home.client() as client:
        client.request("GET", "/t/home/ticks", home.token)
        head = client.head()
        faults.step_clock(hours * 3600)
        since = len(home.relay.records)
        status = home.fetch("/x").status
        assert status in (200, 401)
        client.body(head)
        assert head.is_complete and head.body == b"tick\n" * 40
    assert all(record["timestamp"] for record in home.relay.records[since:])
    faults.clear()
    assert home.fetch("/x").status == 200
    assert len(home.agent.find("tunnel_published")) == 1
