#!/usr/bin/python3
"""Clients that write down all they do and see, and a judge of what they wrote.

history.py load OUT STOP EXPORT SOCKET...   reads and writes through every SOCKET at once until
	the file STOP exists, then saves the history to OUT. OUT.progress counts acknowledged writes,
	OUT.answered all requests that were answered, by socket.
history.py sweep OUT EXPORT SOCKET...       reads everything through one SOCKET after the other;
	saves what it saw to OUT.swept.
history.py check OUT...                     are these histories together linearizable?
history.py survived OUT NEXT                after a loss of power everywhere: does OUT.swept hold what
	was flushed in OUT, or something later? Saves what is there now as the beginning of NEXT.
history.py next OUT NEXT                    the same beginning of NEXT without a loss: OUT has been checked.
history.py selftest                         the judge against a search of all orders.

A register is a whole block of 4 KiB (even blocks) or a sector of 512 bytes (odd blocks). Every write
has a number that no other has, so a read tells which write it saw. An unanswered or refused write may take
effect at any time after it was sent, once, or never; it is never sent again.

Options by environment: CLIENTS (connections per socket), DEPTH (requests in flight of each), BLOCKS, STRIDE
(blocks from one to the next), READS (per cent), FLUSH_EVERY, RATE (requests per second of each client), SEED, INITIAL (what `survived` saved),
DEADLINE (seconds that unanswered requests are waited for), ERRORS=allowed.
"""
import errno
import itertools
import json
import os
import random
import select
import struct
import sys
import time

BLOCK, SECTOR = 4096, 512
ENDLESS = 1 << 62


def option(name, default):
    return int(os.environ.get(name, default))


STRIDE = option("STRIDE", 129) | 1  # odd: whole blocks and others in turn


