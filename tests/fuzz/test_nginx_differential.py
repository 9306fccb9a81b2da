# SPDX-License-Identifier: MIT
"""Random requests, read by our parser, by nginx, and by nginx behind a relay.

Each input goes three ways, a sound request behind it on the same connection:
    ours     → http_echo
    theirs   → nginx → http_echo
    through  → relay → agent → nginx → http_echo
What http_echo tells of the requests that reached it is how the one in front read them. Behind the
relay nginx must read what we read: as many requests, the same methods, targets and bodies; and must
refuse nothing but what it refuses by a policy of its own. Where nginx refuses by itself what we
accept, or reads it in another way, the difference is printed: it is for people to judge.

`pytest tests/fuzz` runs a thousand inputs from a fixed seed, `-m long` 200,000 from a new one;
CULVERT_FUZZ_SEED and CULVERT_FUZZ_COUNT choose others.
"""
import concurrent.futures
import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from client import Broken, Client
from culvert import PEERS, free_port, wait_for

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance" / "http"))
from suite_cases import BAD, GOOD  # noqa: E402

PREFIX = "/t/home"
WORKERS = 8
# For what may still be waited for. Sound requests are answered much sooner; what looks wrong is
# looked at again with patience, since the machine may be busy.
ANSWER_S, PATIENCE_S = 0.3, 5
CANARY = "GET {p}/canary HTTP/1.1\r\nHost: a\r\n{a}Connection: close\r\n\r\n"
SEEDS = [text for row in BAD + GOOD if len(text := row[2]) < 600]
SOUND = [text for row in GOOD if len(text := row[2]) < 600]

FIELDS = ["Host: a\r\n", "Content-Length: 3\r\n", "Content-Length: 0\r\n", "Connection: close\r\n",
          "Transfer-Encoding: chunked\r\n", "Connection: keep-alive, X-A\r\n", "X-A: b\r\n",
          "X_A: b\r\n", "Expect: 100-continue\r\n", "TE: trailers\r\n", "Via: 1.1 x\r\n",
          "Upgrade: h2c\r\n", "Max-Forwards: 1\r\n", "X-Empty:\r\n", "Range: bytes=0-1\r\n"]
ENDS = ["\r\n", "\n", "\r", "\r\r\n", "\r\n ", "\r\n\t", " \r\n", "\r\n\r\n", ""]
NOISE = [" ", "\t", "\v", "\f", "\x7f", "\x85", "\xa0", "\xff", ",", ";", '"', "#", "%00", "%2e",
         "\x00", "\x01", "\r", "\n", ":", "/", "?", "..", "//", "\\", "0", "1", "a", "_", "+", "-"]
VALUES = ["chunked", "identity", "gzip", ",chunked", "0", "3", "03", "+3", "0x3", "3,3", "close",
          "a", "a:80", "b", "[::1]", "x@a", "", " \t ", "caf\xe9", "keep-alive"]
CHUNKS = ["3\r\nabc\r\n", "0\r\n\r\n", "1;a=b\r\nx\r\n", '1;a="b"\r\nx\r\n', "0x1\r\nx\r\n",
          "1 \r\nx\r\n", "A\r\n0123456789\r\n", "0\r\nX-T: 1\r\n\r\n", "+1\r\nx\r\n", "\r\n",
          "1\nx\n", "01\r\nx\r\n", "7fffffffffffffff\r\n"]
LINES = ["GET {p}/a HTTP/1.1\r\n", "POST {p}/b?c HTTP/1.1\r\n", "PUT {p}/%2e/x HTTP/1.1\r\n",
         "DELETE {p}/a;b=c HTTP/1.0\r\n", "GET http://a{p}/x HTTP/1.1\r\n", "get {p}/ HTTP/1.1\r\n",
         "OPTIONS {p}/ HTTP/1.1\r\n", "PATCH {p}/a//b HTTP/1.1\r\n", "X-Y_Z {p}/ HTTP/1.1\r\n"]


