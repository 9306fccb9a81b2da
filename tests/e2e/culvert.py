# SPDX-License-Identifier: MIT
"""Runs the real program: relay, agents, one-shot commands; reads their logs; ends them cleanly.

Everything that a World starts, it stops with SIGTERM, in reverse order, and then insists on exit
code 0, on no process left in its session, on a stderr of JSON lines only, on no log record of level
`error` that the test did not announce, on no sanitizer report and on no token in any log.
"""
import contextlib
import fcntl
import json
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from client import fetch

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("CULVERT_BUILD") or ROOT / "build")
BIN = Path(os.environ.get("CULVERT_BIN") or BUILD / "culvert")
# What the program was built with that makes it slower: asan, tsan, coverage.
INSTRUMENTS = {name for name, mark in [("asan", b"__asan_init"), ("tsan", b"__tsan_init"),
                                       ("coverage", b".gcda")]
               if BIN.exists() and mark in BIN.read_bytes()}
PEERS = BUILD / "tests" / "peers"

READY_S = 20
STOP_S = 30
# The events that say that something is up.
AGENT_READY = "tunnel_published"
FORWARD_READY = "forward_listening"

SANITIZER = re.compile(r"(ERROR|WARNING): \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")
PROXY_VARIABLES = {"http_proxy", "https_proxy", "all_proxy", "no_proxy"}
_port_locks = []


def wait_for(condition, timeout=10, what="condition", interval=0.01):
    """Waits until condition() is true and returns its value."""
    end = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {timeout} s")
        time.sleep(interval)


