# SPDX-License-Identifier: MIT
"""HTTP clients of every kind as consumers: small and large bodies, answers that come piece by piece,
cancelling, and noticing that an answer was cut."""
import contextlib
import gzip
import hashlib
import re
import shutil
import subprocess
import threading

import pytest
from bulk import LONG_MIB, MIB, ROUTES, SHORT_MIB, digest_of, file_of
from culvert import World, wait_for
from interop_plugin import Stopwatch
from scene import Scene
from sshpeers import HERE
from test_tls import Secure, key  # noqa: F401 - a fixture


CURL = ["/usr/bin/curl", "-sS", "-N", "-q", "--noproxy", "*"]
CONSUMERS = ("curl", "curl-1.0", "fetch", "http.client", "urllib")
PIECES = 5


class Gates:
    """A streamed answer whose every piece waits until the test has seen the one before."""

    def __init__(self):
        self.seen = threading.Semaphore(0)
        self.gone = threading.Event()

    def stream(self, conn, request):
        conn.read_body(request)
        conn.start_chunked("text/event-stream")
        for number in range(PIECES):
            conn.chunk(b"data: %d\n\n" % number)
            assert self.seen.acquire(timeout=60)
        conn.end_chunks()

    def endless(self, conn, request):
        conn.read_body(request)
        conn.start_chunked()
        conn.chunk(b"the first of many")
        conn.wait_gone(60)
        self.gone.set()
        return False


def cut_chunks(conn, request):
    conn.start_chunked()
    conn.chunk(b"not the whole")
    return False


def cut_length(conn, request):
    conn.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nnot the whole")
    return False


def talk(conn, request):
    """Answers every chunk as it comes."""
    conn.start_chunked()
    while (size := int(conn.read_until(b"\r\n"), 16)):
        conn.chunk(b"answer to " + conn.read_exactly(size))
        conn.read_exactly(2)
    conn.read_exactly(2)
    conn.end_chunks()


def compressed(conn, request):
    assert "gzip" in request.get("Accept-Encoding")
    conn.reply(body=gzip.compress(b"once " * 1000), headers=[("Content-Encoding", "gzip")])


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    world = World(tmp_path_factory.mktemp("consumers"))
    try:
        yield Scene(world, routes={**ROUTES, "/cut_chunks": cut_chunks, "/cut_length": cut_length,
                                   "/talk": talk, "/compressed": compressed})
    finally:
        world.close()


@pytest.fixture
def gates(home):
    gates = Gates()
    home.service.on("/stream", gates.stream).on("/endless", gates.endless)
    return gates


def url(home, target):
    return f"{home.relay.http_url}/t/home{target}"


def environment(home):
    return home.world.env({"AUTHORIZATION": f"Bearer {home.token}"})


def authorized(home):
    """curl's option; from a file, so that no token stands on a command line."""
    path = home.world.folder / "authorization"
    if not path.exists():
        path.write_text(f"Authorization: Bearer {home.token}\n")
    return ["-H", f"@{path}"]


def command(home, name, mode, target, path=None):
    if name.startswith("curl"):
        words = [*CURL, *authorized(home), *(["--http1.0"] if name == "curl-1.0" else [])]
        # 1.0 knows no chunks, so the length must be known there.
        words += ["-X", "POST", "-T" if name == "curl" else "--data-binary",
                  path if name == "curl" else f"@{path}"] if mode == "post" else []
    elif name == "fetch":
        if not shutil.which("node"):
            pytest.skip("node is not installed")
        return ["node", HERE / "fetch.js", mode, url(home, target), *([path] if path else [])]
    else:
        return ["/usr/bin/python3", HERE / "consumer.py", name, mode, url(home, target),
                *([path] if path else [])]
    return [*words, url(home, target)]


def run(home, name, mode, target, path=None):
    return subprocess.run([str(word) for word in command(home, name, mode, target, path)],
                          env=environment(home), capture_output=True, timeout=120)


