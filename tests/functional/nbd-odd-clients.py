#!/usr/bin/python3
"""Clients that do what the well-behaved tools do not.

nbd-odd-clients.py URI rw|ro: a server of one export, "memory", that may be written or not.
"""
import socket
import struct
import sys
import urllib.parse

import nbd

uri, mode = sys.argv[1], sys.argv[2]
parts = urllib.parse.urlparse(uri)


def client(strict=0):
    handle = nbd.NBD()
    handle.set_strict_mode(strict)
    return handle


def expect(errno, call, what):
    try:
        call()
    except nbd.Error as error:
        if error.errno != errno:
            sys.exit(f"{what}: {error.errno}, not {errno}: {error.string}")
        return error.string
    sys.exit(f"{what}: was not refused")


def raw():
    """A socket right behind the greeting."""
    query = urllib.parse.parse_qs(parts.query)
    if "socket" in query:
        s = socket.socket(socket.AF_UNIX)
        s.connect(query["socket"][0])
    else:
        s = socket.create_connection((parts.hostname, parts.port))
    s.settimeout(10)
    take(s, 18)
    return s


def take(s, size):
    data = b""
    while len(data) < size:
        more = s.recv(size - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def is_ended(s):
    try:
        return s.recv(1) == b""
    except ConnectionResetError:
        return True


def option(number, data=b"", length=None):
    size = len(data) if length is None else length
    return b"IHAVEOPT" + struct.pack(">II", number, size) + data


def request(kind, cookie, offset, length, flags=0):
    return struct.pack(">IHHQQI", 0x25609513, flags, kind, cookie, offset, length)


# ---- negotiation ----

handle = client()
handle.set_opt_mode(True)
handle.connect_uri(uri)
names = []
handle.opt_list(lambda name, text: names.append((name, text)))
assert names == [("memory", "a disk in memory")], names
handle.set_export_name("other")
text = expect("ENOENT", handle.opt_info, "an unknown export")
assert "No such file" in text, text
handle.set_export_name("memory")
handle.set_full_info(True)
handle.opt_info()
assert handle.get_canonical_export_name() == "memory"
assert handle.get_export_description() == "a disk in memory"
assert handle.get_block_size(nbd.SIZE_MINIMUM) == 1
handle.opt_abort()

s = raw()
s.sendall(struct.pack(">I", 0x40))
assert is_ended(s), "unknown client flags were taken"
s = raw()
s.sendall(struct.pack(">I", 3) + option(1, b"nothing"))
assert is_ended(s), "EXPORT_NAME of an unknown export was taken"
s = raw()
s.sendall(struct.pack(">I", 3) + option(99, length=0xffffffff))
assert struct.unpack(">QIII", take(s, 20))[2] == 0x80000009, "4 GiB of option data"
s = raw()
s.sendall(struct.pack(">I", 3) + option(2))
assert struct.unpack(">QIII", take(s, 20)) == (0x3e889045565a9, 2, 1, 0)
assert is_ended(s)

# ---- transmission ----

handle = client()
handle.connect_uri(uri)
size = handle.get_size()
assert handle.is_read_only() == (mode == "ro")
assert handle.can_multi_conn() and handle.can_flush() and handle.can_fua()
assert not handle.get_structured_replies_negotiated()
expect("EINVAL", lambda: handle.pread(1, size), "a read past the end")
expect("EINVAL", lambda: handle.pread(33 << 20, 0), "a read of 33 MiB")
expect("EINVAL", lambda: handle.cache(2, size - 1), "a cache request past the end")
assert len(handle.pread(32 << 20, 0)) == 32 << 20
if mode == "ro":
    before = handle.pread(4096, 0)
    expect("EPERM", lambda: handle.pwrite(b"x" * 4096, 0), "a write")
    expect("EPERM", lambda: handle.trim(4096, 0), "a trim")
    expect("EPERM", lambda: handle.zero(4096, 0), "a zero")
    assert handle.pread(4096, 0) == before
else:
    expect("ENOSPC", lambda: handle.pwrite(b"xy", size - 1), "a write past the end")
    expect("ENOSPC", lambda: handle.zero(2, size - 1), "a zero past the end")
    expect("EINVAL", lambda: handle.trim(2, size - 1), "a trim past the end")
    assert handle.can_fast_zero()
    handle.pwrite(b"x" * 100, 1000)
    handle.zero(50, 1025, nbd.CMD_FLAG_FAST_ZERO | nbd.CMD_FLAG_FUA)
    assert handle.pread(100, 1000) == b"x" * 25 + bytes(50) + b"x" * 25
    # Requests in flight when we say goodbye are still done.
    for n in range(200):
        handle.aio_pwrite(b"%03d" % n, n * 3)
    handle.aio_disconnect(0)
    while not (handle.aio_is_closed() or handle.aio_is_dead()):
        handle.poll(1000)
    handle = client()
    handle.connect_uri(uri)
    assert handle.pread(600, 0) == b"".join(b"%03d" % n for n in range(200))
handle.flush()
handle.shutdown()

# A read with EXPORT_NAME and zeroes, then a goodbye with a read in flight, then half-closed.
for last in (request(2, 9, 0, 0), b""):
    s = raw()
    s.sendall(struct.pack(">I", 1) + option(1, b"memory"))
    got, flags = struct.unpack(">QH", take(s, 134)[:10])
    assert got == size and flags & 1
    s.sendall(request(0, 7, 0, 1 << 20) + last)
    s.shutdown(socket.SHUT_WR)
    assert struct.unpack(">IIQ", take(s, 16)) == (0x67446698, 0, 7)
    take(s, 1 << 20)
    assert is_ended(s)

s = raw()
s.sendall(struct.pack(">I", 3) + option(1, b""))
take(s, 10)
s.sendall(b"\0" * 28)
assert is_ended(s), "a request without its magic number was taken"

# Half a write changes nothing.
if mode == "rw":
    s = raw()
    s.sendall(struct.pack(">I", 3) + option(1, b""))
    take(s, 10)
    s.sendall(request(1, 1, 0, 1 << 20) + b"?" * 500000)
    s.close()
    handle = client()
    handle.connect_uri(uri)
    assert handle.pread(3, 0) == b"000"
    handle.shutdown()

# Two hundred at once.
crowd = [client() for _ in range(200)]
for n, handle in enumerate(crowd):
    handle.connect_uri(uri)
    handle.aio_pread(nbd.Buffer(65536), n * 512)
for handle in crowd:
    while handle.aio_in_flight() and handle.aio_peek_command_completed() <= 0:
        handle.poll(1000)
for handle in crowd[::2]:
    handle.shutdown()
print("odd clients:", mode, "ok")