def mutate(rng, text):
    for _ in range(rng.choice([1, 1, 1, 2, 2, 3])):
        lines = re.findall(r"[^\n]*\n|[^\n]+", text) or [""]
        at = rng.randrange(len(lines))
        line = lines[at]
        kind = rng.randrange(10)
        if kind == 0:
            lines.insert(at, rng.choice(FIELDS))
        elif kind == 1:
            del lines[at]
        elif kind == 2:
            lines.insert(rng.randrange(len(lines)), line)
        elif kind == 3:
            lines[at] = line.rstrip("\r\n") + rng.choice(ENDS)
        elif kind == 4 and ":" in line:
            lines[at] = line.partition(":")[0] + ": " + rng.choice(VALUES) + "\r\n"
        elif kind == 5:
            spot = rng.randint(0, len(line))
            lines[at] = line[:spot] + rng.choice(NOISE) + line[spot:]
        elif kind == 6:
            lines.insert(rng.randint(at, len(lines)), rng.choice(CHUNKS))
        elif kind == 7:
            lines[0] = rng.choice(LINES)
        elif kind == 8:
            head, mark, body = text.partition("\r\n\r\n")
            fit = re.sub(r"(?i)(Content-Length:) *\d*", rf"\1 {len(body)}", head, count=1)
            lines = [fit + mark + body]
        else:
            lines.append(rng.choice(SEEDS))
        text = "".join(lines)
    return text.replace("HEAD ", "POST ")


class Way:
    """Where a text is sent, and what is heard of it. The bytes are the same for all ways."""

    def __init__(self, port, auth):
        self.port, self.auth = port, auth

    def bytes(self, text):
        return text.replace("{p}", PREFIX).replace("{a}", self.auth).encode("latin-1")

    def read(self, text, timeout):
        """[(status, method, target, body, hop)] of the answers; the last may be "silence"."""
        heard = []
        with Client(self.port, timeout=timeout) as client:
            with contextlib.suppress(OSError):
                client.send(self.bytes(text) + self.bytes(CANARY))
            try:
                while response := client.response():
                    is_ours = response.get("Content-Type") == "application/problem+json"
                    heard.append((response.status, response.get("X-Echo-Method"),
                                  response.get("X-Echo-Target"), response.body,
                                  response.json()["hop"] if is_ours else None))
            except (TimeoutError, socket.timeout):
                heard.append(("silence",))
            except Broken as error:
                heard.append(("broken", str(error)))
        return heard



def in_origin_form(target):
    return re.sub(r"(?i)^https?://[^/?]*", "", target)


def served(heard):
    """The requests that reached http_echo: method, target, body."""
    return [(answer[1], in_origin_form(answer[2]), answer[3])
            for answer in heard if len(answer) == 5 and answer[1]]


def is_nginx_policy(answer, request):
    """nginx refuses these by itself, whoever asks."""
    method, target, _ = request
    path = target.partition("?")[0]
    return answer[0] in (400, 405) and answer[4] is None and (
        not re.fullmatch(r"[A-Z_-]+", method) or method == "TRACE" or "%00" in path
        or re.search(r"%(?![0-9A-Fa-f]{2})", path)  # we pass on what is no escape
        or ".." in path.replace("%2e", ".").replace("%2E", "."))


def below_prefix(target):
    """What the service is asked for: the path is never empty (RFC 9112, section 3.2.1)."""
    rest = target.removeprefix(PREFIX)
    return rest if rest.startswith("/") else "/" + rest


