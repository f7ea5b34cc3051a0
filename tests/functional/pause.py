#!/usr/bin/python3
"""A sheep is stopped under writes, and asked the moment it goes on.

pause.py EXPORT PID SECONDS VICTIM-SOCKET SOCKET
Writes through SOCKET, one at a time; stops PID for SECONDS; the moment it lets PID go on it reads all
blocks through VICTIM-SOCKET, by a connection from before. Each must hold what was acknowledged by then,
or something later. Prints the longest that a write took.
"""
import multiprocessing
import os
import random
import signal
import struct
import sys
import time

import nbd

BLOCK = 4096
BLOCKS = 256
export, pid, seconds, victim, socket = (sys.argv[1], int(sys.argv[2]), float(sys.argv[3]),
                                        sys.argv[4], sys.argv[5])


def connect(path):
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.connect_unix(path)
    return handle


def place(block, handle):
    """All over the volume, so that all of its placement groups are asked."""
    return block * (handle.get_size() // BLOCKS) // BLOCK * BLOCK


def reader(pipe):
    handle = connect(victim)
    pipe.send("ready")
    while pipe.recv() == "read":
        found = [struct.unpack("<Q", handle.pread(8, place(b, handle)))[0] for b in range(BLOCKS)]
        pipe.send(found)
    handle.shutdown()


def main():
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.Process(target=reader, args=(theirs,), daemon=True)
    child.start()
    assert ours.recv() == "ready"
    handle = connect(socket)
    acked = [0] * BLOCKS
    sequence, longest, floor, reads = 0, 0.0, None, 0
    begun = time.monotonic()
    state = "before"
    while state != "over":
        now = time.monotonic() - begun
        if state == "before" and now > 1:
            os.kill(pid, signal.SIGSTOP)
            state = "stopped"
        elif state == "stopped" and now > 1 + seconds:
            floor = list(acked)
            ours.send("read")
            os.kill(pid, signal.SIGCONT)
            state = "after"
        elif state == "after" and ours.poll():
            found = ours.recv()
            old = [b for b in range(BLOCKS) if found[b] < floor[b]]
            if old:
                sys.exit(f"block {old[0]}: write {found[old[0]]} was read, {floor[old[0]]} was "
                         f"acknowledged before")
            reads += 1
            if now > 4 + seconds:
                state = "over"
                ours.send("end")
            else:
                floor = list(acked)
                ours.send("read")
        elif now > 60 + seconds:
            sys.exit("the one that was stopped does not answer")
        sequence += 1
        block = random.randrange(BLOCKS)
        started = time.monotonic()
        handle.pwrite(struct.pack("<Q", sequence) * (BLOCK // 8), place(block, handle))
        acked[block] = sequence
        longest = max(longest, time.monotonic() - started)
    handle.shutdown()
    child.join(10)
    print(f"{sequence} writes, longest {longest * 1000:.0f} ms; {reads} times read through it")


main()
