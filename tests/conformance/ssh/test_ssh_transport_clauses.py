# SPDX-License-Identifier: MIT
"""RFC 4251, 4252, 4253, 8308, 8709, 8731, 5647 and OpenSSH's strict key exchange: each clause with
the bytes of a stranger. Most run against the engine alone and against the relay."""
import contextlib
import os
import struct
import zlib

import pytest
from cryptography.exceptions import InvalidSignature
from stranger import (AUTH_BANNER, AUTH_FAILURE, AUTH_REQUEST, AUTH_SUCCESS, CHACHA, DEBUG,
                      DISCONNECT, ECDH_INIT, ECDH_REPLY, EXT_INFO, FAILURE, GCM128, GCM256, GLOBAL,
                      IGNORE, KEXINIT, NEWKEYS, SERVICE_ACCEPT, SERVICE_REQUEST, STRICT_C, STRICT_S,
                      UNIMPLEMENTED, Ended, Reader, string, u32)

clause = pytest.mark.clause
PROTOCOL_ERROR, KEX_FAILED, MAC_ERROR, NO_SERVICE, NO_HOST_KEY = 2, 3, 5, 7, 9
NO_MORE_AUTH = 14
NOISE = [(IGNORE, string("x" * 100)), (DEBUG, b"\1", string("hello"), string("en")),
         (UNIMPLEMENTED, u32(0))]


@pytest.fixture
def peer(server):
    with server.connect() as made:
        yield made


# ---- RFC 4253 §4.2, §5: identification ----


@clause("4253:4.2-1", "4253:4.2-2", "4253:4.2-3", "4253:4.2-4", "4253:4.2-5")
def test_our_identification_is_one_line_as_the_rfc_has_it(peer):
    line = peer.read_line()
    assert line.endswith(b"\r\n") and len(line) <= 255 and b"\0" not in line
    version, software = line[:-2].split(b"-", 2)[1:]
    assert line.startswith(b"SSH-") and version == b"2.0"
    assert all(0x21 <= byte < 0x7f and byte != 0x2d for byte in software.split(b" ")[0])


@clause("4253:4.2-6")
def test_an_identification_may_have_comments_and_255_bytes(server):
    for version in (b"SSH-2.0-x with words", b"SSH-2.0-" + b"x" * 245, b"SSH-2.0-x"):
        with server.connect() as peer:
            peer.version = version
            peer.establish().ping()


@clause("4253:4.2-7", "4253:4.2-3", "4253:4.2-4", "4253:5-1")
@pytest.mark.parametrize("line", [b"SSH-2.0-" + b"x" * 246 + b"\r\n", b"SSH-2.0-a\0b\r\n",
                                  b"SSH-1.5-old\r\n", b"SSH-2.1-x\r\n", b"hello\r\nSSH-2.0-x\r\n",
                                  b"GET / HTTP/1.1\r\n\r\n"])
def test_what_is_no_identification_of_a_client_is_refused(peer, line):
    peer.read_line()
    peer.raw(line)
    assert peer.expect_end() is None  # nothing is said to who may not speak SSH


@clause("4253:4.2-8", "4253:4.2-9")
def test_a_server_may_say_something_before_its_identification(client):
    peer, _ = client()
    peer.raw(b"Welcome.\r\nlines of any kind\n" + b"x" * 600 + b"\r\n")
    peer.hello()
    peer.follow()
    peer.authenticate()


@clause("4253:4.2-9")
def test_endless_lines_before_an_identification_are_refused(client):
    peer, program = client()
    peer.read_line()
    peer.take_offer()
    with contextlib.suppress(Ended):
        for _ in range(1000):
            peer.raw(b"x" * 99 + b"\r\n")
    assert peer.expect_end() is None
    program.wait("failed SSH_LIMIT")


@clause("4253:5.1-1")
def test_a_client_takes_1_99_for_2_0(client):
    peer, _ = client()
    peer.version = b"SSH-1.99-stranger"
    peer.hello()
    peer.follow()
    peer.authenticate()


# ---- RFC 4253 §6: packets ----


@clause("4253:6-1", "4253:6-2", "4253:6-3")
@pytest.mark.parametrize("payload", [0, 1, 7, 8, 100, 1000])
def test_padding_of_any_kind_that_is_allowed_is_taken(server, payload):
    """What comes back is checked by the stranger for every packet."""
    with server.connect() as peer:
        peer.establish()
        for padding in range(4, 256):
            if (1 + 5 + payload + padding) % 16 == 0:
                peer.raw(peer.packet(bytes([IGNORE]) + string(b"x" * payload), padding))
        peer.ping()


@clause("4253:6-1", "4253:6-2", "4253:6-3")
@pytest.mark.parametrize("packet", [
    u32(12) + b"\3" + bytes([KEXINIT]) + bytes(10),   # three bytes of padding
    u32(12) + b"\x0b" + bytes(11),                    # padding and nothing else
    u32(12) + b"\x0c" + bytes(11),                    # more padding than packet
    u32(12) + b"\xff" + bytes(11),
    u32(11) + b"\4" + bytes(10),                      # not a multiple of eight
    u32(4) + b"\4" + bytes(3),                        # under 16 bytes
    u32(0), u32(1) + b"\0",
])
def test_packets_of_a_wrong_shape_are_refused(peer, packet):
    peer.hello()
    peer.raw(packet)
    peer.expect_end(PROTOCOL_ERROR)


