# SPDX-License-Identifier: MIT
"""People and the agents that run here: an agent that rests, `culvert status`, `culvert reconnect`,
and the socket below them."""
from culvert import free_port, wait_for


def service_agent(world, relay_url, target=80, name="home", env=None, more=""):
    """`culvert agent` with one tunnel."""
    config = world.write(f"agent-{name}.yaml",
                         f"server: {relay_url}\n"
                         f"tunnels: [{{name: {name}, target: '{target}'}}]\n{more}")
    return world.start(f"agent/{name}", "agent", "-c", config,
                       env={"CULVERT_TOKEN": world.token(), **(env or {})})


def test_an_agent_rests_when_its_tries_are_used_up(world):
    agent = service_agent(world, f"ws://127.0.0.1:{free_port()}",
                          more="reconnect: {max_attempts: 3}\n")
    paused = agent.wait_log("reconnect_paused")
    assert paused["failures"] == 3 and paused["error"]["code"] == "TUNNEL_001"
    assert "culvert reconnect" in paused["message"]
    tries = len(agent.find("connecting"))
    assert tries == 3 and agent.process.poll() is None


def test_people_are_told_when_a_relay_stays_away(world):
    agent = service_agent(world, f"ws://127.0.0.1:{free_port()}", more="reconnect: {initial: 100ms, max: 100ms}\n")
    told = agent.wait_log("still_unreachable")
    assert told["failures"] == 10 and told["suggestion"]
    assert wait_for(lambda: len(agent.find("connecting")) > 11, what="tries after that")
