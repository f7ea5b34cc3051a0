#!/usr/bin/python3
"""Sends rubbish to unix sockets and TCP addresses: random bytes, half frames, sudden ends."""
import os
import random
import socket
import struct
import sys

seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
print("seed", seed)
rng = random.Random(seed)


def connect(address):
    if address.startswith("/"):
        s = socket.socket(socket.AF_UNIX)
        s.settimeout(5)
        s.connect(address)
    else:
        host, port = address.rsplit(":", 1)
        s = socket.create_connection((host, int(port)), 5)
    return s


def frame(magic):
    """A header that looks right at first, with wild lengths."""
    return struct.pack("<IHHQIII", magic, rng.choice([0, 0, 1, 9, 65535]), rng.randrange(4),
                       rng.getrandbits(64), 0, rng.choice([0, 8, 4096, 1 << 31]),
                       rng.choice([0, 4096, 0xffffffff])) + rng.randbytes(36)


def option():
    return struct.pack(">I", rng.randrange(4)) + b"IHAVEOPT" + struct.pack(
        ">II", rng.randrange(12), rng.choice([0, 1, 4, 100000, 0xffffffff])) + rng.randbytes(100)


makers = [lambda: rng.randbytes(rng.randrange(1, 5000)), lambda: frame(0x50465053),
          lambda: frame(0x41465053), option, lambda: b"GET / HTTP/1.0\r\n\r\n", lambda: b""]
for address in sys.argv[1:]:
    for n in range(60):
        s = connect(address)
        try:
            for _ in range(rng.randrange(1, 4)):
                s.sendall(rng.choice(makers)())
            if rng.random() < 0.5:
                s.settimeout(0.05)
                s.recv(4096)
        except OSError:
            pass
        if rng.random() < 0.3:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
    print(address, "survived" if connect(address) else "")
