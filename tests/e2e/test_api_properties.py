# SPDX-License-Identifier: MIT
"""What holds of the management API whatever is asked of it: no failure that docs/openapi.yaml does not
name, nothing of other users, and a PATCH that is whole or not at all."""
import atexit
import json
import shutil
import string
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from test_admin_api import DOCUMENT, check, operation_of

# What it keeps for itself does not stay in the tree.
HOME = tempfile.mkdtemp(prefix="hypothesis-")
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
set_hypothesis_home_dir(HOME)

EXAMPLES = 60
RELAXED = {"max_examples": EXAMPLES, "deadline": None, "derandomize": True, "database": None,
           "suppress_health_check": [HealthCheck.function_scoped_fixture]}
PATHS = [path.replace("{id}", "%s") for path in DOCUMENT["paths"]]
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

texts = st.text(st.characters(blacklist_categories=("Cs",)), max_size=40)
values = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | texts,
                      lambda inner: st.lists(inner, max_size=4)
                      | st.dictionaries(texts, inner, max_size=4), max_leaves=12)
bodies = st.one_of(st.none(), st.binary(max_size=200),
                   st.dictionaries(texts | st.sampled_from(["jti", "sub", "reason", "expires_at"]),
                                   values, max_size=5).map(lambda v: json.dumps(v).encode()))
idents = st.text(string.ascii_letters + string.digits + "%._~-", min_size=1, max_size=64)


@pytest.fixture(scope="module")
def api(tmp_path_factory):
    from culvert import World
    from test_admin_api import Api
    world = World(tmp_path_factory.mktemp("properties"))
    api = Api(world)
    secret = world.http(api.relay, api.scene.service.port, sub="secret-bob", name="secret-lab")
    assert secret
    yield api
    world.close()


def ask(api, method, target, token, body):
    response = api.relay.fetch(target, token, method, body=body)
    if operation_of(method, target) and method != "HEAD":
        check(method, target, response)
    return response


@settings(**RELAXED)
@given(method=st.sampled_from(METHODS), path=st.sampled_from(PATHS), ident=idents,
       query=st.sampled_from(["", "?", "?all=1", "?user=secret-bob"]), body=bodies,
       who=st.sampled_from([None, "alice", "mallory"]))
def test_nobody_gets_another_users_things(api, method, path, ident, query, body, who):
    target = (path % ident if "%s" in path else path) + query
    token = who and api.world.token(who)
    response = ask(api, method, target, token, None if method in ("GET", "HEAD") else body)
    assert response.status < 500
    assert b"secret" not in response.body.replace(ident.encode(), b"")
    assert not any("secret" in value for _, value in response.headers)
    if who is None and response.status < 300:
        assert operation_of(method if method != "HEAD" else "GET", target).get("security") == []


@settings(**RELAXED)
@given(method=st.sampled_from(METHODS), path=st.sampled_from(
    [p for p in PATHS if "revocations" not in p or "%s" in p]), ident=idents, body=bodies)
def test_an_operators_mistakes_are_answered_as_such(api, method, path, ident, body):
    target = path % ident if "%s" in path else path
    response = ask(api, method, target, api.admin, None if method in ("GET", "HEAD") else body)
    assert response.status < 500


@settings(**RELAXED)
@given(token=st.text(string.ascii_letters + string.digits + "-_.=~+/", max_size=300),
       path=st.sampled_from([p for p in PATHS if "%s" not in p]))
def test_made_up_tokens_open_nothing(api, token, path):
    is_open = (operation_of("GET", path) or {}).get("security") == []
    response = api.relay.fetch(path, token or None)
    assert response.status == (200 if is_open else 401)


good = {"queue.size": st.integers(10, 1000), "breaker.failures": st.integers(0, 255),
        "timers.idle": st.integers(1, 1000).map(lambda s: f"{s}s"),
        "limits.burst": st.integers(0, 10 ** 8), "sharing": st.sampled_from(
            ["none", "users", "public"]),
        "limits.default_tier": st.sampled_from(["free", "premium", "enterprise"])}
bad = st.one_of(
    st.tuples(st.just("queue.size"), st.integers(-5, 9) | st.integers(1001) | values),
    st.tuples(st.just("limits.default_tier"), st.just("nobody")),
    st.tuples(st.sampled_from(["listen", "ws_path", "tls.cert_file", "tiers"]), values),
    st.tuples(texts.filter(lambda t: "." not in t), values))


def settings_of(api):
    response = api.relay.fetch("/api/tunnel/config", api.admin)
    return {k: v["value"] for k, v in response.json()["settings"].items()}


@settings(**RELAXED)
@given(changes=st.fixed_dictionaries({}, optional=good), wrong=st.none() | bad)
def test_a_patch_is_whole_or_not_at_all(api, changes, wrong):
    before = settings_of(api)
    asked = dict(changes)
    if wrong:
        asked[wrong[0]] = wrong[1]
    while True:
        response = ask(api, "PATCH", "/api/tunnel/config", api.admin, json.dumps(asked).encode())
        if response.status != 503:  # the change before is not through on all workers
            break
    after = settings_of(api)
    if response.status == 200:
        assert sorted(response.json()["changed"]) == sorted(asked)
        if not wrong:
            assert after == {**before, **{k: after[k] for k in asked}}
            assert {k: after[k] for k in asked if k != "timers.idle"} == {
                k: v for k, v in asked.items() if k != "timers.idle"}
    else:
        assert response.status == 422 and after == before
        assert response.json().get("problems") or response.json()["detail"]
