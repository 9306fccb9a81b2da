# SPDX-License-Identifier: MIT
"""A network of its own for a test, made of namespaces: real interfaces, addresses, routes, a router
that drops or resets, a queue of one megabit.

    relay, consumers             router                  agent, service
      10.9.3.2 ───────────── 10.9.3.1  10.9.1.1 ───────── 10.9.1.2  (preferred)
                                       10.9.2.1 ───────── 10.9.2.2  (the other way out)

A namespace is held by a descriptor and by what runs in it, it has no name: nothing is left behind
however a test ends. Threads and processes are born in the namespace of the thread that starts them,
and sockets belong to the one they were made in.
"""
import contextlib
import ctypes
import functools
import os
import subprocess

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

RELAY = "10.9.3.2"


def _call(name, *args):
    if getattr(_libc, name)(*args) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def _open_current():
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """`with namespace:` puts the calling thread into it."""

    def __init__(self):
        home = _open_current()
        try:
            _call("unshare", CLONE_NEWNET)
            self.fd = _open_current()
        finally:
            _call("setns", home, CLONE_NEWNET)
            os.close(home)
        self.entered = []
        self.ip("link", "set", "lo", "up")

    def __enter__(self):
        self.entered.append(_open_current())
        _call("setns", self.fd, CLONE_NEWNET)
        return self

    def __exit__(self, *_):
        home = self.entered.pop()
        _call("setns", home, CLONE_NEWNET)
        os.close(home)

    def run(self, *args, text=None):
        with self:
            done = subprocess.run([str(arg) for arg in args], input=text, capture_output=True,
                                  text=True, timeout=30)
        if done.returncode != 0:
            raise OSError(f"{' '.join(map(str, args))}: {done.stderr.strip()}")
        return done.stdout

    def ip(self, *args):
        return self.run("ip", *args)

    def sysctl(self, name, value):
        with self, open(f"/proc/sys/{name}", "w") as file:
            file.write(str(value))

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self):
        os.close(self.fd)


class Network:
    """The three namespaces of the picture above, and what can happen to them."""

    # Interface at the agent: its address, its neighbour, how little it is liked.
    WAYS = {"wan0": ("10.9.1.2", "10.9.1.1", 10), "wan1": ("10.9.2.2", "10.9.2.1", 20)}

    def __init__(self):
        self.spaces = []
        try:
            self.relay, self.router, self.agent = self._space(), self._space(), self._space()
            for space in self.spaces:
                for what in ("all", "default"):
                    space.sysctl(f"net/ipv4/conf/{what}/rp_filter", 0)
            self.router.sysctl("net/ipv4/ip_forward", 1)
            self._wire(self.relay, "wan0", f"{RELAY}/24", "relay", "10.9.3.1/24")
            self.relay.ip("route", "add", "default", "via", "10.9.3.1")
            for name, (address, neighbour, _) in self.WAYS.items():
                self._wire(self.agent, name, f"{address}/24", name, f"{neighbour}/24")
                self.give_route(name)
            self.filter()
        except BaseException:
            self.close()
            raise

    def _space(self):
        space = Namespace()
        self.spaces.append(space)
        return space

    def _wire(self, space, name, address, other_name, other_address):
        space.ip("link", "add", name, "type", "veth", "peer", "name", other_name,
                 "netns", self.router.path)
        for end, interface, cidr in ((space, name, address),
                                     (self.router, other_name, other_address)):
            end.ip("addr", "add", cidr, "dev", interface)
            end.ip("link", "set", interface, "up")

    def close(self):
        for space in self.spaces:
            space.close()

    # -- what the router does ------------------------------------------------------------------

    def filter(self, *rules):
        """From now on the router has these rules for what it forwards, and no others."""
        lines = "\n".join(rules)
        self.router.run("nft", "-f", "-", text=f"""
table ip cut {{}}
delete table ip cut
table ip cut {{
    chain forward {{
        type filter hook forward priority 0; policy accept;
        {lines}
    }}
}}
""")

    @contextlib.contextmanager
    def rules(self, *rules):
        self.filter(*rules)
        try:
            yield
        finally:
            self.filter()

    def hole(self, way="both"):
        """Nothing is forwarded, and nobody is told: both ways, or only what goes up or down."""
        return self.rules(*{"both": ["drop"], "up": [f"ip daddr {RELAY} drop"],
                            "down": [f"ip saddr {RELAY} drop"]}[way])

    def agent_ports(self, port):
        """The agent's ends of its connections to the relay's port."""
        text = self.agent.run("ss", "-Htn", "state", "established", "dport", "=", f":{port}")
        return [int(line.split()[2].rpartition(":")[2]) for line in text.splitlines()]

    def reset_rules(self, port):
        """Resets what there is to the relay's port, and nothing that comes later."""
        rules = []
        for own in self.agent_ports(port):
            rules += [f"tcp {which} {own} reject with tcp reset" for which in ("sport", "dport")]
        return rules

    # -- what happens to the agent's machine ---------------------------------------------------

    def give_route(self, name):
        _, neighbour, metric = self.WAYS[name]
        self.agent.ip("route", "add", "default", "via", neighbour, "dev", name, "metric", metric)

    def take_route(self, name):
        self.agent.ip("route", "del", "default", "dev", name)

    def take_address(self, name):
        """With its address an interface loses its routes."""
        self.agent.ip("addr", "del", f"{self.WAYS[name][0]}/24", "dev", name)

    def give_address(self, name):
        self.agent.ip("addr", "add", f"{self.WAYS[name][0]}/24", "dev", name)
        self.give_route(name)

    def take_link(self, name):
        self.agent.ip("link", "set", name, "down")

    def give_link(self, name):
        self.agent.ip("link", "set", name, "up")
        self.give_route(name)

    # -- slowness ------------------------------------------------------------------------------

    def throttle(self, kbit):
        """That many kbit/s each way, with a queue of half a second, as slow lines have."""
        for name in ("relay", "wan0", "wan1"):
            self.router.run("tc", "qdisc", "replace", "dev", name, "root", "tbf", "rate",
                            f"{kbit}kbit", "burst", "8kb", "latency", "500ms")


@functools.cache
def why_not(with_tbf=False):
    """Why networks cannot be made here; None when they can."""
    if os.geteuid() != 0:
        return "needs root: network namespaces"
    try:
        network = Network()
    except FileNotFoundError as error:
        return f"needs {error.filename}"
    except OSError as error:
        return f"no network namespaces here: {error}"
    try:
        if with_tbf:
            network.throttle(1000)
    except OSError as error:
        return f"no slow interfaces here: {error}"
    finally:
        network.close()
    return None
