#!/usr/bin/python3
"""full.py EXPORT SOCKET...: fill a cluster through the first gateway until it has no space, and live with it.

Writes 1 MiB pieces until one gets ENOSPC; then everything that was acknowledged must be readable through all
gateways, and an overwrite either works or gets ENOSPC without a trace. A quarter is trimmed, another one
zeroed; from then on a good part of that can be written again. In the end everything is trimmed.
"""
import errno
import struct
import sys
import time

import nbd

PIECE = 1 << 20
export, sockets = sys.argv[1], sys.argv[2:]


def connect(socket):
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.connect_unix(socket)
    return handle


def content(piece, number):
    return struct.pack("<QQ", piece, number) * (PIECE // 16)


class Disk:
    def __init__(self):
        self.handle = connect(sockets[0])
        self.size = self.handle.get_size()
        self.held = {}  # piece: the numbers that it may hold, per 4 KiB block
        self.number = int(time.time()) << 20

    def write(self, piece):
        """True: written; False: no space, and then each block is what it was or new."""
        self.number += 1
        try:
            self.handle.pwrite(content(piece, self.number), piece * PIECE)
        except nbd.Error as e:
            if e.errnum != errno.ENOSPC:
                raise
            self.held.setdefault(piece, {0}).add(self.number)
            return False
        self.held[piece] = {self.number}
        return True

    def fill(self):
        """Write new pieces until there is no space: how many it took."""
        wrote, refused = 0, 0
        for piece in range(self.size // PIECE):
            if self.held.get(piece, {0}) != {0}:
                continue
            if self.write(piece):
                wrote += 1
                refused = 0
            else:
                refused += 1
                if refused == 3:
                    return wrote
        raise AssertionError("the cluster is never full")

    def check(self):
        for socket in sockets:
            handle = connect(socket)
            for piece, allowed in self.held.items():
                data = handle.pread(PIECE, piece * PIECE)
                for at in range(0, PIECE, 4096):
                    was, number = struct.unpack_from("<QQ", data, at)
                    assert number in allowed and (was == piece or number == 0) and \
                        data[at:at + 4096] == (struct.pack("<QQ", was, number) * 256), \
                        (socket, piece, at, was, number, allowed)
            handle.shutdown()

    def clear(self, pieces, how):
        for piece in pieces:
            how(PIECE, piece * PIECE)
            self.held[piece] = {0}


disk = Disk()
if not disk.handle.can_trim():
    sys.exit("no trim")
first = disk.fill()
assert first >= 64, f"full after {first} MiB"
disk.check()
pieces = sorted(disk.held)
overwritten = sum(disk.write(piece) for piece in pieces[::16])
disk.check()
disk.handle.flush()
half = len(pieces) // 2
disk.clear(pieces[:half:2], disk.handle.trim)
disk.clear(pieces[1:half:2], disk.handle.zero)
disk.check()
end = time.monotonic() + 60
again = 0
# The space of what was trimmed comes with the cleaner.
while again < half // 2:
    again += disk.fill()
    assert time.monotonic() < end, f"{half} MiB were given back, {again} could be written"
    time.sleep(0.1)
disk.check()
disk.clear(sorted(disk.held), disk.handle.trim)
disk.handle.flush()
disk.check()
disk.handle.shutdown()
print(f"full after {first} MiB, {overwritten} of {len(pieces[::16])} overwritten while full, "
      f"{again} MiB written again after {half} were given back")