def raise_descriptor_limit(count):
    """This process is going to hold that many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        assert hard == resource.RLIM_INFINITY or hard >= count, f"only {hard} descriptors"
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def free_port():
    """A loopback port that no other test process gets while this one lives.

    The relay's listeners share ports (SO_REUSEPORT), so two relays on one port would quietly split
    each other's connections: a lock file per port keeps parallel runs apart. Below the range that
    the kernel takes ports of outgoing connections from.
    """
    folder = Path(tempfile.gettempdir()) / "culvert-test-ports"
    folder.mkdir(mode=0o777, exist_ok=True)
    start = 20000 + (os.getpid() * 101) % 10000
    for offset in range(10000):
        port = 20000 + (start - 20000 + offset) % 10000
        lock = open(folder / str(port), "a")  # noqa: SIM115 - held until the process ends
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                lock.close()
                continue
        _port_locks.append(lock)
        return port
    raise AssertionError("no free port")


class Process:
    """One running culvert with its log."""

    def __init__(self, world, name, args, env, stdin=subprocess.DEVNULL, wrapper=None):
        self.world = world
        self.name = name
        self.args = [str(arg) for arg in args]
        self.expected_errors = []
        self.lines = []
        self.records = []
        self.strangers = []  # stderr lines that are no JSON objects
        self.stopped = False
        self.level = env["LOG_LEVEL"]
        self.changed = threading.Condition()
        self.process = subprocess.Popen(
            [*map(str, wrapper or [BIN]), *self.args], env=env, stdin=stdin, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True)
        self.stdout = bytearray()
        self.readers = [threading.Thread(target=self._read_log, daemon=True),
                        threading.Thread(target=self._read_stdout, daemon=True)]
        for reader in self.readers:
            reader.start()

    @property
    def pid(self):
        return self.process.pid

    def _read_log(self):
        for raw in self.process.stderr:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            record = None
            with contextlib.suppress(ValueError):
                record = json.loads(line)
            with self.changed:
                self.lines.append(line)
                if isinstance(record, dict):
                    record["_at"] = time.monotonic()
                    self.records.append(record)
                else:
                    self.strangers.append(line)
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def _read_stdout(self):
        while data := self.process.stdout.read1(65536):
            with self.changed:
                self.stdout += data
                self.changed.notify_all()

    def find(self, event=None, text=None, since=0, **fields):
        """Log records by event, by a text anywhere in them, by fields."""
        with self.changed:
            return [r for r in self.records[since:]
                    if (event is None or r.get("event") == event)
                    and (text is None or text.lower() in json.dumps(r).lower())
                    and all(r.get(k) == v for k, v in fields.items())]

    def wait_log(self, event=None, timeout=READY_S, text=None, since=0, **fields):
        def look():
            found = self.find(event, text, since, **fields)
            if found:
                return found[0]
            if self.process.poll() is not None and not any(r.is_alive() for r in self.readers):
                if self.find(event, text, since, **fields):
                    return self.find(event, text, since, **fields)[0]
                raise AssertionError(f"{self.name} ended with {self.process.returncode} before "
                                     f"{event or text}\n{self.tail()}")
            return None
        try:
            return wait_for(look, timeout, f"log record {event or text or fields}")
        except AssertionError as error:
            raise AssertionError(f"{error} from {self.name}\n{self.tail()}") from None

    def expect_error(self, pattern):
        """Announces error records (or exit texts) that match this regular expression."""
        self.expected_errors.append(re.compile(pattern, re.I))
        return self

    def tail(self, count=30):
        with self.changed:
            return "\n".join(self.lines[-count:])

    def _memory_kib(self, name):
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1])
        raise AssertionError(f"{self.name} has no {name}")

    def rss_kib(self):
        return self._memory_kib("VmRSS")

    def peak_kib(self):
        """The highest RSS since forget_peak()."""
        return self._memory_kib("VmHWM")

    def forget_peak(self):
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def cpu_seconds(self):
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, timeout=STOP_S):
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"{self.name} did not end within {timeout} s\n"
                                 f"{self.tail()}") from None
        for reader in self.readers:
            reader.join(5)
        return code

    def kill(self):
        """SIGKILL: nothing about its end is checked afterwards, its log is."""
        self.stopped = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait(10)
        for reader in self.readers:
            reader.join(5)

    def stop(self, code=0, timeout=STOP_S):
        """SIGTERM, unless it ended already; then all that must hold of a process that ended."""
        if self.stopped:
            return
        self.stopped = True
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        got = self.wait(timeout)
        assert got == code, f"{self.name} ended with {got}, not {code}\n{self.tail()}"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, 0)
            raise AssertionError(f"{self.name} left a process behind")

    def complaints(self):
        """What is wrong with its log, as texts."""
        found = []
        reports = [line for line in self.lines if SANITIZER.search(line)]
        if reports:
            found.append(f"{self.name}: sanitizer report\n" + self.tail(200))
        else:
            found += [f"{self.name}: not a JSON log line: {line}" for line in self.strangers
                      if not any(p.search(line) for p in self.expected_errors)]
        for record in self.records:
            if record.get("level") == "error":
                text = json.dumps({k: v for k, v in record.items() if k != "_at"})
                if not any(p.search(text) for p in self.expected_errors):
                    found.append(f"{self.name}: unexpected error record: {text}")
        for token in self.world.secrets:
            if any(token in line for line in self.lines):
                found.append(f"{self.name}: a token is in the log")
        for path, text in self.world.key_texts():
            if any(text in line for line in self.lines):
                found.append(f"{self.name}: a part of {path.name} is in the log")
        return found


class Relay(Process):
    port = 0
    tls = None  # ssl context of a consumer that trusts it
    server_name = None

    @property
    def url(self):
        return f"{'wss' if self.tls else 'ws'}://127.0.0.1:{self.port}"

    @property
    def http_url(self):
        return self.url.replace("ws", "http", 1)

    def fetch(self, target, token=None, method="GET", **kw):
        if self.tls:
            kw.setdefault("tls", self.tls)
            kw.setdefault("server_name", self.server_name)
        return fetch(self.port, target, token, method, **kw)


class World:
    """What a test runs: one state folder, the processes in it."""

    def __init__(self, folder, workers=2):
        assert BIN.exists(), f"{BIN} is not there: run make, or set CULVERT_BIN"
        self.folder = Path(folder)
        self.workers = workers
        self.state = self.folder / "state"
        self.processes = []
        self.services = []
        self.secrets = set()
        self.tokens = {}
        self.cleanups = []

    # -- environment ---------------------------------------------------------------------------

    def env(self, extra=None):
        env = {k: v for k, v in os.environ.items()
               if k.lower() not in PROXY_VARIABLES and not k.startswith(("CULVERT_", "OTEL_", "TRACING_"))}
        if os.geteuid() != 0:  # else the tests cannot look into /proc/PID of what they started
            env["CULVERT_DUMPABLE"] = "1"
        # What is limited by default would end most tests: those about limits (and about services
        # that fail again and again) say so. Canaries are requests that tests do not count with.
        env.update(RATE_LIMIT_IP_RPM="0", CB_FAILURE_THRESHOLD="0", CULVERT_CANARY_INTERVAL="0",
                   **{f"RATE_LIMIT_{tier}_RPM": "0" for tier in ("FREE", "PREMIUM", "ENTERPRISE")})
        env.update(CULVERT_STATE_DIR=str(self.state), HOME=str(self.folder), LOG_FORMAT="json",
                   LOG_LEVEL=os.environ.get("CULVERT_TEST_LOG_LEVEL", "debug"))
        for key, value in (extra or {}).items():
            if value is None:
                env.pop(key, None)
            else:
                env[key] = str(value)
        return env

    def run(self, *args, env=None, timeout=30, check=None, input=None):
        """A one-shot command; text in, text out."""
        done = subprocess.run([str(BIN), *map(str, args)], env=self.env(env), input=input,
                              capture_output=True, text=True, timeout=timeout)
        assert not SANITIZER.search(done.stderr), done.stderr
        if check is not None:
            assert done.returncode == check, \
                f"culvert {' '.join(map(str, args))}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done

    def token(self, sub="alice", *args):
        """A token of the --dev issuer."""
        key = (sub, *args)
        if key not in self.tokens:
            done = self.run("token", "--dev", "--sub", sub, *args, check=0)
            self.tokens[key] = done.stdout.strip()
            self.secrets.add(self.tokens[key])
        return self.tokens[key]

    def key_texts(self):
        """(file, line) of every private key that lies in the world's folders: host keys, signing
        keys, TLS keys, HMAC secrets."""
        found = []
        for path in self.folder.rglob("*"):
            if not path.is_file() or path.stat().st_size > 16384 or path.suffix == ".log":
                continue
            text = path.read_bytes().decode("latin-1")
            if "PRIVATE KEY-----" in text or path.name in ("secret", "secret_file"):
                found += [(path, line) for line in text.split("\n")
                          if len(line) >= 24 and "-----" not in line]
        return found

    def write(self, name, text):
        path = self.folder / name
        path.write_text(text)
        return path

    # -- processes -----------------------------------------------------------------------------

    def start(self, name, *args, env=None, kind=Process, **kw):
        process = kind(self, name, args, self.env(env), **kw)
        self.processes.append(process)
        return process

    def relay(self, *args, dev=True, port=None, host="127.0.0.1", env=None, workers=None,
              config=None, ready=True, tls=None, server_name=None, wrapper=None):
        """Starts `culvert server` and waits until /readyz says so. `wrapper` runs in the place of
        the program, with its arguments."""
        port = port or free_port()
        listen = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        words = ["server", "--listen", listen, "--workers", workers or self.workers]
        if dev:
            words.append("--dev")
        if config is not None:
            words += ["-c", self.write(f"relay-{port}.yaml", config)]
        relay = self.start(f"relay:{port}", *words, *args, env=env, kind=Relay,
                           wrapper=wrapper)
        relay.port = port
        relay.tls = tls
        relay.server_name = server_name
        if ready:
            self.wait_ready(relay, host)
        return relay

    def wait_ready(self, relay, host="127.0.0.1"):
        def look():
            if relay.process.poll() is not None:
                raise AssertionError(f"{relay.name} ended with {relay.process.returncode}\n"
                                     f"{relay.tail()}")
            with contextlib.suppress(OSError, AssertionError):
                return relay.fetch("/readyz", host="localhost", timeout=5).status == 200 \
                    if host == "127.0.0.1" else self._connects(host, relay.port)
            return False
        wait_for(look, READY_S, f"answer of {relay.name}")

    @staticmethod
    def _connects(host, port):
        with socket.create_connection((host, port), 2):
            return True

    def agent(self, command, relay, target, *args, name="home", sub="alice", token=None, env=None,
              ready=True, url=None, wrapper=None):
        """Starts `culvert http` or `culvert tcp` and waits until its tunnel is published."""
        token = token or self.token(sub)
        self.secrets.add(token)
        agent = self.start(f"agent:{sub}/{name}", command, target, "--server", url or relay.url,
                           "--name", name, *args, env={"CULVERT_TOKEN": token, **(env or {})},
                           wrapper=wrapper)
        if ready:
            agent.wait_log(AGENT_READY)
        return agent

    def http(self, relay, target, *args, **kw):
        return self.agent("http", relay, target, *args, **kw)

    def tcp(self, relay, target, *args, **kw):
        return self.agent("tcp", relay, target, *args, **kw)

    def forward(self, relay, name, sub="alice", env=None, port=None):
        port = port or free_port()
        forward = self.start(f"forward:{sub}/{name}", "forward", port, name, "--server", relay.url,
                             env={"CULVERT_TOKEN": self.token(sub), **(env or {})})
        forward.wait_log(FORWARD_READY)
        return forward, port

    def stdio_command(self, relay, *, quoted=True, url=None):
        """The ProxyCommand; the token goes through the environment of the SSH client."""
        words = [str(BIN), "stdio", "--server", url or relay.url]
        return " ".join(words) if quoted else words

    def service(self, *args, **kw):
        from service import Service
        service = Service(*args, **kw)
        self.services.append(service)
        return service

    def spawn(self, *args, env=None, **kw):
        """A foreign program (ssh, nginx, …) in a session of its own, ended with the world."""
        kw.setdefault("stdin", subprocess.DEVNULL)
        kw.setdefault("stdout", subprocess.DEVNULL)
        log = open(self.folder / f"{Path(str(args[0])).name}-{len(self.cleanups)}.log", "w+b")
        kw.setdefault("stderr", log)
        process = subprocess.Popen([str(a) for a in args], env=env or self.env(),
                                   start_new_session=True, **kw)
        process.log_path = Path(log.name)
        log.close()

        def end():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(5)
        self.cleanups.append(end)
        return process

    # -- the end -------------------------------------------------------------------------------

    def close(self):
        failures = []
        for step in reversed(self.cleanups):
            step()
        for process in reversed(self.processes):
            try:
                process.stop()
            except AssertionError as error:
                failures.append(str(error))
        for process in self.processes:
            failures += process.complaints()
        for service in self.services:
            service.close()
            failures += [f"service: {fault}" for fault in service.faults]
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not failures, "\n".join(failures)