@clause("4253:6.1-1")
@pytest.mark.parametrize("cipher", [GCM256, CHACHA])
def test_packets_of_32768_bytes_of_payload_are_taken(server, cipher):
    with server.connect() as peer:
        peer.establish(cipher=cipher)
        for size in (32768 - 5, 34900 - 5):
            peer.raw(peer.packet(bytes([IGNORE]) + string(b"x" * size)))
        peer.ping()


@clause("4253:6.1-2")
@pytest.mark.parametrize("length", [35004, 65536, 1 << 24, (1 << 31) - 4, (1 << 32) - 4])
def test_larger_packets_are_refused_before_they_are_there(peer, length):
    peer.hello()
    peer.raw(struct.pack(">I", length) + bytes(12))
    peer.expect_end(PROTOCOL_ERROR)


@clause("4253:6.2-1", "4253:6.2-2")
@pytest.mark.parametrize("to_server, to_client", [("none", "none"), ("zlib@openssh.com,none", "none"),
                                                  ("none", "zlib@openssh.com")])
def test_compression_is_chosen_for_each_direction_alone(special, to_server, to_client):
    with special("--compress").connect() as peer:
        peer.hello()
        chosen = peer.exchange(compression_to_server=to_server, compression_to_client=to_client)
        assert chosen["compression_to_server"] == to_server.split(",")[0]
        assert chosen["compression_to_client"] == to_client
        peer.authenticate()  # not compressed: that begins behind it
        request = bytes([GLOBAL]) + string("x@example.com") + b"\1"
        if to_server != "none":
            deflate = zlib.compressobj()
            request = deflate.compress(request) + deflate.flush(zlib.Z_PARTIAL_FLUSH)
        peer.raw(peer.packet(request))
        answer = peer.read() if to_client == "none" else None
        if answer is None:
            head = peer.take(4)
            packet = peer.opening.open(head + peer.take(struct.unpack(">I", head)[0] + 16), 0)
            inflated = zlib.decompressobj().decompress(packet[5:len(packet) - packet[4]])
            answer = inflated
        assert answer == bytes([FAILURE])


@clause("4253:6.2-3")
def test_compression_that_was_not_asked_for_is_not_offered(peer):
    peer.hello()
    peer.take_offer()
    lists = peer.read_init(peer.peer_init)
    assert lists["compression_to_server"] == lists["compression_to_client"] == "none"


@clause("4253:6.3-1", "4253:6.3-2")
@pytest.mark.parametrize("to_server, to_client", [(GCM256, CHACHA), (CHACHA, GCM128),
                                                  (GCM128, GCM256), (CHACHA, CHACHA)])
def test_each_direction_has_its_own_cipher(server, to_server, to_client):
    with server.connect() as peer:
        peer.establish(cipher_to_server=to_server, cipher_to_client=to_client).ping()


@clause("4253:6.3-3")
def test_no_weak_cipher_is_offered(peer):
    peer.hello()
    peer.take_offer()
    lists = peer.read_init(peer.peer_init)
    assert lists["cipher_to_server"] == f"{GCM256},{GCM128},{CHACHA}" == lists["cipher_to_client"]
    assert lists["host_key"] == "ssh-ed25519"


@clause("4253:6.4-1", "openssh-strict:1-3")
@pytest.mark.parametrize("strict", [False, True])
def test_sequence_numbers_go_on_over_a_key_exchange_unless_it_is_strict(server, strict):
    """With chacha20-poly1305 the sequence number is the nonce: a wrong one would not open."""
    with server.connect() as peer:
        peer.establish(cipher=CHACHA, strict=strict)
        assert peer.is_strict == strict
        for _ in range(3):
            before = peer.sent, peer.received
            peer.ping()
            peer.exchange(cipher=CHACHA, strict=strict)
            assert (peer.sent == peer.received == 0) if strict else \
                (peer.sent > before[0] and peer.received > before[1])
        peer.ping()


@clause("4253:6.4-2", "5647:7.3-1", "openssh-chacha:1-3")
@pytest.mark.parametrize("cipher", [GCM256, GCM128, CHACHA])
@pytest.mark.parametrize("at", [4, 5, -1, -16, -17])
def test_a_changed_byte_ends_the_session(server, cipher, at):
    with server.connect() as peer:
        peer.establish(cipher=cipher)
        data = bytearray(peer.pack(GLOBAL, string("x@example.com"), b"\1"))
        data[at] ^= 1
        peer.raw(bytes(data))
        peer.expect_end(MAC_ERROR)


