# SPDX-License-Identifier: MIT
"""Both forms in which spans are sent, read by OpenTelemetry's own message classes."""
import json
import subprocess
from pathlib import Path

import pytest
from collector import Collector
from culvert import wait_for
from npm import node_environment

TRACE = "0af7651916cd43dd8448eb211c80319c"
HERE = Path(__file__).parent


@pytest.mark.parametrize("form", ["json", "protobuf"])
def test_spans_are_what_the_schema_says(scene, world, form):
    env = node_environment(world)
    collector = Collector()
    world.cleanups.append(collector.close)
    home = scene(relay_env={"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
                            "OTEL_EXPORTER_OTLP_PROTOCOL": f"http/{form}",
                            "OTEL_BSP_SCHEDULE_DELAY": "50"})
    home.fetch("/a?x", "POST", body=b"12345",
               headers=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-01")])
    kind = {"json": "application/json", "protobuf": "application/x-protobuf"}[form]
    wait_for(lambda: any(b"first_byte" in body for _, body in collector.bodies), 15, "spans")
    spans = []
    for content_type, body in collector.bodies:
        assert content_type == kind
        done = subprocess.run(["node", str(HERE / "otlp_decode.js"), form], env=env, input=body,
                              capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr.decode()
        for group in json.loads(done.stdout)["resourceSpans"]:
            resource = values(group["resource"]["attributes"])
            assert resource["service.name"] == "culvert"
            spans += [span for scope in group["scopeSpans"] for span in scope["spans"]]
    found = {span["name"]: span for span in spans if span["traceId"] == TRACE}
    assert set(found) == {"POST /t/{tunnel}/{path}", "tunnel.forward_request",
                          "tunnel.get_connection", "tunnel.ssh_forward"}
    server = found["POST /t/{tunnel}/{path}"]
    assert server["parentSpanId"] == "b7ad6b7169203331" and server["kind"] == 2
    attributes = values(server["attributes"])
    assert attributes["http.response.status_code"] == "200"
    assert attributes["client.address"] == "127.0.0.1"
    assert values(found["tunnel.forward_request"]["attributes"])["http.request.body.size"] == "5"
    assert values(found["tunnel.get_connection"]["attributes"])["culvert.stream.reused"] is False
    stream = found["tunnel.ssh_forward"]
    assert [event["name"] for event in stream["events"]] == ["first_byte"]
    assert len(stream["links"]) == 1 and stream["flags"] == 0x101
    assert int(server["startTimeUnixNano"]) <= int(stream["startTimeUnixNano"]) \
        <= int(stream["endTimeUnixNano"]) <= int(server["endTimeUnixNano"])


def values(attributes):
    found = {}
    for item in attributes:
        (_, value), = item["value"].items()
        found[item["key"]] = value
    return found