def content(register, number, length):
    return struct.pack("<QQ", register, number) * (length // 16)


def is_whole(block):
    return block % 2 == 0


def seen(register, data):
    """The number in what was read of one register; None: garbage."""
    at, number = struct.unpack_from("<QQ", data)
    if data == bytes(len(data)):
        return 0
    return number if at == register and data == content(register, number, len(data)) else None


def seen_in(offset, data):
    """(register, number) of all registers in what was read."""
    if is_whole(offset // BLOCK):
        return [(offset // SECTOR, seen(offset // SECTOR, data))]
    return [(register, seen(register, data[at:at + SECTOR]))
            for at in range(0, len(data), SECTOR)
            for register in [(offset + at) // SECTOR]]


class History:
    """ops: [kind, register, number, sent, answered]; answered None: never. flushes: [sent, answered]."""

    def __init__(self):
        self.initial, self.ops, self.flushes = {}, [], []

    def save(self, path):
        with open(path, "w") as out:
            json.dump({"initial": self.initial, "ops": self.ops, "flushes": self.flushes}, out)

    def load(self, path):
        with open(path) as f:
            saved = json.load(f)
        self.initial.update((int(r), n) for r, n in saved["initial"].items())
        self.ops += saved["ops"]
        self.flushes += saved.get("flushes", [])
        return self


# ---- clients ----

class Client:
    """One connection and its requests; connects again for ever, to its own socket."""

    def __init__(self, load, socket):
        self.load, self.socket = load, socket
        self.handle, self.generation = None, 0
        self.flying = 0
        self.again = 0.0
        self.connects = 0
        self.answers = 0
        self.longest = 0
        self.sent_count, self.started = 0, time.monotonic()

    def turn(self):
        if self.handle is None:
            if time.monotonic() >= self.again:
                self.connect()
            return
        if self.handle.aio_is_dead() or self.handle.aio_is_closed():
            self.lose()
        elif self.handle.aio_is_ready() and not self.load.stopping:
            while self.handle and self.flying < self.load.depth and self.is_due():
                self.send()

    def is_due(self):
        rate = self.load.rate
        return not rate or self.sent_count < rate * (time.monotonic() - self.started)

    def connect(self):
        import nbd
        self.generation += 1
        self.flying = 0
        self.again = time.monotonic() + 0.05
        handle = nbd.NBD()
        try:
            handle.set_export_name(self.load.export)
            handle.aio_connect_unix(self.socket)
            self.handle = handle
            self.connects += 1
        except nbd.Error:
            pass

    def lose(self):
        self.generation += 1
        self.flying = 0
        self.handle = None

    def send(self):
        import nbd
        load, rng = self.load, self.load.rng
        self.sent_count += 1
        self.flying += 1
        try:
            if load.flush_every and self.sent_count % load.flush_every == 0:
                self.send_flush()
                return
            block = rng.randrange(load.blocks) * STRIDE
            length = BLOCK if is_whole(block) else SECTOR
            offset = block * BLOCK + (0 if length == BLOCK else SECTOR * rng.randrange(8))
            if rng.randrange(100) < load.reads:
                self.send_read(offset, length)
            else:
                self.send_write(offset, length)
        except nbd.Error:
            self.lose()

    def send_flush(self):
        sent = time.monotonic_ns()

        def answered(error):
            if self.is_over(sent, error.value):
                return 1
            self.load.history.flushes.append([sent, time.monotonic_ns()])
            return 1
        generation_bound(self, lambda done: self.handle.aio_flush(done), answered)

    def send_read(self, offset, length):
        import nbd
        if length == SECTOR and self.load.rng.randrange(2):
            offset, length = offset - offset % BLOCK, BLOCK
        buffer, sent = nbd.Buffer(length), time.monotonic_ns()

        def answered(error):
            if self.is_over(sent, error.value):
                return 1
            now = time.monotonic_ns()
            for register, number in seen_in(offset, bytes(buffer.to_bytearray())):
                self.load.history.ops.append(["r", register, number, sent, now])
            return 1
        generation_bound(self, lambda done: self.handle.aio_pread(buffer, offset, done), answered)

    def send_write(self, offset, length):
        import nbd
        load = self.load
        load.number += 1
        register = offset // SECTOR
        buffer = nbd.Buffer.from_bytearray(bytearray(content(register, load.number, length)))
        op = ["w", register, load.number, time.monotonic_ns(), None]
        load.history.ops.append(op)

        def answered(error):
            if not self.is_over(op[3], error.value):
                op[4] = time.monotonic_ns()
                load.acknowledged += 1
            return 1
        generation_bound(self, lambda done: self.handle.aio_pwrite(buffer, offset, done), answered)

    def is_over(self, sent, code):
        """An answer has come: was it an error?"""
        self.flying -= 1
        if code in (errno.ENOTCONN, errno.ESHUTDOWN):
            return True  # the connection is lost, or a clean stop
        self.longest = max(self.longest, time.monotonic_ns() - sent)
        self.answers += 1
        if code:
            name = errno.errorcode.get(code, str(code))
            self.load.errors[name] = self.load.errors.get(name, 0) + 1
        return bool(code)


def generation_bound(client, submit, answered):
    """Answers that come after the connection was given up are nobody's."""
    generation = client.generation
    submit(lambda error: answered(error) if client.generation == generation else 1)


class Load:
    def __init__(self, out, stop, export, sockets):
        self.out, self.stop, self.export = out, stop, export
        self.seed = option("SEED", 0) or random.randrange(1 << 30)
        self.rng = random.Random(self.seed)
        self.depth, self.blocks = option("DEPTH", 4), option("BLOCKS", 256)
        self.reads, self.flush_every = option("READS", 50), option("FLUSH_EVERY", 0)
        self.rate = option("RATE", 0)
        self.number = random.SystemRandom().randrange(1, 1 << 30) << 32
        self.history = History()
        if "INITIAL" in os.environ:
            self.history.load(os.environ["INITIAL"])
        self.acknowledged, self.errors, self.stopping = 0, {}, False
        self.clients = [Client(self, s) for s in sockets for _ in range(option("CLIENTS", 2))]

    def poll(self):
        poller, by_fd = select.poll(), {}
        for client in self.clients:
            if client.handle is None:
                continue
            direction = client.handle.aio_get_direction()
            events = ((select.POLLIN if direction & 1 else 0) |
                      (select.POLLOUT if direction & 2 else 0))
            if events:
                by_fd[client.handle.aio_get_fd()] = client
                poller.register(client.handle.aio_get_fd(), events)
        if not by_fd:
            time.sleep(0.005)
        for fd, events in poller.poll(2 if self.rate else 20):
            notify(by_fd[fd].handle, events)

    def run(self):
        next_look, end = 0.0, None
        while end is None or any(c.flying for c in self.clients if c.handle):
            for client in self.clients:
                client.turn()
            self.poll()
            now = time.monotonic()
            if now >= next_look:
                next_look = now + 0.1
                self.show_progress()
                if not self.stopping and os.path.exists(self.stop):
                    self.stopping, end = True, now + option("DEADLINE", 60)
            if end and now > end:
                break
        unanswered = sum(c.flying for c in self.clients if c.handle)
        self.history.save(self.out)
        stalls = {}
        for c in self.clients:
            name = os.path.basename(c.socket)
            stalls[name] = max(stalls.get(name, 0), c.longest // 1000000)
        print(f"seed {self.seed}: {len(self.history.ops)} operations, "
              f"{self.acknowledged} writes acknowledged, {len(self.history.flushes)} flushes, "
              f"{sum(c.connects for c in self.clients) - len(self.clients)} reconnects, "
              f"errors {self.errors}, unanswered {unanswered}, longest ms {stalls}", flush=True)
        if unanswered or (self.errors and os.environ.get("ERRORS") != "allowed"):
            sys.exit(1)

    def show_progress(self):
        replace(self.out + ".progress", f"{self.acknowledged}\n")
        answers = {}
        for client in self.clients:
            name = os.path.basename(client.socket)
            answers[name] = answers.get(name, 0) + client.answers
        replace(self.out + ".answered", "".join(f"{n} {count}\n" for n, count in answers.items()))


def replace(path, text):
    with open(path + ".new", "w") as out:
        out.write(text)
    os.rename(path + ".new", path)


def notify(handle, events):
    import nbd
    try:
        if events & (select.POLLIN | select.POLLHUP | select.POLLERR) and handle.aio_get_direction() & 1:
            handle.aio_notify_read()
        elif events & select.POLLOUT and handle.aio_get_direction() & 2:
            handle.aio_notify_write()
        elif events & (select.POLLHUP | select.POLLERR | select.POLLNVAL):
            handle.aio_notify_write()
    except nbd.Error:
        pass  # dead now, which turn() sees


def sweep(out, export, sockets):
    import nbd
    history, wrong = History(), 0
    for socket in sockets:
        handle = nbd.NBD()
        handle.set_export_name(export)
        handle.connect_unix(socket)
        for block in range(0, option("BLOCKS", 256) * STRIDE, STRIDE):
            sent = time.monotonic_ns()
            data = bytes(handle.pread(BLOCK, block * BLOCK))
            now = time.monotonic_ns()
            for register, number in seen_in(block * BLOCK, data):
                history.ops.append(["r", register, number, sent, now])
        handle.shutdown()
    history.save(out + ".swept")
    return wrong


# ---- the judge ----

def judge_register(ops, initial):
    """
    Complaints about one register. Each write with its reads is a cluster. Between the first answer in it and
    the last request of it (if in this order: it is `forward`) no other value can have been there: two
    forward spans must not overlap, and no cluster can lie wholly within the forward span of
    another (Gibbons and Korach, Testing Shared Memories, 1997: for registers whose writes are all different).
    """
    writes = {initial: (-ENDLESS, -ENDLESS)}
    for kind, _, number, sent, answered in ops:
        if kind == "w":
            writes[number] = (sent, ENDLESS if answered is None else answered)
    first_answer = {n: answered for n, (_, answered) in writes.items()}
    last_sent = {n: sent for n, (sent, _) in writes.items()}
    was_read = set()
    for kind, _, number, sent, answered in ops:
        if kind != "r":
            continue
        if number not in writes:
            return [f"read {number}, which nobody wrote"]
        if answered < writes[number][0]:
            return [f"read {number} before it was sent"]
        was_read.add(number)
        first_answer[number] = min(first_answer[number], answered)
        last_sent[number] = max(last_sent[number], sent)
    forward, backward = [], []
    for number in writes:
        begin, end = first_answer[number], last_sent[number]
        if begin < end:
            forward.append((begin, end, number))
        elif number in was_read or begin != ENDLESS:
            backward.append((end, begin, number))
    return overlaps(forward) + contained(forward, backward)


def overlaps(forward):
    forward.sort()
    return [f"{a} was there until after {b} was"
            for (_, end, a), (begin, _, b) in zip(forward, forward[1:]) if begin < end]


def contained(forward, backward):
    found, at = [], 0
    for begin, end, number in sorted(backward):
        while at < len(forward) and forward[at][1] <= begin:
            at += 1
        if at < len(forward) and forward[at][0] < begin and end < forward[at][1]:
            found.append(f"{number} was written and gone while {forward[at][2]} was there")
    return found


def by_register(history):
    registers = {}
    for op in history.ops:
        registers.setdefault(op[1], []).append(op)
    return registers


def check(paths):
    history, bad = History(), 0
    for path in paths:
        history.load(path)
    reads = sum(op[0] == "r" for op in history.ops)
    for register, ops in by_register(history).items():
        for complaint in judge_register(ops, history.initial.get(register, 0)):
            bad += 1
            if bad <= 10:
                print(f"register {register} (block {register // 8}): {complaint}")
                for op in sorted(ops, key=lambda o: o[3]):
                    if str(op[2]) in complaint.replace(",", " ").split():
                        print("   ", op)
    print(f"{len(history.ops) - reads} writes, {reads} reads: "
          f"{'linearizable' if not bad else f'{bad} complaints'}")
    if bad or not reads:
        sys.exit(1)


def survivor_complaint(ops, initial, flushes, number):
    """Why @number must not be in the register after everybody lost power; None: it may."""
    writes = {op[2]: op for op in ops if op[0] == "w"}
    if number != initial and number not in writes:
        return f"holds {number}, which nobody wrote"
    answered = -ENDLESS if number == initial else writes[number][4]
    if answered is None:
        return None
    for later in writes.values():
        if later[3] > answered and later[4] is not None and later[4] < flushes:
            return f"holds {number}, but {later[2]} came after it and was flushed"
    return None


def survived(path, out):
    history = History().load(path)
    swept = History().load(path + ".swept")
    flushed = max((sent for sent, _ in history.flushes), default=-ENDLESS)
    registers, now, bad = by_register(history), {}, 0
    for register, ops in by_register(swept).items():
        numbers = {op[2] for op in ops}
        complaint = None
        if len(numbers) > 1:
            complaint = f"differs between gateways or reads: {numbers}"
        else:
            now[register] = numbers.pop()
            complaint = survivor_complaint(registers.get(register, []),
                                           history.initial.get(register, 0), flushed, now[register])
        if complaint:
            bad += 1
            if bad <= 10:
                print(f"register {register} (block {register // 8}) {complaint}")
    lost = sum(1 for register, number in now.items()
               for newest in [newest_acknowledged(registers.get(register, []))]
               if newest and newest[3] > age_of(registers.get(register, []), number))
    print(f"{len(now)} registers, {len(history.flushes)} flushes: "
          f"{lost} lost something that was not flushed, {bad} complaints")
    save_next(history, now, out)
    if bad or not history.flushes:
        sys.exit(1)


def save_next(history, now, path):
    """What is there, and the unanswered writes, which may still take effect."""
    left = [op for op in history.ops if op[0] == "w" and op[4] is None and
            now.get(op[1]) != op[2]]
    with open(path, "w") as out:
        json.dump({"initial": now, "ops": left}, out)


def following(path, out):
    history = History().load(path)
    save_next(history, {op[1]: op[2] for op in History().load(path + ".swept").ops}, out)


def newest_acknowledged(ops):
    return max((op for op in ops if op[0] == "w" and op[4] is not None),
               key=lambda op: op[3], default=None)


def age_of(ops, number):
    """When what is there was surely in effect."""
    return max((op[4] or ENDLESS for op in ops if op[2] == number), default=-ENDLESS)


def is_linearizable_by_search(ops, initial):
    """All orders, for short histories: the meaning of the word."""
    must = [op for op in ops if op[4] is not None]
    may = [op for op in ops if op[4] is None]
    for count in range(len(may) + 1):
        for extra in itertools.combinations(may, count):
            if search(must + list(extra), initial):
                return True
    return False


def search(left, value):
    if not left:
        return True
    limit = min(ENDLESS if op[4] is None else op[4] for op in left)
    for i, op in enumerate(left):
        if op[3] > limit or (op[0] == "r" and op[2] != value):
            continue
        if search(left[:i] + left[i + 1:], op[2] if op[0] == "w" else value):
            return True
    return False


def selftest():
    rng, counts = random.Random(option("SEED", 7)), {True: 0, False: 0}
    for _ in range(option("ROUNDS", 4000)):
        times = rng.sample(range(1, 100), 14)
        ops, numbers = [], [0]
        for i in range(rng.randrange(2, 7)):
            sent, answered = sorted(times[2 * i:2 * i + 2])
            if rng.randrange(2):
                numbers.append(i + 1)
                ops.append(["w", 0, i + 1, sent, None if rng.randrange(4) == 0 else answered])
            else:
                ops.append(["r", 0, None, sent, answered])
        for op in ops:
            if op[0] == "r":
                op[2] = rng.choice(numbers)
        wanted, got = is_linearizable_by_search(ops, 0), not judge_register(ops, 0)
        counts[wanted] += 1
        if wanted != got:
            sys.exit(f"the judge says {got}, the search {wanted}: {ops}")
    print(f"{counts[True]} linearizable, {counts[False]} not: the judge and the search agree")
    if min(counts.values()) < 500:
        sys.exit("too few of one kind")


def main(command, *words):
    if command == "load":
        Load(words[0], words[1], words[2], words[3:]).run()
    elif command == "sweep":
        sweep(words[0], words[1], words[2:])
    elif command == "check":
        check(words)
    elif command == "survived":
        survived(*words)
    elif command == "next":
        following(*words)
    elif command == "selftest":
        selftest()
    else:
        sys.exit(__doc__)


main(*(sys.argv[1:] or ["help"]))
