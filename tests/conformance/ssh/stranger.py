# SPDX-License-Identifier: MIT
"""An SSH peer of our own making that can say anything: each step of RFC 4253 apart, every byte in
the test's hand. Shares nothing with src/: the cryptography is python3-cryptography's.

    with Stranger.connect(port) as peer:      # a client; Stranger.accept(listener) is a server
        peer.hello()
        peer.exchange()
        peer.authenticate()
        peer.send(80, string("x"), b"\\1")
        peer.expect(82)

Every packet that comes is held to RFC 4253 §6 (blocks, padding, size) and §7.1 (what may be sent
during a key exchange), whatever the test is about.
"""
import hashlib
import os
import socket
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.poly1305 import Poly1305
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

TIMEOUT = 30
GCM256, GCM128 = "aes256-gcm@openssh.com", "aes128-gcm@openssh.com"
CHACHA = "chacha20-poly1305@openssh.com"
STRICT_C, STRICT_S = "kex-strict-c-v00@openssh.com", "kex-strict-s-v00@openssh.com"
LISTS = ("kex", "host_key", "cipher_to_server", "cipher_to_client", "mac_to_server",
         "mac_to_client", "compression_to_server", "compression_to_client", "language_to_server",
         "language_to_client")
DISCONNECT, IGNORE, UNIMPLEMENTED, DEBUG, SERVICE_REQUEST, SERVICE_ACCEPT, EXT_INFO = range(1, 8)
KEXINIT, NEWKEYS, ECDH_INIT, ECDH_REPLY = 20, 21, 30, 31
AUTH_REQUEST, AUTH_FAILURE, AUTH_SUCCESS, AUTH_BANNER = 50, 51, 52, 53
GLOBAL, SUCCESS, FAILURE = 80, 81, 82
OPEN, CONFIRMATION, OPEN_FAILURE, ADJUST, DATA, EXTENDED, EOF, CLOSE, REQUEST, CH_SUCCESS, \
    CH_FAILURE = range(90, 101)


class Ended(Exception):
    """The other side has closed the connection."""


def string(value):
    value = value.encode() if isinstance(value, str) else value
    return struct.pack(">I", len(value)) + value


def u32(*values):
    return struct.pack(f">{len(values)}I", *values)


