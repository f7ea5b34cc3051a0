#!/usr/bin/python3
"""nbd_faulty keeps its word: faulty_disk.py SOCKET CONTROL PROGRAM DIR, on a fresh disk of 4 MiB."""
import errno
import subprocess
import sys
import time

import nbd

socket, control, program, directory = sys.argv[1:]
BLOCK, SECTOR = 4096, 512


def command(*words):
    done = subprocess.run([program, "-c", control, *map(str, words)], capture_output=True, text=True,
                          timeout=30)
    return done.returncode == 0, done.stdout.strip()


def must(*words):
    ok, text = command(*words)
    assert ok, (words, text)
    return text


def connect():
    handle = nbd.NBD()
    handle.set_export_name("disk")
    handle.connect_unix(socket)
    return handle


def expect_error(number, call, *words):
    try:
        call(*words)
    except nbd.Error as e:
        assert e.errnum == number, e
        return
    raise AssertionError("no error")


def block(letter, count=1):
    return letter * BLOCK * count


def cut(how, seed=0):
    must("cut", how, seed, directory + "/image")
    with open(directory + "/image", "rb") as f:
        return f.read()


def test_commands():
    for words in (["nonsense"], ["hang", "x"], ["fail", "read", "EPERM"], ["delay"], ["delay", "x"],
                  ["rot", 0, "65M"], ["fail", "read", "EIO", 0], ["cut", "most", 0, "/nonexistent/x"],
                  ["cut", "none", 0, "/nonexistent/x"]):
        assert not command(*words)[0], words
    must("release")
    must("heal")


def test_failures(h):
    h.pwrite(block(b"a", 4), 0)
    must("fail", "read", "EIO", BLOCK, BLOCK)
    h.pread(BLOCK, 0)
    expect_error(errno.EIO, h.pread, BLOCK, BLOCK)
    expect_error(errno.EIO, h.pread, 2 * BLOCK, BLOCK // 2)
    h.pwrite(block(b"a"), BLOCK)
    must("fail", "write", "ENOSPC")
    expect_error(errno.ENOSPC, h.pwrite, block(b"b"), 0)
    expect_error(errno.ENOSPC, h.zero, BLOCK, 0)
    must("fail", "flush", "EIO")
    expect_error(errno.EIO, h.flush)
    must("heal")
    h.flush()
    assert h.pread(4 * BLOCK, 0) == block(b"a", 4)


def test_waiting(h):
    must("delay", 200000)
    began = time.monotonic()
    h.pread(BLOCK, 0)
    assert 0.2 <= time.monotonic() - began < 5
    must("heal")
    must("hang", "write")
    h.pread(BLOCK, 0)
    cookie = h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(block(b"w"))), 0)
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        h.poll(50)
        assert not h.aio_command_completed(cookie)
    assert h.pread(BLOCK, 0) == block(b"a"), "a hung disk has written"
    assert "waiting=1" in must("stats")
    must("release")
    while not h.aio_command_completed(cookie):
        h.poll(1000)
    assert h.pread(BLOCK, 0) == block(b"w")


def test_rot(h):
    h.pwrite(block(b"r", 3), 0)
    must("rot", BLOCK, BLOCK)
    data = h.pread(3 * BLOCK, 0)
    assert data[:BLOCK] == block(b"r") and data[2 * BLOCK:] == block(b"r")
    assert data[BLOCK:2 * BLOCK] != block(b"r")


def test_cut(h):
    """Of 16 old blocks each gets one new write; what survives is old or new, sector by sector."""
    old, new, durable = block(b"o", 16), block(b"n", 16), block(b"d", 4)
    h.pwrite(old, 0)
    h.pwrite(old, 1 << 20)
    h.flush()
    h.pwrite(new, 0)
    h.zero(4 * BLOCK, 1 << 20)
    h.flush()
    h.pwrite(old[:4 * BLOCK], 32 * BLOCK)
    h.pwrite(durable, 32 * BLOCK, nbd.CMD_FLAG_FUA)
    must("lie")
    h.pwrite(block(b"x"), 64 * BLOCK)
    h.flush()
    h.pwrite(block(b"1", 4), 0)
    h.pwrite(block(b"2", 4), 0)
    h.pwrite(block(b"3"), 0, nbd.CMD_FLAG_FUA)
    kept = cut("none")
    assert kept[:16 * BLOCK] == new and kept[32 * BLOCK:36 * BLOCK] == durable
    assert kept[1 << 20:][:16 * BLOCK] == bytes(4 * BLOCK) + old[4 * BLOCK:]
    assert kept[64 * BLOCK:65 * BLOCK] == bytes(BLOCK), "a lie was kept"
    everything = cut("all")
    assert everything[:16 * BLOCK] == block(b"3") + block(b"2", 3) + new[4 * BLOCK:]
    shapes = set()
    for seed in range(200):
        image = cut("random", seed)
        assert image[4 * BLOCK:16 * BLOCK] == new[4 * BLOCK:], "what was flushed has changed"
        assert image[32 * BLOCK:36 * BLOCK] == durable, "what was written with FUA has changed"
        sectors = [set(image[at:at + SECTOR]) for at in range(0, 4 * BLOCK, SECTOR)]
        assert all(len(s) == 1 and chr(min(s)) in "n123" for s in sectors), sectors
        shapes.add("".join(chr(min(s)) for s in sectors))
    # Whole, block-wise and sector-wise survival, and the later write without the earlier one.
    assert len(shapes) > 50, shapes
    assert any("12" in s or "n2" in s for s in shapes) and any("1n" in s or "2n" in s for s in shapes)


def test_after_cut(h):
    cookie = h.aio_pread(nbd.Buffer(BLOCK), 0)
    h.poll(200)
    assert not h.aio_command_completed(cookie), "answered without power"
    must("release", "error")
    try:
        while not h.aio_command_completed(cookie):
            h.poll(1000)
        raise AssertionError("no error")
    except nbd.Error as e:
        assert e.errnum == errno.EIO, e


handle = connect()
test_commands()
handle = connect()
test_failures(handle)
test_waiting(handle)
test_rot(handle)
test_cut(handle)
test_after_cut(handle)
print("nbd_faulty keeps its word")
