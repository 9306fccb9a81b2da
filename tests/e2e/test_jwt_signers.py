# SPDX-License-Identifier: MIT
"""Tokens of independent signers (Debian's jose, python3-jwt) against our verifier, and ours against
theirs. No relay: tests/peers/jwt_check links the production code."""
import json
import os
import shutil
import subprocess
import time

import jwt
import pytest

import culvert

CHECK = culvert.PEERS / "jwt_check"
ISSUER = "https://issuer.example/"
AUDIENCE = "relay"
ALGS = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384"]
SECRET = "a secret of at least thirty-two bytes!"

pytestmark = pytest.mark.skipif(not CHECK.exists(), reason=f"{CHECK} is not built")
needs_jose = pytest.mark.skipif(not shutil.which("jose"), reason="Debian's jose is not installed")


def run(*args, **kwargs):
    return subprocess.run([str(a) for a in args], check=True, capture_output=True, text=True,
                          timeout=20, **kwargs).stdout


def verify(token, *options):
    out = run(CHECK, "verify", "--issuer", ISSUER, "--audience", AUDIENCE, *options, input=token)
    return out.split("\n")[0]


def claims(**changes):
    now = int(time.time())
    all_claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "alice", "iat": now, "exp": now + 600}
    all_claims.update(changes)
    return all_claims


class Jose:
    """A key of Debian's jose."""

    def __init__(self, folder, alg, kid="k1"):
        self.alg = alg
        self.path = folder / f"{alg}-{kid}.jwk"
        self.jwks = folder / f"{alg}-{kid}.jwks"
        run("jose", "jwk", "gen", "-i", json.dumps({"alg": alg, "kid": kid}), "-o", self.path)
        public = json.loads(run("jose", "jwk", "pub", "-i", self.path))
        self.jwks.write_text(json.dumps({"keys": [public]}))

    def sign(self, payload, **header):
        protected = {"alg": self.alg, "kid": "k1", **header}
        return run("jose", "jws", "sig", "-I", "-", "-k", self.path, "-c",
                   "-s", json.dumps({"protected": protected}), input=json.dumps(payload)).strip()


def pyjwt_key(alg):
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    if alg.startswith("ES"):
        return ec.generate_private_key(ec.SECP256R1() if alg == "ES256" else ec.SECP384R1())
    return rsa.generate_private_key(65537, 2048)


def pem_of(key):
    from cryptography.hazmat.primitives import serialization as s
    return key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())


def write_jwks(path, key, alg, **members):
    algorithm = jwt.algorithms.get_default_algorithms()[alg]
    if hasattr(algorithm, "to_jwk") and not alg.startswith("ES"):
        public = json.loads(algorithm.to_jwk(key.public_key()))
        public.pop("key_ops", None)
    else:
        numbers = key.public_key().public_numbers()
        size = numbers.curve.key_size // 8
        public = {"kty": "EC", "crv": f"P-{numbers.curve.key_size}",
                  "x": jwt.utils.base64url_encode(numbers.x.to_bytes(size, "big")).decode(),
                  "y": jwt.utils.base64url_encode(numbers.y.to_bytes(size, "big")).decode()}
    path.write_text(json.dumps({"keys": [{**public, **members}]}))
    return path


@needs_jose
@pytest.mark.parametrize("alg", ALGS)
def test_tokens_of_jose_are_accepted_and_altered_ones_refused(tmp_path, alg):
    key = Jose(tmp_path, alg)
    token = key.sign(claims())
    assert verify(token, "--jwks", key.jwks) == "OK"
    head, body, signature = token.split(".")
    other = key.sign(claims(sub="bob")).split(".")[1]
    assert verify(f"{head}.{other}.{signature}", "--jwks", key.jwks) == "AUTH_BAD_SIGNATURE"
    assert verify(f"{head}.{body}.", "--jwks", key.jwks) == "AUTH_MALFORMED"
    assert verify(token + "=", "--jwks", key.jwks) == "AUTH_MALFORMED"
    stranger = Jose(tmp_path, alg, kid="k2")
    assert verify(token, "--jwks", stranger.jwks) == "AUTH_UNKNOWN_KEY"


@needs_jose
def test_each_reason_has_its_status(tmp_path):
    key = Jose(tmp_path, "ES256")
    now = int(time.time())
    for change, status in [
        ({"exp": now - 1}, "AUTH_EXPIRED"),
        ({"nbf": now + 100}, "AUTH_NOT_YET_VALID"),
        ({"iss": "https://issuer.example"}, "AUTH_WRONG_ISSUER"),
        ({"aud": ["a", "b"]}, "AUTH_WRONG_AUDIENCE"),
        ({"exp": str(now + 600)}, "AUTH_MALFORMED"),
        ({"sub": None}, "AUTH_MALFORMED"),
        ({"aud": ["a", AUDIENCE]}, "OK"),
    ]:
        assert verify(key.sign(claims(**change)), "--jwks", key.jwks) == status, change
    assert verify("", "--jwks", key.jwks) == "AUTH_MISSING"
    assert verify("A" * (1 << 20), "--jwks", key.jwks) == "AUTH_MALFORMED"


