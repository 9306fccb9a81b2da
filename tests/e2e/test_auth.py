# SPDX-License-Identifier: MIT
"""Tokens: every way to be refused, each with its reason; what a good one lets through."""
import base64
import hashlib
import json
import time

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from culvert import World, wait_for

ISSUER = "https://issuer.test/"
AUDIENCE = "https://relay.test"


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def thumbprint(members):
    """RFC 7638."""
    text = json.dumps(members, sort_keys=True, separators=(",", ":"))
    return b64(hashlib.sha256(text.encode()).digest())


class Key:
    def __init__(self, private, alg, kid=None, members=()):
        self.private = private
        self.alg = alg
        numbers = private.public_key().public_numbers()
        if isinstance(private, rsa.RSAPrivateKey):
            public = {"kty": "RSA", "n": self._int(numbers.n), "e": self._int(numbers.e)}
        else:
            size = (private.curve.key_size + 7) // 8
            public = {"kty": "EC", "crv": {256: "P-256", 384: "P-384"}[private.curve.key_size],
                      "x": b64(numbers.x.to_bytes(size, "big")),
                      "y": b64(numbers.y.to_bytes(size, "big"))}
        self.kid = kid or thumbprint(public)
        self.jwk = {**public, "kid": self.kid, **dict(members)}

    @staticmethod
    def _int(value):
        return b64(value.to_bytes((value.bit_length() + 7) // 8, "big"))

    def pem(self):
        return self.private.private_bytes(serialization.Encoding.PEM,
                                          serialization.PrivateFormat.PKCS8,
                                          serialization.NoEncryption()).decode()

    def public_pem(self):
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, claims=None, headers=None, alg=None, **changes):
        now = int(time.time())
        payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600}
        payload.update(claims or {})
        payload.update(changes)
        payload = {k: v for k, v in payload.items() if v is not None}
        return jwt.encode(payload, self.private, alg or self.alg,
                          {"kid": self.kid, **(headers or {})})


@pytest.fixture(scope="module")
def keys():
    return {
        "rs256": Key(rsa.generate_private_key(65537, 2048), "RS256"),
        "es256": Key(ec.generate_private_key(ec.SECP256R1()), "ES256"),
        "es384": Key(ec.generate_private_key(ec.SECP384R1()), "ES384"),
        "encryption": Key(rsa.generate_private_key(65537, 2048), "RS256", members={"use": "enc"}),
        "es256 only": Key(rsa.generate_private_key(65537, 2048), "RS256",
                             members={"alg": "PS256"}),
        "small": Key(rsa.generate_private_key(65537, 1024), "RS256"),
        "stranger": Key(rsa.generate_private_key(65537, 2048), "RS256"),
    }


@pytest.fixture(scope="module")
def issued(tmp_path_factory, keys):
    """A relay with a JWKS file, and alice's `home` on it."""
    world = World(tmp_path_factory.mktemp("auth"))
    try:
        trusted = [key.jwk for name, key in keys.items() if name != "stranger"]
        jwks = world.write("jwks.json", json.dumps({"keys": trusted}))
        world.auth_config = f"""
trusted_proxy: [192.0.2.0/24, 127.0.0.1/32]
auth:
  jwks_file: {jwks}
  issuer: {ISSUER}
  audience: [{AUDIENCE}]
"""
        service = world.service()
        relay = world.relay(dev=False, config=world.auth_config)
        world.http(relay, service.port, token=keys["rs256"].sign(exp=int(time.time()) + 3600))
        world.issued_relay, world.issued_service = relay, service
        yield world
    finally:
        world.close()


@pytest.fixture
def relay(issued):
    return issued.issued_relay


def refused(relay, token, reason, code="TUNNEL_002"):
    """401 with the code, no byte at the service, and the reason in the relay's log."""
    since = len(relay.records)
    response = relay.fetch("/t/home/x", token)
    assert response.status == 401, response.body
    problem = response.json()
    assert problem["code"] == code and problem["category"] == "authentication"
    assert problem["hop"] == "relay"
    assert (response.get("WWW-Authenticate") or "").startswith("Bearer")
    if token:
        assert token not in response.body.decode()

    def is_told():
        # Logs that strangers cause are rate limited: ask again until it is this one's turn.
        if relay.find(since=since, text=reason):
            return True
        time.sleep(0.3)
        relay.fetch("/t/home/x", token)
        return False
    if reason:
        wait_for(is_told, 15, f"log record with {reason}")
    return problem