@clause("5647:7.2-1")
def test_the_length_field_is_authenticated(server):
    with server.connect() as peer:
        peer.establish(cipher=GCM256)
        data = bytearray(peer.pack(GLOBAL, string("x@example.com"), b"\1"))
        data[3] ^= 0x10  # still a multiple of sixteen, 16 bytes fewer or more
        peer.raw(bytes(data) + bytes(32))
        peer.expect_end(MAC_ERROR)


@clause("5647:7.1-1", "openssh-chacha:1-1")
@pytest.mark.parametrize("cipher", [GCM256, CHACHA])
def test_a_packet_said_twice_is_refused(server, cipher):
    with server.connect() as peer:
        peer.establish(cipher=cipher)
        data = peer.pack(IGNORE, string("x"))
        peer.raw(data + data)
        peer.expect_end()


# ---- RFC 4253 §7, §9: key exchange ----


@clause("4253:7-1")
@pytest.mark.parametrize("kex, host_key", [
    ("ecdh-sha2-nistp256,curve25519-sha256", "ssh-ed25519"),
    ("curve25519-sha256", "ssh-rsa,ssh-ed25519")])
def test_a_wrong_guess_is_ignored(server, kex, host_key):
    with server.connect() as peer:
        peer.hello()
        peer.offer(guess=True, kex=kex, host_key=host_key)
        peer.send(ECDH_INIT, string(b"\4" * 65))
        peer.take_offer()
        chosen = peer.agree()
        peer.swap_shares()
        peer.new_keys(chosen)
        peer.authenticate()
        peer.ping()


@clause("4253:7-2")
def test_a_right_guess_is_taken(server):
    with server.connect() as peer:
        peer.hello()
        peer.offer(guess=True)
        peer.send(ECDH_INIT, string(peer.share()))
        peer.take_offer()
        chosen = peer.agree()
        reply = peer.expect(ECDH_REPLY)
        blob, other, signature = reply.string(), reply.string(), reply.string()
        peer.finish(blob, peer.public, other)
        peer.verify(blob, signature)
        peer.new_keys(chosen)
        peer.authenticate()


@clause("4253:7.1-1", "4253:7.1-2", "4251:5-2", "4251:6-2", "4253:7.1-9", "openssh-strict:2-1")
def test_our_offers_are_as_the_rfc_has_them(server):
    cookies = set()
    for _ in range(2):
        with server.connect() as peer:
            peer.hello()
            peer.exchange()
            cookies.add(peer.peer_init[1:17])
            first = peer.read_init(peer.peer_init)
            peer.authenticate()
            peer.exchange()
            cookies.add(peer.peer_init[1:17])
            later = peer.read_init(peer.peer_init)
    assert len(cookies) == 4
    for lists in (first, later):
        assert lists["guess"] == 0 and lists["reserved"] == 0
        for name, value in lists.items():
            if isinstance(value, str) and "language" not in name:
                names = value.split(",")
                assert all(0 < len(each) <= 64 and each.isascii() for each in names)
                assert len(set(names)) == len(names)
    assert STRICT_S in first["kex"].split(",") and STRICT_C not in first["kex"]
    assert "kex-strict" not in later["kex"]


@clause("4253:7.1-3")
@pytest.mark.parametrize("ours, chosen", [
    (f"aes256-ctr,{CHACHA},{GCM256}", CHACHA), (f"{GCM128},{GCM256}", GCM128),
    (f"3des-cbc,none,{GCM256},{CHACHA}", GCM256)])
def test_the_first_name_of_the_client_that_the_server_has_is_chosen(server, ours, chosen):
    with server.connect() as peer:
        peer.hello()
        assert peer.exchange(cipher=ours)["cipher_to_server"] == chosen
        peer.authenticate()
        peer.ping()


@clause("4253:7.1-4")
@pytest.mark.parametrize("lists", [
    {"kex": "diffie-hellman-group14-sha256"}, {"kex": ""}, {"kex": STRICT_C},
    {"kex": f"{STRICT_S},{STRICT_C}"}, {"host_key": "ssh-rsa"}, {"cipher_to_server": "aes256-ctr"},
    {"cipher_to_client": "none"}, {"compression_to_client": "zlib"}, {"cipher_to_client": ""}])
def test_nothing_in_common_ends_it(peer, lists):
    peer.hello()
    peer.offer(strict=False, **lists)
    peer.expect_end(KEX_FAILED)


@clause("4253:7.1-5")
def test_no_mac_in_common_matters_not_with_aead(server):
    with server.connect() as peer:
        peer.establish(mac_to_server="hmac-md5", mac_to_client="").ping()


