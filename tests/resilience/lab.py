# SPDX-License-Identifier: MIT
"""A relay and an agent in a network of their own, and the ways to cut the path between them.

Everything a lab does is done by one thread, which lives in the relay's namespace meanwhile; many
labs can be in use at once, one a thread (`in_parallel`).
"""
import contextlib
import json
import shutil
import tempfile
import threading
import time
import traceback

from culvert import World, free_port, wait_for
from netns import RELAY, Network
from test_auth import AUDIENCE, ISSUER, Key

NAME = f"IP:{RELAY},IP:127.0.0.1,DNS:localhost"


class Credentials:
    """What all labs of a run share: a certificate and a key for tokens."""

    def __init__(self, authority):
        from cryptography.hazmat.primitives.asymmetric import ec
        self.ca = authority.ca
        self.context = authority.context()
        self.cert, self.private = authority.issue(NAME)
        self.key = Key(ec.generate_private_key(ec.SECP256R1()), "ES256")


class Lab:
    def __init__(self, credentials, network=None, relay_env=None, agent_env=None):
        self.credentials = credentials
        self.relay_env = {"SSH_MAX_CHANNELS": "120", **(relay_env or {})}
        self.agent_env = {"SSH_MAX_CHANNELS": "120", **(agent_env or {})}
        self.stack = contextlib.ExitStack()
        self.network = network or Network()
        self.stack.callback(self.network.close)

    def __enter__(self):
        try:
            self.world = World(tempfile.mkdtemp(prefix="culvert-lab-"))
            self.stack.callback(self.world.close)
            self.stack.enter_context(self.network.relay)
            self.config = self._write_config()
            self.port = free_port()
            self.relay = self.start_relay()
            with self.network.agent:
                self.service = self.world.service()
            self.token = self.credentials.key.sign(exp=int(time.time()) + 7200)
            self.agent = self.start_agent()
        except BaseException:
            self.stack.close()
            raise
        return self

    def __exit__(self, kind, *_):
        if kind:  # the first fault is the one to be told
            with contextlib.suppress(AssertionError):
                self.stack.close()
        else:
            self.stack.close()

    def _write_config(self):
        folder = self.world.folder
        for name in ("cert", "private"):
            shutil.copy(getattr(self.credentials, name), folder / f"{name}.pem")
        jwks = self.world.write("jwks.json", json.dumps({"keys": [self.credentials.key.jwk]}))
        return f"""
tls:
  cert_file: {folder}/cert.pem
  key_file: {folder}/private.pem
auth:
  jwks_file: {jwks}
  issuer: {ISSUER}
  audience: [{AUDIENCE}]
"""

    def start_relay(self, **kw):
        return self.world.relay(dev=False, host="0.0.0.0", port=self.port, config=self.config,
                                env=self.relay_env, tls=self.credentials.context,
                                server_name="localhost", **kw)

    def start_agent(self, **kw):
        with self.network.agent:
            return self.world.http(self.relay, self.service.port, token=self.token,
                                   url=f"wss://{RELAY}:{self.port}",
                                   env={"CULVERT_CA_FILE": str(self.credentials.ca),
                                        **self.agent_env}, **kw)

    def fetch(self, target="/t/home/x", **kw):
        return self.relay.fetch(target, self.token, **kw)

    # -- what the logs say ---------------------------------------------------------------------

    def losses(self):
        return self.agent.find("connection_lost")

    def resumes(self):
        return self.agent.find("link_resumed")

    def replayed_bytes(self):
        """(by the agent, by the relay), of all resumes."""
        return tuple(sum(record["replayBytes"] for record in process.find("resumed"))
                     for process in (self.agent, self.relay))

    def wait_lost(self, before, timeout=30):
        wait_for(lambda: len(self.losses()) > before, timeout, "a loss at the agent")
        return self.losses()[before]["_at"]

    def wait_resumed(self, before, timeout=30):
        wait_for(lambda: len(self.resumes()) > before, timeout, "a resume")
        return self.resumes()[before]["_at"]


# ---- cuts: each ends with the path open again ---------------------------------------------------

def reset(lab):
    """Somebody on the way resets the connection."""
    before = len(lab.losses())
    with lab.network.rules(*lab.network.reset_rules(lab.port)):
        lab.wait_lost(before)


def _hole(lab, way):
    before = len(lab.losses())
    with lab.network.hole(way):
        lab.wait_lost(before)


def hole_both(lab):
    """Nothing arrives any more, either way, and nobody is told."""
    _hole(lab, "both")


def hole_up(lab):
    """Nothing from the agent arrives."""
    _hole(lab, "up")


def hole_down(lab):
    """Nothing from the relay arrives."""
    _hole(lab, "down")


def other_address(lab):
    """The machine loses its address and goes on with its other one; next time, back."""
    has_first = "10.9.1.2" in lab.network.agent.ip("addr")
    before = len(lab.losses())
    if has_first:
        lab.network.take_address("wan0")
    else:
        lab.network.give_address("wan0")
        lab.network.take_address("wan1")
    lab.wait_lost(before)
    if not has_first:
        lab.network.give_address("wan1")


def link_down(lab):
    """The cable is pulled, on both ways out, and put back."""
    before = len(lab.losses())
    for name in lab.network.WAYS:
        lab.network.take_link(name)
    lab.wait_lost(before)
    for name, (address, _, _) in lab.network.WAYS.items():
        if address in lab.network.agent.ip("addr"):
            lab.network.give_link(name)
        else:
            lab.network.agent.ip("link", "set", name, "up")


def route_gone(lab):
    """No route to the relay, until one comes back."""
    before = len(lab.losses())
    held = [name for name in lab.network.WAYS
            if name in lab.network.agent.ip("route", "show", "default")]
    for name in held:
        lab.network.take_route(name)
    lab.wait_lost(before)
    for name in held:
        lab.network.give_route(name)


def outage(seconds):
    def cut(lab):
        with lab.network.hole():
            time.sleep(seconds)
    cut.__name__ = f"outage_{seconds}s"
    return cut


KINDS = [reset, hole_both, hole_up, hole_down, other_address, link_down, route_gone]


# ---- many at once -------------------------------------------------------------------------------

def in_parallel(jobs):
    """Runs (name, function) pairs in threads of their own; fails with all that failed."""
    failures = []

    def run(name, job):
        try:
            job()
        except Exception:  # noqa: BLE001 - told below, with the others
            failures.append(f"{name}: {traceback.format_exc(limit=-4)}")
    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, "\n".join(failures)