@pytest.mark.parametrize("name", ["rs256", "es256", "es384"])
def test_good_tokens_pass(relay, keys, name):
    assert relay.fetch("/t/home/x", keys[name].sign()).status == 200


@pytest.mark.parametrize("alg", ["RS384", "RS512", "PS256"])
def test_rsa_algorithms(relay, keys, alg):
    assert relay.fetch("/t/home/x", keys["rs256"].sign(alg=alg)).status == 200


def test_an_audience_among_several(relay, keys):
    assert relay.fetch("/t/home/x", keys["rs256"].sign(aud=["other", AUDIENCE])).status == 200


def test_missing(relay):
    refused(relay, None, "missing")


def test_expired(relay, keys):
    refused(relay, keys["rs256"].sign(exp=int(time.time()) - 400), "expired", "TUNNEL_003")


def test_not_yet_valid(relay, keys):
    refused(relay, keys["rs256"].sign(nbf=int(time.time()) + 400), "not_yet_valid")


def test_wrong_issuer(relay, keys):
    for issuer in (ISSUER[:-1], ISSUER.upper(), "https://issuer.test.evil/"):
        refused(relay, keys["rs256"].sign(iss=issuer), "wrong_issuer")


def test_wrong_audience(relay, keys):
    refused(relay, keys["rs256"].sign(aud="https://other.test"), "wrong_audience")
    refused(relay, keys["rs256"].sign(aud=["a", "b"]), "wrong_audience")


def test_unknown_key(relay, keys):
    refused(relay, keys["stranger"].sign(), "unknown_key")


def test_bad_signature(relay, keys):
    forged = keys["stranger"].sign(headers={"kid": keys["rs256"].kid})
    refused(relay, forged, "bad_signature")
    token = keys["rs256"].sign()
    head, body, signature = token.split(".")
    changed = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed["sub"] = "bob"
    refused(relay, f"{head}.{b64(json.dumps(changed).encode())}.{signature}", "bad_signature")


def test_malformed(relay, keys):
    token = keys["rs256"].sign()
    for broken in ("x", "a.b", "a.b.c", token + ".", token[:-20] + "!" * 20, token + "=",
                   "." + token, token.replace(".", "..", 1)):
        refused(relay, broken, None)
    refused(relay, "a.b.c", "malformed")


@pytest.mark.parametrize("claims", [
    {"exp": None}, {"exp": "soon"}, {"exp": -1}, {"exp": 1e300}, {"sub": None}, {"sub": ""},
    {"sub": 5}, {"sub": "a\nb"}, {"aud": None}, {"iss": None}, {"sub": "x" * 300}])
def test_claims_that_are_missing_or_odd(relay, keys, claims):
    key = keys["rs256"]
    payload = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": int(time.time()) + 600}
    payload = {k: v for k, v in {**payload, **claims}.items() if v is not None}
    # PyJWT checks types itself; sign the bytes instead.
    signed = jwt.api_jws.encode(json.dumps(payload).encode(), key.private, "RS256",
                                {"kid": key.kid})
    refused(relay, signed, None)


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Bearer ", "bearer", "Token x"])
def test_other_schemes_are_no_token(relay, value):
    response = relay.fetch("/t/home/x", None, headers=[("Authorization", value)])
    assert response.status == 401


def test_the_scheme_is_case_insensitive(relay, keys):
    for scheme in ("bearer", "BEARER"):
        response = relay.fetch("/t/home/x", None,
                               headers=[("Authorization", f"{scheme} {keys['rs256'].sign()}")])
        assert response.status == 200


def test_a_token_in_the_query_is_no_token(relay, keys):
    token = keys["rs256"].sign()
    assert relay.fetch(f"/t/home/x?access_token={token}&token={token}", None).status == 401


def test_the_upgrade_of_an_agent_needs_a_token_too(relay, keys):
    upgrade = [("Connection", "Upgrade"), ("Upgrade", "websocket"),
               ("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Protocol", "ssh"),
               ("Sec-WebSocket-Key", "AQIDBAUGBwgJCgsMDQ4PEA==")]
    assert relay.fetch("/tunnel", None, headers=upgrade).status == 401
    expired = keys["rs256"].sign(exp=int(time.time()) - 400)
    assert relay.fetch("/tunnel", expired, headers=upgrade).json()["code"] == "TUNNEL_003"