@clause("4253:7.1-6")
@pytest.mark.parametrize("starts", ["they", "we"])
def test_nothing_but_the_key_exchange_goes_out_during_it(special, starts):
    """Data under way while keys change: the stranger looks at every number that comes."""
    with special("--rekey-bytes", 4096).connect() as peer:
        peer.establish()
        theirs, window, _ = peer.open()
        data = os.urandom(5000)
        for _ in range(5):
            peer.send(94, u32(theirs), string(data))
            if starts == "they":
                peer.offer()
            got = b""
            while not peer.is_peer_in_kex:
                payload = peer.read()
                if payload[0] == 94:
                    got += Reader(payload[5:]).string()
                elif payload[0] == KEXINIT:
                    peer.peer_init = payload
            if starts == "we":
                peer.offer()
            chosen = peer.agree()
            peer.swap_shares()
            peer.new_keys(chosen)
            peer.send(DEBUG, b"\0", string(""), string(""))
            while len(got) < len(data):
                payload = peer.read()
                if payload[0] == 94:
                    got += Reader(payload[5:]).string()
                elif payload[0] == KEXINIT:
                    peer.peer_init = payload
                    peer.offer()
                    chosen = peer.agree()
                    peer.swap_shares()
                    peer.new_keys(chosen)
            assert got == data


@clause("4253:7.1-7")
def test_a_second_offer_is_refused(peer):
    peer.hello()
    peer.offer()
    peer.offer()
    peer.take_offer()
    peer.expect_end(PROTOCOL_ERROR)


@clause("4253:7.1-8", "4253:7.3-2")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("message", [(SERVICE_REQUEST, string("ssh-userauth")),
                                     (AUTH_REQUEST, string("a"), string("ssh-connection"),
                                      string("none")),
                                     (GLOBAL, string("x"), b"\1"), (NEWKEYS,), (ECDH_REPLY,),
                                     (EXT_INFO, u32(0)), (192,), (49,)])
@pytest.mark.parametrize("when", ["before", "behind"])
def test_other_messages_in_the_first_exchange_end_it(peer, message, when, strict):
    peer.hello()
    if when == "behind":
        peer.offer(strict=strict)
    peer.send(*message)
    if when == "before":
        peer.offer(strict=strict)
    peer.expect_end(PROTOCOL_ERROR)


@clause("4253:7.1-10")
def test_the_reserved_number_is_for_later(server):
    with server.connect() as peer:
        peer.establish(reserved=0x12345678).ping()


@clause("4251:5-4", "4251:5-5", "4251:5-6")
@pytest.mark.parametrize("names", ["curve25519-sha256,,x", ",curve25519-sha256", "a b",
                                   "curve25519-sha256,\x7f", "curve25519-sha256,caf\xe9", "\0"])
def test_name_lists_that_are_none_are_refused(peer, names):
    peer.hello()
    peer.offer(kex=names, strict=False)
    peer.expect_end(PROTOCOL_ERROR)


@clause("4253:7.1-1")
@pytest.mark.parametrize("cut", [1, 4, 5, 30])
def test_an_offer_that_is_cut_or_too_long_is_refused(server, cut):
    for change in (lambda init: init[:-cut], lambda init: init + bytes(cut)):
        with server.connect() as peer:
            peer.hello()
            peer.raw(peer.packet(change(peer.init())))
            peer.expect_end(PROTOCOL_ERROR)


@clause("4253:7.3-1")
def test_newkeys_with_more_in_it_is_refused(peer):
    peer.hello()
    peer.offer()
    peer.take_offer()
    peer.agree()
    peer.swap_shares()
    peer.send(NEWKEYS, b"\0")
    peer.expect_end(PROTOCOL_ERROR)


@clause("4253:7.2-1", "4253:9-1", "4253:9-2", "4253:9-4")
@pytest.mark.parametrize("cipher", [GCM256, CHACHA])
def test_the_session_keeps_its_id_over_key_exchanges(server, cipher):
    """The keys of later exchanges come of the first exchange's hash; another id would not open."""
    with server.connect() as peer:
        peer.establish(cipher=cipher)
        first, hashes = peer.session_id, {peer.h}
        for _ in range(4):
            peer.ping()
            peer.exchange(cipher=cipher)
            hashes.add(peer.h)
        assert peer.session_id == first and len(hashes) == 5
        peer.ping()


@clause("4253:9-3")
def test_ciphers_may_change_with_the_keys(server):
    with server.connect() as peer:
        peer.establish(cipher=GCM256)
        for cipher in (CHACHA, GCM128, GCM256):
            peer.exchange(cipher=cipher)
            peer.ping()


@clause("4253:9-5", "4253:9-4")
def test_keys_change_by_themselves_after_so_many_bytes(special):
    with special("--rekey-bytes", 8192).connect() as peer:
        peer.establish()
        for _ in range(3):
            while True:
                peer.send(IGNORE, string(b"x" * 1000))
                peer.send(GLOBAL, string("x@example.com"), b"\1")
                payload = peer.read()
                if payload[0] == KEXINIT:
                    break
            peer.peer_init = payload
            peer.offer()
            chosen = peer.agree()
            peer.swap_shares()
            peer.new_keys(chosen)
            peer.expect(FAILURE)
        assert peer.kex_count == 4


# ---- RFC 8731: the shares ----


@clause("8731:3-1", "8731:3-2")
@pytest.mark.parametrize("share", [b"", b"\1" * 31, b"\1" * 33, bytes(32), b"\1" + bytes(31),
                                   b"\xec" + b"\xff" * 30 + b"\x7f", b"\4" * 65])
