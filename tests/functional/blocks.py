#!/usr/bin/python3
"""A writer that knows what it was promised, and a reader that holds the cluster to it.

blocks.py write STATE STOP EXPORT SOCKET...   random 4 KiB writes, many in flight, until the file
	STOP exists; on a lost connection it goes on with the next SOCKET, sending again what was
	not answered. How many were acknowledged is in STATE.progress. At the end
	it saves to STATE what each block may hold.
blocks.py check STATE EXPORT SOCKET...        reads all blocks through every SOCKET: each must hold
	its last acknowledged write or one sent after it, and the same through all of them.

A block's content is its number and the number of the write, repeated.
Options by environment: BLOCKS (how many), DEPTH, FLUSH_EVERY, SEED, RATE (writes per
second), COUNT (writes, then stop).
"""
import errno
import json
import os
import random
import struct
import sys
import time

import nbd

BLOCK = 4096
blocks = int(os.environ.get("BLOCKS", "4096"))
depth = int(os.environ.get("DEPTH", "16"))
flush_every = int(os.environ.get("FLUSH_EVERY", "0"))
rate = float(os.environ.get("RATE", "0"))
count = int(os.environ.get("COUNT", "0"))
seed = int(os.environ.get("SEED", "0")) or random.randrange(1 << 30)
progress = sys.argv[2] + ".progress"
deadline_s = int(os.environ.get("DEADLINE", "120"))


def content(block, sequence):
    return struct.pack("<QQ", block, sequence) * (BLOCK // 16)


def connect(export, socket):
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.connect_unix(socket)
    return handle


class Writer:
    def __init__(self, export, sockets):
        self.export, self.sockets, self.at = export, sockets, 0
        self.rng = random.Random(seed)
        self.sequence = 0
        self.acked = {}  # block: the last acknowledged write
        self.maybe = {}  # block: writes sent after it and not acknowledged
        self.flying = {}  # block: sequence
        self.errors = 0
        self.reconnects = 0
        self.longest = 0.0
        self.done_count = 0
        self.generation = 0
        self.handle = connect(export, sockets[0])

    def send(self, block, sequence):
        self.flying[block] = sequence
        self.maybe.setdefault(block, [])
        if sequence not in self.maybe[block]:
            self.maybe[block].append(sequence)
        started, generation = time.monotonic(), self.generation

        def answered(error):
            if generation != self.generation:
                return 1
            if error.value:
                # ENOTCONN is libnbd's word for a lost connection, ESHUTDOWN a sheep's for
                # a clean stop: sent again elsewhere.
                if error.value not in (errno.ENOTCONN, errno.ESHUTDOWN):
                    self.errors += 1
                return 1
            self.longest = max(self.longest, time.monotonic() - started)
            self.acked[block] = sequence
            self.maybe[block] = [s for s in self.maybe[block] if s > sequence]
            self.flying.pop(block, None)
            self.done_count += 1
            if self.done_count % 100 == 0:
                with open(progress + ".new", "w") as out:
                    out.write(f"{self.done_count}\n")
                os.rename(progress + ".new", progress)
            return 1

        self.handle.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(content(block, sequence))),
                               block * BLOCK, answered)

    def fail_over(self):
        self.generation += 1
        self.reconnects += 1
        end = time.monotonic() + deadline_s
        while True:
            self.at = (self.at + 1) % len(self.sockets)
            try:
                self.handle = connect(self.export, self.sockets[self.at])
                break
            except nbd.Error:
                if time.monotonic() > end:
                    sys.exit("no gateway is left")
                time.sleep(0.02)
        for block, sequence in list(self.flying.items()):
            self.send(block, sequence)

    def turn(self, stopping):
        try:
            while not stopping and len(self.flying) < depth:
                block = self.rng.randrange(blocks)
                if block in self.flying:
                    continue
                self.sequence += 1
                self.send(block, self.sequence)
                if flush_every and self.sequence % flush_every == 0:
                    self.handle.aio_flush()
                if rate:
                    break
            self.handle.poll(100)
            if self.handle.aio_is_dead() or self.handle.aio_is_closed():
                self.fail_over()
        except nbd.Error:
            self.fail_over()

    def run(self, state, stop):
        started = time.monotonic()
        while not os.path.exists(stop) and not (count and self.sequence >= count):
            self.turn(False)
            if rate:
                ahead = self.sequence / rate - (time.monotonic() - started)
                if ahead > 0:
                    time.sleep(min(ahead, 0.05))
        end = time.monotonic() + deadline_s
        while self.flying:
            self.turn(True)
            if time.monotonic() > end:
                print(f"{len(self.flying)} writes are not answered", flush=True)
                break
        with open(state, "w") as out:
            json.dump({"acked": self.acked, "maybe": self.maybe}, out)
        print(f"seed {seed}: {self.done_count} writes acknowledged, {len(self.acked)} blocks, "
              f"{self.reconnects} reconnects, {self.errors} errors, "
              f"longest {self.longest * 1000:.0f} ms", flush=True)
        if self.errors or self.flying:
            sys.exit(1)


def check(state, export, sockets):
    with open(state) as f:
        promised = json.load(f)
    acked = {int(b): s for b, s in promised["acked"].items()}
    maybe = {int(b): s for b, s in promised["maybe"].items()}
    first, bad = {}, 0
    for socket in sockets:
        handle = connect(export, socket)
        for block in sorted(set(acked) | set(maybe)):
            data = handle.pread(BLOCK, block * BLOCK)
            number, sequence = struct.unpack_from("<QQ", data)
            allowed = {acked.get(block, 0)} | set(maybe.get(block, []))
            if (number, sequence) == (0, 0):
                number = block
            good = sequence in allowed and data == (content(block, sequence) if sequence
                                                    else bytes(BLOCK))
            if not good or first.setdefault(block, sequence) != sequence:
                bad += 1
                if bad < 10:
                    print(f"{socket}: block {block} holds write {sequence} of block {number}, "
                          f"not one of {sorted(allowed)}, first seen {first.get(block)}")
        handle.shutdown()
    print(f"checked {len(set(acked) | set(maybe))} blocks through {len(sockets)} gateways: "
          f"{bad} wrong")
    if bad or not acked:
        sys.exit(1)


if sys.argv[1] == "write":
    Writer(sys.argv[4], sys.argv[5:]).run(sys.argv[2], sys.argv[3])
else:
    check(sys.argv[2], sys.argv[3], sys.argv[4:])
