# SPDX-License-Identifier: MIT
"""The usual scene of a test: a relay, a service behind it, one agent of alice that publishes it."""


class Scene:
    def __init__(self, world, agent_args=(), agent_env=None, relay_args=(), relay_env=None,
                 config=None, routes=None):
        self.world = world
        self.service = world.service(routes)
        self.relay = world.relay(*relay_args, env=relay_env, config=config)
        self.agent = world.http(self.relay, self.service.port, *agent_args, env=agent_env)
        self.token = world.token("alice")

    def fetch(self, target="/", method="GET", **kw):
        kw.setdefault("token", self.token)
        return self.relay.fetch(f"/t/home{target}", method=method, **kw)

    def client(self, **kw):
        from client import Client
        return Client(self.relay.port, **kw)