def test_bad_shares_end_it(peer, share):
    peer.hello()
    peer.offer()
    peer.take_offer()
    peer.send(ECDH_INIT, string(share))
    peer.expect_end(KEX_FAILED)


@clause("8731:3-1", "8731:3-2")
@pytest.mark.parametrize("share", [b"\1" * 31, b"\1" * 33, bytes(32), b"\1" + bytes(31)])
def test_bad_shares_of_a_server_end_it(client, share):
    peer, program = client()
    peer.hello()
    peer.take_offer()
    peer.offer()
    other = peer.expect(ECDH_INIT).string()
    assert len(other) == 32
    peer.share()
    peer.finish(peer.host_blob(), other, peer.public)
    peer.send(ECDH_REPLY, string(peer.host_blob()), string(share), string(peer.sign()))
    peer.expect_end(KEX_FAILED)
    program.wait("failed SSH_KEX_FAILED")


@clause("8731:3-3", "8731:3.1-1", "8731:3.1-2", "4253:8-1")
@pytest.mark.parametrize("name", ["curve25519-sha256", "curve25519-sha256@libssh.org"])
def test_both_names_mean_the_same_method(server, name):
    """Thirty times, so that secrets with a high first bit and with a zero byte are among them."""
    for _ in range(30):
        with server.connect() as peer:
            peer.hello()
            peer.exchange(kex=name)
    with server.connect() as peer:
        peer.establish(kex=name).ping()


# ---- RFC 8709, RFC 4253 §8: the host key ----


@clause("8709:4-1", "8709:6-1", "4253:8-1")
def test_our_host_key_and_signature_have_the_form_of_the_rfc(peer):
    peer.hello()
    peer.exchange()  # which verifies
    assert len(peer.blob) == 51 and peer.blob.startswith(string("ssh-ed25519") + u32(32))
    first = peer.blob
    peer.authenticate()
    peer.exchange()
    assert peer.blob == first


def reply_with(peer, blob=None, signature=None):
    peer.hello()
    peer.take_offer()
    peer.offer()
    peer.agree()
    other = peer.expect(ECDH_INIT).string()
    public = peer.share()
    peer.finish(blob or peer.host_blob(), other, public)
    peer.send(ECDH_REPLY, string(blob or peer.host_blob()), string(public),
              string(signature(peer) if signature else peer.sign()))


def bad_signature(change):
    return lambda peer: change(peer.sign())


@clause("4253:8-2", "8709:6-2", "8709:8-1")
@pytest.mark.parametrize("change", [
    lambda s: s[:-1] + bytes([s[-1] ^ 1]), lambda s: s[:19] + bytes([s[19] ^ 1]) + s[20:],
    lambda s: s[:-1], lambda s: s + b"\0", lambda s: string("ssh-rsa") + s[15:],
    lambda s: string("ssh-ed25519") + string(s[19:82]),
    lambda s: string("ssh-ed25519") + string(s[19:] + b"\0"), lambda s: b"", lambda s: bytes(83)])
def test_a_client_takes_no_other_signature(client, change):
    peer, program = client()
    reply_with(peer, signature=bad_signature(change))
    peer.expect_end(KEX_FAILED)
    program.wait("failed SSH_KEX_FAILED")
    assert not program.find("host key")


@clause("8709:4-2", "8709:8-1")
@pytest.mark.parametrize("blob", [
    lambda b: b[:-1], lambda b: b + b"\0", lambda b: string("ssh-rsa") + b[15:],
    lambda b: string("ssh-ed25519") + string(b[19:] + b"\0"), lambda b: string("ssh-ed25519")])
def test_a_client_takes_no_other_form_of_host_key(client, blob):
    peer, program = client()
    reply_with(peer, blob=blob(peer.host_blob()))
    peer.expect_end(KEX_FAILED)
    program.wait("failed SSH_KEX_FAILED")


@clause("4253:8-2")
def test_a_signature_over_something_else_is_refused(client):
    peer, program = client()

    def sign(peer):
        peer.h = bytes(32)
        return peer.sign()

    reply_with(peer, signature=sign)
    peer.expect_end(KEX_FAILED)
    program.wait("failed SSH_KEX_FAILED")


@clause("4253:9-6")
def test_a_client_takes_no_other_host_key_in_the_same_session(client):
    peer, program = client("--forward", "home:80")
    peer.hello()
    peer.follow()
    peer.authenticate()
    peer.expect(GLOBAL)
    first = peer.host_key
    peer.exchange()
    peer.host_key = type(first).generate()
    peer.offer()
    peer.take_offer()
    peer.agree()
    peer.swap_shares()
    peer.expect_end(NO_HOST_KEY)
    program.wait("failed HOST_KEY")


def test_the_stranger_itself_notices_a_wrong_signature(alone):
    with alone.connect() as peer:
        peer.hello()
        peer.version = b"SSH-2.0-somebody_else"
        with pytest.raises(InvalidSignature):
            peer.exchange()


# ---- strict key exchange ----