@pytest.fixture
def ways(world):
    folder, port = world.folder, free_port()
    echo = subprocess.Popen([PEERS / "http_echo", "--listen", "127.0.0.1:0"],
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    world.cleanups.append(lambda: (echo.terminate(), echo.wait(10)))
    echo_port = int(echo.stdout.readline().rpartition(":")[2])
    config = world.write("nginx.conf", f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.err crit;
events {{ worker_connections 512; }}
http {{
    access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;
    fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://127.0.0.1:{echo_port}; proxy_http_version 1.1; }}
    }}
}}
""")
    world.spawn("/usr/sbin/nginx", "-e", folder / "nginx.err", "-c", config)

    def is_open():
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False
    wait_for(is_open, what="nginx")
    relay = world.relay(env={"LOG_LEVEL": "info"})
    world.http(relay, port)
    auth = f"Authorization: Bearer {world.token()}\r\n"
    return Way(echo_port, auth), Way(port, auth), Way(relay.port, auth)


def difference(text, wanted, heard):
    """How nginx by itself differs from us: a known way of nginx, or the whole story."""
    got = served(heard)
    if got == wanted:
        return None
    if len(wanted) < len(got):
        return "nginx accepts what we refuse"
    if len(wanted) == len(got):
        return f"read differently: ours {wanted}, nginx {got}"
    if not re.fullmatch(r"[A-Z_-]+", wanted[len(got)][0]):
        return "nginx wants methods of capitals"
    if re.search(r"(?i)host:[ \t]*\t", text):
        return "nginx wants no tab before Host's value"
    if re.search(r"(?i)connection:[^\r\n]*(\wclose|close\w|[^\w ,:]close|close[^\w ,\r\n])", text):
        return "nginx finds close in other words"
    if re.search(r"(?is)\n(expect|upgrade|te|range|via):.*\n\1:", text) or \
            any(head.count("{a}") > 1 for head in text.split("\r\n\r\n")):
        return "nginx wants a field once"
    return f"we accept, nginx refuses: ours {wanted}, nginx {got} {[a[0] for a in heard]}"


def compare(ways, text, timeout=ANSWER_S):
    """(what is wrong or None, how nginx by itself differs or None, how many came through)"""
    ours, theirs, through = (way.read(text, timeout) for way in ways)
    wanted = served(ours)
    differs = difference(text, wanted, theirs)
    wanted = [(method, below_prefix(target), body) for method, target, body in wanted]
    wrong = None
    for at, answer in enumerate(through):
        if len(answer) != 5:
            break  # waited for, or broken off
        if answer[4] in ("relay", "consumer") or answer[0] == 308:
            break  # ours to refuse or to send elsewhere: the rest is not for this tunnel
        if at >= len(wanted):
            if answer[0] in (400, 405, 413) and not answer[1]:
                break  # nginx does not wait for the end of what it refuses
            wrong = f"the service got more than we read: {answer}"
            break
        if not answer[1] or served([answer])[0] != wanted[at]:
            if is_nginx_policy(answer, wanted[at]):
                break
            wrong = f"nginx behind us reads {answer}, we {wanted[at]}"
            break
    if not wrong and len(served(through)) > len(wanted):
        wrong = "more requests came through than we read"
    if wrong and timeout < PATIENCE_S:
        return compare(ways, text, PATIENCE_S)
    return wrong, differs, len(served(through))


def run(ways, seed, count):
    rng = random.Random(seed)
    inputs = SEEDS + [mutate(rng, rng.choice(SOUND)) for _ in range(count)]
    # Without the prefix or with two tokens nothing is forwarded.
    inputs = [t for t in inputs if "{p}" in t and "{a}" in t]
    wrongs, differences, passed = [], {}, 0
    with concurrent.futures.ThreadPoolExecutor(WORKERS) as pool:
        for text, (wrong, differs, came) in zip(inputs,
                                                pool.map(lambda t: compare(ways, t), inputs)):
            passed += came
            if wrong:
                wrongs.append(f"{text!r}: {wrong}")
            if differs:
                differences.setdefault(differs, []).append(text)
    print(f"{len(inputs)} inputs from seed {seed}, {passed} requests came through; nginx by itself "
          f"differs in {len(differences)} ways:")
    for differs, texts in sorted(differences.items()):
        print(f"    {len(texts)} × {differs}, such as {texts[0]!r}"[:700])
    assert passed > len(inputs) / 4, "hardly anything was compared"
    assert not wrongs, f"seed {seed}\n" + "\n".join(wrongs[:10])


def test_nginx_reads_what_we_forward_as_we_do(ways):
    run(ways, int(os.environ.get("CULVERT_FUZZ_SEED", "1")),
        int(os.environ.get("CULVERT_FUZZ_COUNT", "1000")))


@pytest.mark.long
def test_nginx_reads_what_we_forward_as_we_do_at_length(ways):
    run(ways, int(os.environ.get("CULVERT_FUZZ_SEED", time.time_ns())),
        int(os.environ.get("CULVERT_FUZZ_COUNT", "200000")))
