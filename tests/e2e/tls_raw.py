# SPDX-License-Identifier: MIT
"""A TLS 1.3 client whose records are made in memory, so that thousands of them, KeyUpdates too,
arrive at once: Python's ssl has no way to ask for a KeyUpdate, libssl has."""
import ctypes
import ctypes.util
import socket

UPDATE_NOT_REQUESTED, UPDATE_REQUESTED = 0, 1


def _library():
    name = ctypes.util.find_library("ssl")
    assert name, "libssl is not there"
    ssl = ctypes.CDLL(name)
    pointer = ctypes.c_void_p
    for call, result, *args in [
            ("TLS_client_method", pointer), ("SSL_CTX_new", pointer, pointer),
            ("SSL_new", pointer, pointer), ("SSL_set_connect_state", None, pointer),
            ("SSL_CTX_free", None, pointer), ("SSL_free", None, pointer),
            ("SSL_set_bio", None, pointer, pointer, pointer), ("BIO_s_mem", pointer),
            ("BIO_new", pointer, pointer), ("SSL_do_handshake", ctypes.c_int, pointer),
            ("BIO_read", ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_int),
            ("BIO_write", ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_int),
            ("SSL_write", ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_int),
            ("SSL_read", ctypes.c_int, pointer, ctypes.c_char_p, ctypes.c_int),
            ("SSL_key_update", ctypes.c_int, pointer, ctypes.c_int)]:
        function = getattr(ssl, call)
        function.restype, function.argtypes = result, args
    return ssl


class RawTls:
    """Trusts whatever certificate comes."""

    def __init__(self, port, timeout=15):
        self.lib = lib = _library()
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.context = lib.SSL_CTX_new(lib.TLS_client_method())
        self.ssl = lib.SSL_new(self.context)
        self.incoming, self.outgoing = (lib.BIO_new(lib.BIO_s_mem()) for _ in range(2))
        lib.SSL_set_bio(self.ssl, self.incoming, self.outgoing)
        lib.SSL_set_connect_state(self.ssl)
        while lib.SSL_do_handshake(self.ssl) != 1:
            self.flush()
            data = self.sock.recv(65536)
            assert data, "closed in the handshake"
            lib.BIO_write(self.incoming, data, len(data))
        self.flush()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()
        self.lib.SSL_free(self.ssl)
        self.lib.SSL_CTX_free(self.context)

    def records(self):
        """What has been made and not been sent."""
        made, space = [], ctypes.create_string_buffer(1 << 16)
        while (size := self.lib.BIO_read(self.outgoing, space, len(space))) > 0:
            made.append(space.raw[:size])
        return b"".join(made)

    def flush(self):
        if data := self.records():
            self.sock.sendall(data)

    def write(self, data):
        """One record, made and not sent."""
        assert self.lib.SSL_write(self.ssl, data, len(data)) == len(data)

    def key_update(self, kind=UPDATE_NOT_REQUESTED):
        """One KeyUpdate (RFC 8446 §4.6.3), made and not sent."""
        assert self.lib.SSL_key_update(self.ssl, kind) == 1
        self.lib.SSL_do_handshake(self.ssl)

    def read(self):
        """Application data, b"" at the end."""
        space = ctypes.create_string_buffer(1 << 16)
        while (size := self.lib.SSL_read(self.ssl, space, len(space))) <= 0:
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                return b""
            self.lib.BIO_write(self.incoming, data, len(data))
        return space.raw[:size]