@clause("openssh-strict:1-1")
@pytest.mark.parametrize("message", NOISE)
def test_a_strict_exchange_begins_with_its_offer(peer, message):
    """The injection of CVE-2023-48795."""
    peer.hello()
    peer.send(*message)
    peer.offer()
    peer.expect_end(PROTOCOL_ERROR)


@clause("openssh-strict:1-1")
@pytest.mark.parametrize("message", NOISE)
def test_a_strict_exchange_with_a_client_begins_with_its_offer(client, message):
    peer, program = client()
    peer.hello()
    peer.send(*message)
    peer.offer()
    peer.take_offer()
    peer.expect_end(PROTOCOL_ERROR)
    program.wait("failed SSH_PROTOCOL")


@clause("openssh-strict:1-2")
@pytest.mark.parametrize("message", NOISE)
@pytest.mark.parametrize("when", ["offer", "shares"])
def test_nothing_optional_comes_in_a_strict_exchange(peer, message, when):
    peer.hello()
    peer.offer()
    peer.take_offer()
    if when == "shares":
        peer.agree()
        peer.swap_shares()
    peer.send(*message)
    peer.expect_end(PROTOCOL_ERROR)


@clause("openssh-strict:1-2")
@pytest.mark.parametrize("when", ["offer", "shares"])
def test_nothing_optional_comes_in_a_strict_exchange_with_a_client(client, when):
    peer, program = client()
    peer.hello()
    peer.take_offer()
    peer.offer()
    peer.agree()
    if when == "shares":
        peer.swap_shares()
    peer.send(IGNORE, string("x"))
    peer.expect_end(PROTOCOL_ERROR)
    program.wait("failed SSH_PROTOCOL")


@clause("openssh-strict:1-4", "4253:11.2-1", "4253:11.3-1")
@pytest.mark.parametrize("message", NOISE)
def test_later_exchanges_and_those_without_strictness_bear_them(server, message):
    with server.connect() as peer:
        peer.hello()
        peer.send(*message)
        peer.offer(strict=False)
        peer.take_offer()
        peer.send(*message)
        chosen = peer.agree()
        peer.swap_shares()
        peer.send(*message)
        peer.new_keys(chosen)
        peer.authenticate()
        peer.send(*message)
        peer.offer()
        peer.send(*message)
        peer.take_offer()
        chosen = peer.agree()
        peer.swap_shares()
        peer.send(*message)
        peer.new_keys(chosen)
        peer.ping()
    with server.connect() as peer:  # strict at first, and later not
        peer.establish()
        peer.send(*message)
        peer.offer()
        peer.send(*message)
        peer.take_offer()
        chosen = peer.agree()
        peer.swap_shares()
        peer.new_keys(chosen)
        peer.ping()


@clause("openssh-strict:2-2")
def test_the_mark_in_a_later_offer_means_nothing(server):
    with server.connect() as peer:
        peer.establish(strict=False, cipher=CHACHA)
        peer.exchange(strict=True, cipher=CHACHA)
        assert not peer.is_strict
        peer.ping()


# ---- RFC 8308 ----


@clause("8308:2.4-1", "8308:2.5-1")
def test_extensions_in_their_place_are_ignored(server):
    with server.connect() as peer:
        peer.hello()
        peer.exchange(kex=f"curve25519-sha256,ext-info-c,{STRICT_C}", strict=False)
        peer.send(EXT_INFO, u32(2), string("x@example.com"), string(b"\0\xff"),
                  string("server-sig-algs"), string("ssh-rsa"))
        peer.authenticate()
        peer.ping()


@clause("8308:2.4-1", "8308:2.5-1")
def test_extensions_of_a_server_are_ignored(client):
    peer, program = client()
    peer.hello()
    peer.follow()
    extensions = EXT_INFO, u32(1), string("server-sig-algs"), string("ssh-ed25519")
    peer.send(*extensions)
    assert peer.expect(SERVICE_REQUEST).string() == b"ssh-userauth"
    peer.send(SERVICE_ACCEPT, string("ssh-userauth"))
    peer.expect(AUTH_REQUEST)
    peer.send(*extensions)
    peer.send(AUTH_SUCCESS)
    program.wait("established")


@clause("8308:2.2-1", "8308:2.4-2")
def test_no_extensions_are_offered_or_sent(server):
    with server.connect() as peer:
        peer.hello()
        peer.exchange(kex=f"curve25519-sha256,ext-info-c,{STRICT_C}", strict=False)
        assert "ext-info" not in peer.read_init(peer.peer_init)["kex"]
        peer.authenticate()
        peer.ping()
        assert EXT_INFO not in peer.seen


# ---- RFC 4253 §10, §11 ----


@clause("4253:10-1", "4253:10-2")
@pytest.mark.parametrize("name", ["ssh-connection", "x", "", "ssh-userauth "])
def test_an_unknown_service_ends_it(peer, name):
    peer.hello()
    peer.exchange()
    peer.send(SERVICE_REQUEST, string(name))
    peer.expect_end(NO_SERVICE)