@needs_jose
@pytest.mark.parametrize("alg", ["HS384", "HS512", "PS384", "PS512", "ES512"])
def test_algorithms_outside_the_list_are_refused(tmp_path, alg):
    key = Jose(tmp_path, alg)
    token = key.sign(claims())
    usable = Jose(tmp_path, "ES256")
    assert verify(token, "--jwks", usable.jwks) == "AUTH_BAD_SIGNATURE"


@pytest.mark.parametrize("alg", ALGS)
def test_tokens_of_pyjwt_are_accepted(tmp_path, alg):
    key = pyjwt_key(alg)
    jwks = write_jwks(tmp_path / "jwks", key, alg, kid="k1")
    token = jwt.encode(claims(), key, alg, {"kid": "k1"})
    assert verify(token, "--jwks", jwks) == "OK"
    assert verify(token, "--jwks", jwks, "--alg", alg) == "OK"
    other = "ES384" if alg == "RS256" else "RS256"
    assert verify(token, "--jwks", jwks, "--alg", other) == "AUTH_BAD_SIGNATURE"
    assert verify(jwt.encode(claims(), pyjwt_key(alg), alg, {"kid": "k1"}), "--jwks",
                  jwks) == "AUTH_BAD_SIGNATURE"


def test_hs256_needs_the_secret_and_the_permission(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    os.chmod(secret, 0o600)
    token = jwt.encode(claims(), SECRET, "HS256")
    assert verify(token, "--secret", secret, "--alg", "HS256") == "OK"
    assert verify(token, "--secret", secret) == "AUTH_BAD_SIGNATURE"
    wrong = jwt.encode(claims(), SECRET + ".", "HS256")
    assert verify(wrong, "--secret", secret, "--alg", "HS256") == "AUTH_BAD_SIGNATURE"


def test_a_public_key_is_no_secret(tmp_path):
    """The classic confusion: HS256 keyed with the PEM that everybody can read."""
    import base64
    import hashlib
    import hmac
    from cryptography.hazmat.primitives import serialization as s
    key = pyjwt_key("RS256")
    jwks = write_jwks(tmp_path / "jwks", key, "RS256", kid="k1")
    pem = key.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)
    b64 = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")
    body = b64(b'{"alg":"HS256","kid":"k1"}') + b"." + b64(json.dumps(claims()).encode())
    token = body + b"." + b64(hmac.new(pem, body, hashlib.sha256).digest())
    assert verify(token.decode(), "--jwks", jwks, "--alg", "HS256",
                  "--alg", "RS256") == "AUTH_BAD_SIGNATURE"


@pytest.mark.parametrize("alg", ["RS256", "ES256", "ES384"])
def test_our_tokens_are_accepted_by_others(tmp_path, alg):
    key = pyjwt_key(alg)
    pem = tmp_path / "key.pem"
    pem.write_bytes(pem_of(key))
    token, jwks = run(CHECK, "issue", "--key", pem, "--issuer", ISSUER, "--audience", AUDIENCE,
                      "--sub", "alice").split()
    assert jwt.decode(token, key.public_key(), [alg], audience=AUDIENCE)["sub"] == "alice"
    public = json.loads(jwks)["keys"][0]
    assert jwt.get_unverified_header(token) == {"alg": alg, "kid": public["kid"], "typ": "JWT"}
    assert "d" not in public
    (tmp_path / "jwks").write_text(jwks)
    assert verify(token, "--jwks", tmp_path / "jwks") == "OK"
    if shutil.which("jose"):
        (tmp_path / "jwk").write_text(json.dumps(public))
        run("jose", "jws", "ver", "-i", "-", "-k", tmp_path / "jwk", "-O", "-", input=token)
        assert run("jose", "jwk", "thp", "-a", "S256", "-i", tmp_path / "jwk") == public["kid"]


@pytest.mark.parametrize("command", [
    ["openssl", "ecparam", "-name", "prime256v1", "-genkey"],
    ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout"],
    ["openssl", "genrsa", "-traditional", "2048"],
    ["openssl", "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"],
])
def test_keys_that_openssl_writes_can_sign(tmp_path, command):
    pem = tmp_path / "key.pem"
    pem.write_text(run(*command))
    token, jwks = run(CHECK, "issue", "--key", pem, "--issuer", ISSUER, "--audience", AUDIENCE,
                      "--sub", "alice").split()
    (tmp_path / "jwks").write_text(jwks)
    assert verify(token, "--jwks", tmp_path / "jwks") == "OK"


def test_a_key_with_a_password_is_refused_without_asking(tmp_path):
    pem = tmp_path / "key.pem"
    pem.write_text(run("openssl", "genpkey", "-algorithm", "RSA", "-aes256", "-pass", "pass:x"))
    result = subprocess.run([CHECK, "issue", "--key", pem, "--issuer", ISSUER, "--audience",
                             AUDIENCE, "--sub", "alice"], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=20)
    assert result.returncode == 2
    assert "password" in result.stderr