@contextlib.contextmanager
def running(home, name, target):
    process = subprocess.Popen([str(word) for word in command(home, name, "get", target)],
                               env=environment(home), stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("name", CONSUMERS)
def test_get_and_post(home, name, tmp_path):
    assert run(home, name, "get", "/x").returncode == 0
    body = bytes(range(256)) * 20
    (tmp_path / "body").write_bytes(body)
    done = run(home, name, "post", "/x", tmp_path / "body")
    assert done.returncode == 0, done.stderr
    assert done.stdout == body


@pytest.mark.parametrize("name", CONSUMERS)
def test_an_answer_arrives_piece_by_piece(home, gates, name):
    """The service sends no piece before the consumer has printed the one before."""
    with running(home, name, "/stream") as process:
        for number in range(PIECES):
            assert process.stdout.readline() == b"data: %d\n" % number
            assert process.stdout.readline() == b"\n"
            gates.seen.release()
        assert process.wait(30) == 0


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_consumer_that_leaves_is_noticed_by_the_service(home, gates, name):
    with running(home, name, "/endless") as process:
        assert process.stdout.read(17) == b"the first of many"
        process.kill()
        assert gates.gone.wait(30)


@pytest.mark.parametrize("target", ["/cut_chunks", "/cut_length"])
@pytest.mark.parametrize("name", CONSUMERS)
def test_a_cut_answer_is_no_whole_one(home, name, target):
    done = run(home, name, "get", target)
    assert done.returncode != 0, "taken for whole"
    # Some of them report the error in place of what there was.
    assert done.stdout in (b"not the whole", b"")


@pytest.mark.parametrize("mib", [SHORT_MIB, pytest.param(LONG_MIB, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", CONSUMERS)
def test_bulk_both_ways(home, row, tmp_path, name, mib):
    size = mib * MIB
    path = file_of(tmp_path / "body", size)
    with Stopwatch(mib) as up:
        done = run(home, name, "post", "/up", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode() == f"{size} {digest_of(size)}"
    with Stopwatch(mib) as down:
        done = run(home, name, "get", f"/down?{size}")
    assert done.returncode == 0, done.stderr
    assert hashlib.sha256(done.stdout).hexdigest() == digest_of(size)
    row.note(name, "consumer", "", mib, up.rate, down.rate)


# -- what only some of them do ---------------------------------------------------------------------

def curl(home, *words, input=None):
    return subprocess.run([*CURL, *authorized(home), *map(str, words)], env=environment(home),
                          input=input, capture_output=True, timeout=60)


def test_curl_keeps_its_connection(home):
    done = curl(home, "-w", "%{num_connects}", url(home, "/a"), url(home, "/b"), url(home, "/c"))
    assert done.stdout == b"100"


def test_curl_waits_for_100_continue(home, tmp_path):
    path = file_of(tmp_path / "body", 2 * MIB)
    done = curl(home, "-v", "-H", "Expect: 100-continue", "--expect100-timeout", 60, "-T", path,
                url(home, "/up"))
    assert b"< HTTP/1.1 100 Continue" in done.stderr
    assert done.stdout.decode() == f"{2 * MIB} {digest_of(2 * MIB)}"


def test_curl_sends_what_it_does_not_know_the_length_of(home):
    done = curl(home, "-T", "-", url(home, "/x"), input=b"from a pipe")
    assert done.stdout == b"from a pipe"
    assert home.service.requests[-1].get("Transfer-Encoding") == "chunked"


def test_curl_asks_for_compression_and_undoes_it(home):
    done = curl(home, "--compressed", url(home, "/compressed"))
    assert done.stdout == b"once " * 1000


def test_curl_resumes_nothing_that_was_whole(home):
    """HEAD has the length and no body."""
    home.service.on("/head", lambda conn, request: conn.send(
        b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n"))
    done = curl(home, "-I", url(home, "/head"))
    assert re.search(rb"(?i)content-length: 12345\r\n", done.stdout) and done.returncode == 0


def test_fetch_streams_both_ways_at_once(home):
    if not shutil.which("node"):
        pytest.skip("node is not installed")
    done = subprocess.run(["node", HERE / "fetch.js", "talk", url(home, "/talk"), str(PIECES)],
                          env=environment(home), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "".join(f"answer to question {n}\n" for n in range(PIECES))


def test_wrk_sees_no_error(home, row):
    done = subprocess.run(["/usr/bin/wrk", "-t1", "-c8", "-d1s", "--timeout", "30s", "-H",
                           f"Authorization: Bearer {home.token}", url(home, "/x")],
                          capture_output=True, text=True, timeout=60)
    count = int(re.search(r"(\d+) requests in", done.stdout)[1])
    assert count > 0 and "Socket errors" not in done.stdout, done.stdout
    assert "Non-2xx" not in done.stdout, done.stdout
    row.note("wrk", "consumer", f"{count} requests/s")


def test_h2load_in_http_1_mode_sees_no_error(home, row):
    done = subprocess.run(["/usr/bin/h2load", "--h1", "-n", "400", "-c", "8", "-H",
                           f"Authorization: Bearer {home.token}", url(home, "/x")],
                          capture_output=True, text=True, timeout=60)
    assert "400 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
    row.note("h2load", "consumer", "400 requests")


@pytest.mark.parametrize("ending", [[], ["-no_ticket"], ["-ciphersuites",
                                                         "TLS_CHACHA20_POLY1305_SHA256"]])
def test_openssl_s_client(world, authority, key, ending):  # noqa: F811
    secure = Secure(world, authority, key)
    gates = Gates()
    secure.service.on("/stream", gates.stream)
    secure.agent()
    process = subprocess.Popen(
        ["openssl", "s_client", "-quiet", "-verify_return_error", "-CAfile", authority.ca,
         "-connect", f"127.0.0.1:{secure.relay.port}", "-servername", "localhost", *ending],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        def say(head, body=b""):
            process.stdin.write(f"{head} HTTP/1.1\r\nHost: localhost\r\nContent-Length: "
                                f"{len(body)}\r\nAuthorization: Bearer {secure.token}\r\n\r\n"
                                .encode() + body)
            process.stdin.flush()

        def head():
            lines = iter(process.stdout.readline, b"\r\n")
            return b"".join(lines).lower()

        say("POST /t/home/x", b"hello")
        assert b"content-length: 5\r\n" in head()
        assert process.stdout.read(5) == b"hello"
        say("GET /t/home/stream")
        assert b"transfer-encoding: chunked\r\n" in head()
        for number in range(PIECES):
            piece = b"data: %d\n\n" % number
            assert process.stdout.readline() == b"%x\r\n" % len(piece)
            assert process.stdout.read(len(piece) + 2) == piece + b"\r\n"
            gates.seen.release()
        assert process.stdout.read(5) == b"0\r\n\r\n"
    finally:
        process.kill()
        process.communicate()
    wait_for(lambda: secure.fetch().status == 200, 10, "answer afterwards")