@clause("4253:10-3")
def test_a_client_waits_for_the_service_that_it_asked_for(client):
    peer, program = client()
    peer.hello()
    peer.follow()
    peer.send(SERVICE_ACCEPT, string("ssh-connection"))
    peer.expect_end(PROTOCOL_ERROR)
    program.wait("failed SSH_PROTOCOL")


@clause("4253:11.1-1", "4253:11.1-2")
def test_nothing_is_taken_or_said_behind_a_disconnect(server):
    with server.connect() as peer:
        peer.establish()
        peer.raw(peer.pack(DISCONNECT, u32(11), string("bye"), string(""))
                 + peer.pack(GLOBAL, string("x@example.com"), b"\1"))
        assert peer.expect_end() is None


@clause("4253:11.2-1", "4253:11.3-1", "4253:11.4-2")
@pytest.mark.parametrize("message", [*NOISE, (IGNORE, string("")), (IGNORE, string(b"x" * 30000)),
                                     (DEBUG, b"\0", string(b"\xff\0"), string(""))])
def test_messages_without_content_are_ignored_at_any_time(server, message):
    with server.connect() as peer:
        peer.hello()
        peer.exchange()
        peer.send(*message)
        peer.authenticate()
        peer.send(*message)
        peer.ping()


@clause("4253:11.4-1")
@pytest.mark.parametrize("number", [8, 19, 79 + 4, 101, 127, 128, 192, 255])
def test_unknown_messages_are_answered_in_order(server, number):
    with server.connect() as peer:
        peer.establish()
        for _ in range(3):
            sequence = peer.sent
            peer.send(number, b"whatever")
            peer.send(GLOBAL, string("x@example.com"), b"\1")
            assert peer.expect(UNIMPLEMENTED).u32() == sequence
            peer.expect(FAILURE)


@clause("4253:11.4-1", "4253:7.1-6")
def test_unknown_messages_are_answered_while_the_other_side_changes_keys(special):
    """It has sent its KEXINIT, and ours is not there yet."""
    with special("--rekey-bytes", 4096).connect() as peer:
        peer.establish()
        peer.raw(b"".join(peer.pack(IGNORE, string(b"x" * 1000)) for _ in range(5)))
        peer.take_offer()
        sequence = peer.sent
        peer.send(192)
        assert peer.expect(UNIMPLEMENTED).u32() == sequence
        peer.offer()
        chosen = peer.agree()
        peer.swap_shares()
        peer.new_keys(chosen)
        peer.ping()


# ---- RFC 4252 ----


def ask(peer, user="alice", service="ssh-connection", method="none", more=b""):
    peer.send(AUTH_REQUEST, string(user), string(service), string(method), more)


@pytest.fixture
def asked(peer):
    peer.hello()
    peer.exchange()
    peer.send(SERVICE_REQUEST, string("ssh-userauth"))
    peer.expect(SERVICE_ACCEPT)
    return peer


def expect_auth_failure(peer):
    reader = peer.expect(AUTH_FAILURE)
    methods, partial = reader.string(), reader.u8()
    reader.end()
    return methods, partial


@clause("4252:5.2-1", "4252:5.1-2")
@pytest.mark.parametrize("user", ["alice", "", "../../etc/passwd", "x" * 255, "\u65e5\u672c", "a\0b"])
def test_none_is_accepted_for_any_name(asked, user):
    ask(asked, user.encode())
    asked.expect(AUTH_SUCCESS).end()
    asked.ping()
    assert asked.seen.count(AUTH_SUCCESS) == 1


@clause("4252:5.1-1", "4252:5.1-4", "4252:5.2-2", "4251:5-2")
@pytest.mark.parametrize("method, more", [("password", b"\0" + string("secret")), ("none", b"x"),
                                          ("publickey", b"\0" + string("ssh-rsa") + string("x")),
                                          ("hostbased", b""), ("", b""), ("none\0", b"")])
def test_other_methods_fail_and_none_is_named(asked, method, more):
    ask(asked, method=method, more=more)
    assert expect_auth_failure(asked) == (b"", 0)
    ask(asked)
    asked.expect(AUTH_SUCCESS)


@clause("4252:5-1", "4252:5-2")
@pytest.mark.parametrize("service", ["ssh-userauth", "x", "", "ssh-connection\0"])
def test_other_services_are_not_granted(asked, service):
    ask(asked, service=service)
    assert expect_auth_failure(asked)[1] == 0
    ask(asked)
    asked.expect(AUTH_SUCCESS)


@clause("4252:4-1")
def test_too_many_tries_end_it(asked):
    with pytest.raises(AssertionError):
        for count in range(100):
            ask(asked, method="password", more=b"\0" + string("x"))
            expect_auth_failure(asked)
    assert count < 20 and asked.seen[-1] == DISCONNECT


@clause("4252:5.1-3")
def test_requests_behind_the_success_are_ignored(asked):
    ask(asked)
    asked.expect(AUTH_SUCCESS)
    for _ in range(3):
        ask(asked)
        ask(asked, method="password", more=b"\0" + string("x"))
    asked.ping()


