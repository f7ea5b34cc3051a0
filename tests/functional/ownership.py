#!/usr/bin/python3
"""Volumes with access=single, by real NBD clients: ownership.py WHAT SOCKET1 SOCKET2 [EXPORT]."""
import errno
import sys
import time

import nbd

BLOCK = 4096


def connect(socket):
    handle = nbd.NBD()
    handle.set_export_name(export)
    handle.connect_unix(socket)
    return handle


def content(value):
    return bytes([value]) * BLOCK


def write(handle, value, offset=0):
    handle.pwrite(content(value), offset)


def expect(handle, value, offset=0):
    got = handle.pread(BLOCK, offset)
    if got != content(value):
        sys.exit(f"read {got[0]} where {value} was written")


def refused(handle, value):
    """Its write fails with ESHUTDOWN, or the connection is gone already."""
    try:
        write(handle, value)
    except nbd.Error as e:
        if e.errnum not in (errno.ESHUTDOWN, errno.ENOTCONN, errno.EINVAL):
            sys.exit(f"refused with {e}")
        return
    sys.exit("an old connection wrote")


def wait_closed(handle):
    end = time.monotonic() + 20
    while not (handle.aio_is_dead() or handle.aio_is_closed()):
        if time.monotonic() > end:
            sys.exit("a connection that lost its volume stays open")
        try:
            handle.poll(100)
        except nbd.Error:
            pass


def migrate(one, two):
    """A guest moves: the target connects first, the source writes on, then the target writes."""
    source, reader, late = connect(one), connect(one), connect(one)
    write(source, 1)
    target = connect(two)
    write(source, 2)
    expect(reader, 2)
    expect(target, 2)
    flying = source.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(content(3))), 8 * BLOCK)
    write(target, 4)
    target.flush()
    wait_closed(source)
    try:
        if not source.aio_command_completed(flying):
            sys.exit("a write of the source was not answered")
    except nbd.Error as e:
        if e.errnum not in (errno.ESHUTDOWN, errno.ENOTCONN):
            raise
    expect(reader, 4)  # who only reads goes on
    refused(late, 5)  # it was opened before the move
    wait_closed(late)
    expect(target, 4)
    back = connect(one)
    write(back, 6)
    back.flush()
    wait_closed(target)
    expect(reader, 6)
    print("a guest moved, and came back")


def shared(one, two):
    """Both write at once, without an error, and see each other."""
    a, b = connect(one), connect(two)
    for i in range(50):
        write(a, 2 * i)
        expect(b, 2 * i)
        write(b, 2 * i + 1)
        expect(a, 2 * i + 1)
        if i % 10 == 0:
            a.flush()
            b.flush()
    print("both write", flush=True)
    sys.stdin.readline()  # it is set to single
    wait_closed(a)
    wait_closed(b)
    a = connect(one)
    write(a, 200)
    expect(connect(two), 200)
    print("and came again")


def fail_over(one, two):
    """The owner dies; the client goes on through the other gateway."""
    owner = connect(two)
    write(owner, 7)
    owner.flush()
    print("owned", flush=True)
    sys.stdin.readline()  # it is dead
    started = time.monotonic()
    heir = connect(one)
    write(heir, 8)
    expect(heir, 8)
    print(f"taken over in {(time.monotonic() - started) * 1000:.0f} ms")


def ping_pong(one, two):
    """Two guests of one disk, wrongly so: both get their turns."""
    turns, end = [0, 0], time.monotonic() + 6
    handles = [None, None]
    while time.monotonic() < end:
        for i, socket in enumerate((one, two)):
            try:
                if handles[i] is None:
                    handles[i] = connect(socket)
                write(handles[i], 10 + i)
                turns[i] += 1
            except nbd.Error as e:
                if e.errnum not in (errno.ESHUTDOWN, errno.ENOTCONN, errno.EINVAL):
                    raise
                handles[i] = None
    print(f"turns: {turns}")
    if min(turns) < 3:
        sys.exit("somebody was kept out")


def timeout(one, two):
    """No PG serves: a request fails after request_timeout, and not before."""
    handle = connect(one)
    write(handle, 1)
    print("ready", flush=True)
    sys.stdin.readline()
    started = time.monotonic()
    try:
        write(handle, 2)
        sys.exit("a write succeeded with one copy")
    except nbd.Error as e:
        took = time.monotonic() - started
        if e.errnum != errno.EIO or not 1.9 < took < 15:
            sys.exit(f"{e} after {took:.1f} s")
    print(f"EIO after {took:.1f} s", flush=True)
    sys.stdin.readline()
    end = time.monotonic() + 60
    while True:
        try:
            write(handle, 3)
            break
        except nbd.Error as e:
            if e.errnum != errno.EIO or time.monotonic() > end:
                raise
    expect(handle, 3)
    print("written again")


export = sys.argv[4] if len(sys.argv) > 4 else "disk"
{"migrate": migrate, "shared": shared, "fail_over": fail_over, "ping_pong": ping_pong,
 "timeout": timeout}[sys.argv[1]](sys.argv[2], sys.argv[3])
