#!/usr/bin/python3
"""Random requests of any offset and length, mirrored in a plain file.

odd-requests.py URI FILE [COUNT]: FILE holds what the export holds, and again at the end.
The seed is printed, so that a failure can be repeated with SEED=n.
"""
import os
import random
import sys

import nbd

uri, path = sys.argv[1], sys.argv[2]
count = int(sys.argv[3]) if len(sys.argv) > 3 and sys.argv[3] else 1500
seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
print("seed", seed)
rng = random.Random(seed)

handle = nbd.NBD()
handle.connect_uri(uri)
size = handle.get_size()
mirror = open(path, "r+b")
assert os.path.getsize(path) == size

MIB = 1 << 20


def pick():
    """An offset and a length, with a liking for edges of blocks and objects."""
    length = rng.choice([1, 2, 511, 512, 513, 4095, 4096, 4097, 8192, 65536, 70001, 5 * MIB])
    length = max(1, min(size, length if rng.random() < 0.7 else rng.randrange(1, 300000)))
    where = rng.random()
    if where < 0.3:
        at = rng.randrange(0, size // (4 * MIB) + 1) * 4 * MIB + rng.randrange(-5000, 5000)
    elif where < 0.6:
        at = rng.randrange(0, size // 4096) * 4096
    else:
        at = rng.randrange(0, size)
    return max(0, min(at, size - length)), length


for n in range(count):
    at, length = pick()
    what = rng.random()
    flags = nbd.CMD_FLAG_FUA if rng.random() < 0.05 else 0
    if what < 0.35:
        data = rng.randbytes(length)
        handle.pwrite(data, at, flags)
        mirror.seek(at)
        mirror.write(data)
    elif what < 0.5:
        if rng.random() < 0.5:
            flags |= nbd.CMD_FLAG_NO_HOLE
        handle.zero(length, at, flags)
        mirror.seek(at)
        mirror.write(bytes(length))
    elif what < 0.6:
        # What a trim leaves is not said: make it known again.
        handle.trim(length, at, flags)
        mirror.seek(at)
        mirror.write(handle.pread(length, at))
    elif what < 0.65:
        handle.flush()
    else:
        mirror.seek(at)
        if handle.pread(length, at) != mirror.read(length):
            sys.exit(f"request {n}: {length} bytes at {at} differ (seed {seed})")

# Out of range: refused, and the connection lives on.
handle.set_strict_mode(0)
for at, length in [(size, 1), (size - 1, 2), (1 << 62, 4096)]:
    for call in (lambda: handle.pread(length, at), lambda: handle.pwrite(bytes(length), at)):
        try:
            call()
            sys.exit(f"{length} bytes at {at} were not refused")
        except nbd.Error as error:
            if error.errno not in ("EINVAL", "ENOSPC"):
                sys.exit(f"refused with {error.errno}")
handle.flush()
handle.shutdown()
mirror.close()