def mpint(number):
    return string(number.to_bytes((number.bit_length() + 8) // 8, "big") if number else b"")


class Reader:
    def __init__(self, data):
        self.data = data

    def take(self, count):
        assert len(self.data) >= count, "a message is cut short"
        part, self.data = self.data[:count], self.data[count:]
        return part

    def u8(self):
        return self.take(1)[0]

    def u32(self):
        return struct.unpack(">I", self.take(4))[0]

    def string(self):
        return self.take(self.u32())

    def end(self):
        assert not self.data, f"{self.data!r} behind a message"


class Clear:
    block, is_length_padded, tag = 8, True, 0

    def length(self, head, sequence):
        return struct.unpack(">I", head)[0]

    def seal(self, packet, sequence):
        return packet

    def open(self, packet, sequence):
        return packet


class Gcm:
    """RFC 5647 §7 as OpenSSH names it."""
    block, is_length_padded, tag = 16, False, 16

    def __init__(self, key, iv):
        self.gcm, self.fixed, self.counter = AESGCM(key), iv[:4], struct.unpack(">Q", iv[4:])[0]

    def nonce(self):
        nonce = self.fixed + struct.pack(">Q", self.counter)
        self.counter = (self.counter + 1) % (1 << 64)
        return nonce

    def length(self, head, sequence):
        return struct.unpack(">I", head)[0]

    def seal(self, packet, sequence):
        return packet[:4] + self.gcm.encrypt(self.nonce(), packet[4:], packet[:4])

    def open(self, packet, sequence):
        return packet[:4] + self.gcm.decrypt(self.nonce(), packet[4:], packet[:4])


class Chacha:
    """OpenSSH's PROTOCOL.chacha20poly1305."""
    block, is_length_padded, tag = 8, False, 16

    def __init__(self, key):
        self.main, self.head = key[:32], key[32:]

    @staticmethod
    def stream(key, counter, sequence, data):
        nonce = struct.pack("<Q", counter) + struct.pack(">Q", sequence)
        return Cipher(algorithms.ChaCha20(key, nonce), None).encryptor().update(data)

    def tag_of(self, data, sequence):
        return Poly1305.generate_tag(self.stream(self.main, 0, sequence, bytes(32)), data)

    def length(self, head, sequence):
        return struct.unpack(">I", self.stream(self.head, 0, sequence, head))[0]

    def seal(self, packet, sequence):
        sealed = (self.stream(self.head, 0, sequence, packet[:4])
                  + self.stream(self.main, 1, sequence, packet[4:]))
        return sealed + self.tag_of(sealed, sequence)

    def open(self, packet, sequence):
        if self.tag_of(packet[:-16], sequence) != packet[-16:]:
            raise InvalidTag
        return packet[:4] + self.stream(self.main, 1, sequence, packet[4:-16])


class Stranger:
    def __init__(self, sock, is_client):
        sock.settimeout(TIMEOUT)
        self.sock, self.is_client = sock, is_client
        self.buffer = b""
        self.version = b"SSH-2.0-stranger_1.0"
        self.peer_version = None
        self.sealing, self.opening = Clear(), Clear()
        self.sent, self.received = 0, 0          # sequence numbers of the next packet
        self.session_id = None
        self.is_strict = False
        self.peer_init = self.own_init = None
        self.is_peer_in_kex = False              # it has sent KEXINIT and not yet NEWKEYS
        self.kex_count = 0
        self.host_key = Ed25519PrivateKey.generate()
        self.share_bytes = None                  # what a test puts in place of our share
        self.on_close = None
        self.seen = []                           # numbers of all messages that came

    @classmethod
    def connect(cls, port):
        return cls(socket.create_connection(("127.0.0.1", port), TIMEOUT), True)

    @classmethod
    def accept(cls, listener):
        listener.settimeout(TIMEOUT)
        return cls(listener.accept()[0], False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        if self.on_close:
            self.on_close()

    # -- bytes ---------------------------------------------------------------------------------

    def raw(self, data):
        try:
            self.sock.sendall(data)
        except (ConnectionResetError, BrokenPipeError) as error:
            raise Ended from error

    def fill(self):
        try:
            data = self.sock.recv(65536)
        except ConnectionResetError as error:
            raise Ended from error
        if not data:
            raise Ended
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self.fill()
        part, self.buffer = self.buffer[:count], self.buffer[count:]
        return part

    def read_line(self):
        while b"\n" not in self.buffer:
            self.fill()
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line + b"\n"

    def hello(self):
        self.raw(self.version + b"\r\n")
        self.peer_version = self.read_line().removesuffix(b"\r\n")

    # -- packets -------------------------------------------------------------------------------

    def packet(self, payload, padding=None):
        """One packet, sealed and counted."""
        cipher = self.sealing
        base = (4 if cipher.is_length_padded else 0) + 1 + len(payload)
        if padding is None:
            padding = cipher.block - base % cipher.block
            padding += cipher.block if padding < 4 else 0
        plain = u32(1 + len(payload) + padding) + bytes([padding]) + payload + os.urandom(padding)
        data = cipher.seal(plain, self.sent)
        self.sent = (self.sent + 1) % (1 << 32)
        return data

    def pack(self, number, *parts):
        return self.packet(bytes([number]) + b"".join(parts))

    def send(self, number, *parts):
        self.raw(self.pack(number, *parts))

    def read(self):
        """The next message, after a look at how it was packed."""
        cipher, head = self.opening, self.take(4)
        length = cipher.length(head, self.received)
        assert 5 <= length <= 35000
        packet = cipher.open(head + self.take(length + cipher.tag), self.received)
        self.received = (self.received + 1) % (1 << 32)
        padding = packet[4]
        payload = packet[5:4 + length - padding]
        assert 4 <= padding <= 255 and padding + 1 < length
        assert (length + (4 if cipher.is_length_padded else 0)) % max(8, cipher.block) == 0
        assert length + 4 >= 16, (length, payload)
        self.watch(payload[0])
        return payload

    def watch(self, number):
        self.seen.append(number)
        if self.is_peer_in_kex:
            assert number <= DEBUG or NEWKEYS <= number <= 49, f"{number} in a key exchange"
        if number == KEXINIT:
            self.is_peer_in_kex = True
        elif number == NEWKEYS:
            self.is_peer_in_kex = False

    def expect(self, number, *skip):
        """The next message is this one; those named in `skip` may come before it."""
        while True:
            payload = self.read()
            if payload[0] == number:
                return Reader(payload[1:])
            assert payload[0] in skip, f"{payload!r} instead of {number}"

    def expect_end(self, reason=None):
        """Nothing comes but SSH_MSG_DISCONNECT (with the reason, if it can still be read), then
        the end of the connection."""
        told = None
        try:
            while True:
                payload = self.read()
                assert told is None, "a message behind a disconnect"
                if payload[0] == DISCONNECT:
                    told = Reader(payload[1:]).u32()
                elif payload[0] == NEWKEYS:
                    self.start_opening(self.agree())
                else:
                    assert payload[0] in (KEXINIT, ECDH_INIT, SERVICE_REQUEST,
                                          AUTH_REQUEST, ADJUST), payload
        except Ended:
            pass
        if reason is not None and told is not None:
            assert told == reason
        return told

    # -- the key exchange ----------------------------------------------------------------------

    def init(self, guess=False, reserved=0, **lists):
        """A KEXINIT; lists as keywords, as strings."""
        names = dict(kex="curve25519-sha256" + (f",{STRICT_C if self.is_client else STRICT_S}"
                                                if lists.pop("strict", True) else ""),
                     host_key="ssh-ed25519", cipher_to_server=GCM256, cipher_to_client=GCM256,
                     mac_to_server="hmac-sha2-256", mac_to_client="hmac-sha2-256",
                     compression_to_server="none", compression_to_client="none",
                     language_to_server="", language_to_client="")
        if cipher := lists.pop("cipher", None):
            names.update(cipher_to_server=cipher, cipher_to_client=cipher)
        names.update(lists)
        return (bytes([KEXINIT]) + os.urandom(16) + b"".join(string(names[n]) for n in LISTS)
                + bytes([guess]) + u32(reserved))

    @staticmethod
    def read_init(payload):
        reader = Reader(payload[17:])
        lists = {name: reader.string().decode() for name in LISTS}
        lists["guess"], lists["reserved"] = reader.u8(), reader.u32()
        reader.end()
        return lists

    def offer(self, **kw):
        self.own_init = self.init(**kw)
        self.raw(self.packet(self.own_init))

    def take_offer(self, *skip):
        self.peer_init = bytes([KEXINIT]) + self.expect(KEXINIT, *skip).data

    def agree(self):
        """What the lists come to, by RFC 4253 §7.1."""
        ours, theirs = self.read_init(self.own_init), self.read_init(self.peer_init)
        client, server = (ours, theirs) if self.is_client else (theirs, ours)
        chosen = {}
        for name in LISTS[:4] + LISTS[6:8]:
            chosen[name] = next((c for c in client[name].split(",")
                                 if c in server[name].split(",")), None)
        if self.session_id is None:
            self.is_strict = (STRICT_C in client["kex"].split(",")
                              and STRICT_S in server["kex"].split(","))
        return chosen

    def share(self):
        self.private = X25519PrivateKey.generate()
        self.public = self.share_bytes or self.private.public_key().public_bytes(
            Encoding.Raw, PublicFormat.Raw)
        return self.public

    def finish(self, blob, client_share, server_share):
        """K and H (RFC 5656 §4)."""
        other = server_share if self.is_client else client_share
        secret = self.private.exchange(X25519PublicKey.from_public_bytes(other))
        self.k = mpint(int.from_bytes(secret, "big"))
        versions = [self.version, self.peer_version]
        inits = [self.own_init, self.peer_init]
        if not self.is_client:
            versions.reverse()
            inits.reverse()
        parts = [*versions, *inits, blob, client_share, server_share]
        self.h = hashlib.sha256(b"".join(map(string, parts)) + self.k).digest()
        self.session_id = self.session_id or self.h

    def derive(self, letter, length):
        key = hashlib.sha256(self.k + self.h + letter + self.session_id).digest()
        return (key + hashlib.sha256(self.k + self.h + key).digest())[:length]

    def cipher(self, name, is_to_server):
        iv, key = (b"A", b"C") if is_to_server else (b"B", b"D")
        if name == CHACHA:
            return Chacha(self.derive(key, 64))
        return Gcm(self.derive(key, 32 if name == GCM256 else 16), self.derive(iv, 12))

    def start_sealing(self, chosen):
        name = chosen["cipher_to_server" if self.is_client else "cipher_to_client"]
        self.sealing = self.cipher(name, self.is_client)
        if self.is_strict:
            self.sent = 0

    def start_opening(self, chosen):
        name = chosen["cipher_to_client" if self.is_client else "cipher_to_server"]
        self.opening = self.cipher(name, not self.is_client)
        if self.is_strict:
            self.received = 0

    def verify(self, blob, signature):
        reader = Reader(blob)
        assert reader.string() == b"ssh-ed25519"
        public = reader.string()
        reader.end()
        reader = Reader(signature)
        assert reader.string() == b"ssh-ed25519"
        Ed25519PublicKey.from_public_bytes(public).verify(reader.string(), self.h)
        reader.end()

    def host_blob(self):
        return string("ssh-ed25519") + string(self.host_key.public_key().public_bytes(
            Encoding.Raw, PublicFormat.Raw))

    def sign(self):
        return string("ssh-ed25519") + string(self.host_key.sign(self.h))

    def swap_shares(self, *skip):
        """ECDH_INIT and ECDH_REPLY, from either side."""
        if self.is_client:
            self.send(ECDH_INIT, string(self.share()))
            reply = self.expect(ECDH_REPLY, *skip)
            blob, other, signature = reply.string(), reply.string(), reply.string()
            reply.end()
            self.finish(blob, self.public, other)
            self.verify(blob, signature)
            self.blob = blob
        else:
            reader = self.expect(ECDH_INIT, *skip)
            other = reader.string()
            reader.end()
            public = self.share()
            self.finish(self.host_blob(), other, public)
            self.send(ECDH_REPLY, string(self.host_blob()), string(public), string(self.sign()))

    def new_keys(self, chosen):
        self.send(NEWKEYS)
        self.start_sealing(chosen)
        self.expect(NEWKEYS)
        self.start_opening(chosen)
        self.kex_count += 1

    def exchange(self, *skip, **kw):
        """A whole key exchange that we start; `skip` may come before the peer's KEXINIT."""
        self.offer(**kw)
        self.take_offer(*skip)
        chosen = self.agree()
        self.swap_shares()
        self.new_keys(chosen)
        return chosen

    def follow(self, *skip, **kw):
        """A whole key exchange that the peer starts."""
        self.take_offer(*skip)
        self.offer(**kw)
        chosen = self.agree()
        self.swap_shares()
        self.new_keys(chosen)

    # -- authentication and after --------------------------------------------------------------

    def authenticate(self, user="alice"):
        if self.is_client:
            self.send(SERVICE_REQUEST, string("ssh-userauth"))
            assert self.expect(SERVICE_ACCEPT).string() == b"ssh-userauth"
            self.send(AUTH_REQUEST, string(user), string("ssh-connection"), string("none"))
            self.expect(AUTH_SUCCESS).end()
        else:
            assert self.expect(SERVICE_REQUEST).string() == b"ssh-userauth"
            self.send(SERVICE_ACCEPT, string("ssh-userauth"))
            reader = self.expect(AUTH_REQUEST)
            reader.string()
            assert reader.string() == b"ssh-connection" and reader.string() == b"none"
            self.send(AUTH_SUCCESS)

    def establish(self, **kw):
        self.hello()
        self.exchange(**kw)
        self.authenticate()
        return self

    def ping(self, *skip):
        """The session is alive and has done all that was said before."""
        self.send(GLOBAL, string("ping@example.com"), b"\1")
        return self.expect(FAILURE, *skip)

    def open(self, number=7, window=1 << 21, packet=32768, host="echo", kind="direct-tcpip"):
        """A channel that the peer confirms; its number there, its window and packet size."""
        self.send_open(number, window, packet, host, kind)
        reader = self.expect(CONFIRMATION, ADJUST)
        assert reader.u32() == number
        theirs = reader.u32(), reader.u32(), reader.u32()
        reader.end()
        return theirs

    def send_open(self, number=7, window=1 << 21, packet=32768, host="echo", kind="direct-tcpip",
                  port=7):
        self.send(OPEN, string(kind), u32(number, window, packet), string(host), u32(port),
                  string("127.0.0.1"), u32(4711))

    def expect_refusal(self, number, reason):
        reader = self.expect(OPEN_FAILURE)
        assert (reader.u32(), reader.u32()) == (number, reason)
        reader.string()
        reader.string()
        reader.end()

    def read_data(self, number, count):
        """`count` bytes on our channel `number`, and the largest piece."""
        data, largest = b"", 0
        while len(data) < count:
            reader = self.expect(DATA, ADJUST)
            assert reader.u32() == number
            piece = reader.string()
            reader.end()
            largest = max(largest, len(piece))
            data += piece
        return data, largest