@clause("4252:5.3-1")
def test_what_follows_the_granted_request_is_for_the_service(asked):
    asked.raw(asked.pack(AUTH_REQUEST, string("a"), string("ssh-connection"), string("none"))
              + asked.pack(GLOBAL, string("x@example.com"), b"\1"))
    asked.expect(AUTH_SUCCESS)
    asked.expect(FAILURE)


@clause("4252:6-1")
@pytest.mark.parametrize("message", [(GLOBAL, string("x"), b"\1"), (90, string("session"), u32(1, 1, 1)),
                                     (94, u32(0), string("x")), (127,)])
def test_connection_messages_before_authentication_end_it(asked, message):
    asked.send(*message)
    asked.expect_end(PROTOCOL_ERROR)


@clause("4252:6-2")
@pytest.mark.parametrize("message", [(AUTH_SUCCESS,), (AUTH_FAILURE, string(""), b"\0"),
                                     (AUTH_BANNER, string("x"), string("")), (60,), (79,)])
def test_messages_of_a_server_are_refused_from_a_client(asked, message):
    asked.send(*message)
    asked.expect_end(PROTOCOL_ERROR)


@clause("4252:5-3")
def test_authentication_needs_its_service(peer):
    peer.hello()
    peer.exchange()
    ask(peer)
    peer.expect_end(PROTOCOL_ERROR)


@clause("4252:5-4")
@pytest.mark.parametrize("cut", [1, 3, 10, 25])
def test_a_request_that_is_cut_is_refused(asked, cut):
    body = string("alice") + string("ssh-connection") + string("none")
    asked.send(AUTH_REQUEST, body[:-cut])
    asked.expect_end(PROTOCOL_ERROR)


@clause("4252:5.4-1")
def test_a_client_bears_banners(client):
    peer, program = client()
    peer.hello()
    peer.follow()
    peer.expect(SERVICE_REQUEST)
    peer.send(AUTH_BANNER, string("early"), string(""))
    peer.send(SERVICE_ACCEPT, string("ssh-userauth"))
    peer.send(AUTH_BANNER, string("\x1b[2J"), string("en"))
    peer.send(AUTH_SUCCESS)
    program.wait("established")
    assert not program.find("\x1b")


@clause("4252:5.1-5")
def test_a_client_that_is_refused_goes(client):
    peer, program = client()
    peer.hello()
    peer.follow()
    peer.send(SERVICE_ACCEPT, string("ssh-userauth"))
    peer.send(AUTH_FAILURE, string("publickey,password"), b"\0")
    peer.expect_end(NO_MORE_AUTH)
    program.wait("failed AUTH_FAILED")


@clause("4252:5.1-6")
def test_a_client_believes_no_success_before_the_service(client):
    peer, program = client()
    peer.hello()
    peer.follow()
    peer.send(AUTH_SUCCESS)
    peer.expect_end(PROTOCOL_ERROR)
    assert not program.find("established")


# ---- Terrapin: without strict key exchange the protocol's order is what is left ----


@clause("openssh-strict:3-1")
@pytest.mark.parametrize("dropped", [1, 2])
def test_a_truncated_beginning_is_noticed_even_without_strictness(server, dropped):
    """Ignored messages before NEWKEYS shift the numbers, then as many of the first packets behind
    it are dropped: chacha20-poly1305 cannot tell (CVE-2023-48795). But the first two are the
    request for the service and for authentication, which the server does not do without."""
    with server.connect() as peer:
        peer.hello()
        for _ in range(dropped):
            peer.sent -= 1  # the man in the middle sends it; the client has not counted it
            peer.raw(peer.pack(IGNORE, string("x")))
        peer.sent %= 1 << 32
        peer.offer(strict=False, cipher=CHACHA)
        peer.take_offer()
        chosen = peer.agree()
        peer.swap_shares()
        peer.new_keys(chosen)
        messages = [(SERVICE_REQUEST, string("ssh-userauth")),
                    (AUTH_REQUEST, string("a"), string("ssh-connection"), string("none")),
                    (GLOBAL, string("x@example.com"), b"\1")]
        packets = [peer.pack(*message) for message in messages]
        peer.raw(b"".join(packets[dropped:]))
        peer.expect_end(PROTOCOL_ERROR)


@clause("openssh-strict:3-1")
@pytest.mark.parametrize("dropped", [1, 2])
def test_a_truncated_beginning_is_noticed_by_a_client(client, dropped):
    peer, program = client()
    peer.hello()
    for _ in range(dropped):
        peer.sent -= 1
        peer.raw(peer.pack(IGNORE, string("x")))
    peer.sent %= 1 << 32
    peer.take_offer()
    peer.offer(strict=False, cipher=CHACHA)
    chosen = peer.agree()
    peer.swap_shares()
    peer.new_keys(chosen)
    messages = [(SERVICE_ACCEPT, string("ssh-userauth")), (AUTH_SUCCESS,),
                (GLOBAL, string("hostkeys-00@openssh.com"), b"\0")]
    packets = [peer.pack(*message) for message in messages]
    peer.raw(b"".join(packets[dropped:]))
    peer.expect_end(PROTOCOL_ERROR)
    assert not program.find("established")