def test_users_of_the_same_name_from_another_subject_are_apart(relay, keys):
    assert relay.fetch("/t/home/x", keys["rs256"].sign(sub="bob")).status == 404
    assert relay.fetch("/t/home/x", keys["rs256"].sign(sub="Alice")).status == 404


def test_a_token_limited_to_tunnels(issued, relay, keys):
    limited = keys["rs256"].sign(tunnels=["other"])
    assert relay.fetch("/t/home/x", limited).status in (403, 404)
    assert relay.fetch("/t/home/x", keys["rs256"].sign(tunnels=["home"])).status == 200
    agent = issued.http(relay, issued.issued_service.port, name="home", token=limited, ready=False)
    agent.expect_error(".*")
    wait_for(lambda: agent.process.poll() is not None or
             agent.find(text="not permitted") or agent.find(text="TUNNEL_025"), 15, "refusal")
    assert not agent.find("tunnel_published")
    agent.kill()


def test_token_key_signs_what_a_jwks_file_trusts(issued, relay, keys):
    key = issued.write("signing.pem", keys["es256"].pem())
    key.chmod(0o600)
    done = issued.run("token", "--key", key, "--issuer", ISSUER, "--audience", AUDIENCE,
                      "--sub", "alice", "--ttl", "8760h", "--tunnel", "home", check=0)
    token = done.stdout.strip()
    claims = jwt.decode(token, keys["es256"].public_pem(), ["ES256"], audience=AUDIENCE)
    assert claims["sub"] == "alice" and claims["tunnels"] == ["home"]
    assert claims["exp"] - claims["iat"] == 8760 * 3600
    assert relay.fetch("/t/home/x", token).status == 200


def test_the_public_half_of_a_key_as_jwks(issued, keys):
    key = issued.write("signing2.pem", keys["es256"].pem())
    key.chmod(0o600)
    shown = json.loads(issued.run("token", "--key", key, "--jwks", check=0).stdout)
    assert [k["kid"] for k in shown["keys"]] == [keys["es256"].kid]
    assert "d" not in shown["keys"][0]


def test_hs256_with_a_secret_file(world):
    secret = world.write("secret", "s" * 40)
    secret.chmod(0o600)
    relay = world.relay(dev=False, config=f"""
trusted_proxy: [127.0.0.1/32]
auth:
  secret_file: {secret}
  issuer: {ISSUER}
  audience: [{AUDIENCE}]
""")
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "exp": now + 60}
    assert relay.fetch("/t/x/", jwt.encode(claims, "s" * 40, "HS256")).status == 404
    refused(relay, jwt.encode(claims, "t" * 40, "HS256"), "bad_signature")


def test_keys_from_a_url_and_their_rotation(world, keys):
    """An unknown key id causes one refetch; an unreachable source leaves known keys valid."""
    served = {"keys": [keys["rs256"].jwk]}

    def jwks(conn, request):
        conn.read_body(request)
        conn.reply(body=json.dumps(served).encode(),
                   headers=[("Content-Type", "application/json")])
    service = world.service({"/jwks": jwks})
    relay = world.relay(dev=False, config=f"""
trusted_proxy: [127.0.0.1/32]
auth:
  jwks_url: http://127.0.0.1:{service.port}/jwks
  issuer: {ISSUER}
  audience: [{AUDIENCE}]
""")
    assert relay.fetch("/t/x/", keys["rs256"].sign()).status == 404
    served["keys"].append(keys["es256"].jwk)
    wait_for(lambda: relay.fetch("/t/x/", keys["es256"].sign()).status == 404, 40, "new key",
             interval=0.5)
    service.close()
    relay.expect_error(".*")
    assert relay.fetch("/t/x/", keys["rs256"].sign(sub="new")).status == 404


def test_dev_tokens_differ_by_user_and_are_short_lived_by_default(world):
    relay = world.relay()
    token = world.token("carol", "--ttl", "1h")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["sub"] == "carol" and claims["exp"] - claims["iat"] == 3600
    assert relay.fetch("/t/none/", token).status == 404


def test_a_dev_token_means_nothing_elsewhere(relay, world):
    relay_token = world.token("alice")
    assert relay.fetch("/t/home/x", relay_token).status == 401
