#!/usr/bin/python3
"""Three sheep (3 copies) against unreplicated NBD servers on the same disk, in one run.

bench_servers.py BUILD-DIR [--seconds N] [--size MIB] [--only SUBSTRING] [--servers a,b] [--json FILE]
                 [--markdown FILE] [--dir DIR] [--unix] [--loops N]

Runs the same fio jobs (ioengine=nbd) on each server, job by job, so that the machine's moods meet
all servers alike. CPU is user + system time of all daemons of a server, from /proc, divided by the
client's I/Os. Timings on small shared machines are noisy: quote ratios.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

TICK = os.sysconf("SC_CLK_TCK")
parser = argparse.ArgumentParser()
parser.add_argument("build")
parser.add_argument("--seconds", type=int, default=8)
parser.add_argument("--size", type=int, default=1024, help="MiB of the volume")
parser.add_argument("--only", default="", help="jobs whose name contains this")
parser.add_argument("--servers", default="sheepfold,qemu-nbd,nbdkit")
parser.add_argument("--json")
parser.add_argument("--markdown")
parser.add_argument("--dir", default="/var/tmp")
parser.add_argument("--unix", action="store_true", help="unix sockets, not TCP")
parser.add_argument("--loops", default="1")
args = parser.parse_args()
work = tempfile.mkdtemp(prefix="sheepfold-bench.", dir=args.dir)
processes = []

JOBS = [{"name": f"4k {rw} qd{qd}{' fsync=32' if sync else ''}", "rw": rw, "bs": "4k", "iodepth": qd,
         "fsync": 32 if sync else 0}
        for rw in ("randread", "randwrite") for qd in (1, 16, 64)
        for sync in ((False, True) if rw == "randwrite" else (False,))]
SEQUENTIAL = [{"name": f"1M {rw} qd8", "rw": rw, "bs": "1M", "iodepth": 8, "fsync": 0}
              for rw in ("read", "write")]
# Once on a volume as it was filled, and once after it was overwritten at random: a log does not
# keep what is next to each other together.
JOBS = SEQUENTIAL + JOBS + [dict(SEQUENTIAL[0], name="1M read qd8 after random overwrites")]


def start(command, log):
    out = open(os.path.join(work, log), "ab")
    process = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL)
    processes.append(process)
    return process


def wait_for(what, test, seconds=60):
    end = time.monotonic() + seconds
    while not test():
        if time.monotonic() > end:
            sys.exit(f"gave up waiting for {what}; see {work}")
        time.sleep(0.05)


def address(port):
    return f"unix:{work}/nbd{port}" if args.unix else f"127.0.0.1:{port}"


def uri(port, export):
    if args.unix:
        return f"nbd+unix:///{export}?socket={work}/nbd{port}"
    return f"nbd://127.0.0.1:{port}/{export}"


def answers(port, export):
    return subprocess.run(["nbdinfo", "--size", uri(port, export)], capture_output=True).returncode == 0


class Sheepfold:
    name = "sheepfold"

    def start(self, port):
        sheep = os.path.join(args.build, "sheep/sheep")
        collie = [os.path.join(args.build, "collie/collie"), "-s", f"unix:{work}/admin0"]
        self.pids = []
        for i in range(3):
            self.pids.append(start([sheep, "-c", f"local:{work}/engine", "-p", "127.0.0.1:0", "-n",
                                    address(port + i), "-a", f"unix:{work}/admin{i}", "-z", f"z{i}",
                                    "--loops", args.loops, "--store-size", f"{args.size * 4}M",
                                    "--runtime-dir", f"{work}/run{i}", f"{work}/store{i}"],
                                   f"sheep{i}.log").pid)
        for i in range(3):
            wait_for("sheep", lambda: subprocess.run(
                [collie[0], "-s", f"unix:{work}/admin{i}", "cluster", "info"],
                capture_output=True).returncode == 0)
        for verb in (["cluster", "format", "--wait-nodes", "3"],
                     ["cluster", "wait", "--status", "healthy", "--nodes", "3"],
                     ["vdi", "create", "bench", f"{args.size}M"]):
            subprocess.run(collie + verb, check=True, stdout=subprocess.DEVNULL)
        self.uri = uri(port, "bench")
        wait_for("the export", lambda: answers(port, "bench"))


class OnFile:
    def start(self, port):
        path = f"{work}/{self.name}.img"
        with open(path, "wb") as image:
            image.truncate(args.size << 20)
        self.pids = [start(self.command(path, port), f"{self.name}.log").pid]
        wait_for(self.name, lambda: answers(port, ""))
        self.uri = uri(port, "")


class QemuNbd(OnFile):
    name, extra = "qemu-nbd", []

    def command(self, path, port):
        where = ["-k", f"{work}/nbd{port}"] if args.unix else ["-b", "127.0.0.1", "-p", str(port)]
        return ["qemu-nbd", "-f", "raw", "-t", "-e", "16", "--discard=unmap"] + self.extra + where + [path]


class QemuNbdDirect(QemuNbd):
    name, extra = "qemu-nbd-direct", ["--cache=none", "--aio=native"]


class Nbdkit(OnFile):
    name = "nbdkit"

    def command(self, path, port):
        where = ["-U", f"{work}/nbd{port}"] if args.unix else ["-i", "127.0.0.1", "-p", str(port)]
        return ["nbdkit", "-f"] + where + ["file", path]


class NbdkitMemory(OnFile):
    name = "nbdkit-memory"

    def command(self, path, port):
        where = ["-U", f"{work}/nbd{port}"] if args.unix else ["-i", "127.0.0.1", "-p", str(port)]
        return ["nbdkit", "-f"] + where + ["memory", f"{args.size}M"]


class NbdMemory(OnFile):
    """lib/nbd alone: what of the cost is the protocol's. Use it with --servers nbd-memory,nbdkit-memory."""
    name = "nbd-memory"

    def command(self, path, port):
        return [os.path.join(args.build, "tests/functional/nbd_memory"), address(port), f"{args.size}M"]


KINDS = {c.name: c for c in (Sheepfold, QemuNbd, QemuNbdDirect, Nbdkit, NbdMemory, NbdkitMemory)}


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def run(server, job, seconds):
    command = ["fio", "--name=job", "--ioengine=nbd", f"--uri={server.uri}", f"--rw={job['rw']}",
               f"--bs={job['bs']}", f"--iodepth={job['iodepth']}", f"--size={args.size}M",
               "--randrepeat=1", "--norandommap", "--output-format=json"]
    if job["fsync"]:
        command.append(f"--fsync={job['fsync']}")
    if seconds:
        command += [f"--runtime={seconds}", "--time_based"]
    before = cpu_seconds(server.pids)
    result = subprocess.run(command, capture_output=True, text=True)
    cpu = cpu_seconds(server.pids) - before
    if result.returncode:
        sys.exit(f"{server.name}: {job['name']}: fio: {result.stderr}{result.stdout[-500:]}")
    text = result.stdout
    side = json.loads(text[text.index("{"):])["jobs"][0]["read" if "read" in job["rw"] else "write"]
    return {"iops": side["iops"], "bandwidth": side["bw_bytes"],
            "mean_us": side["clat_ns"]["mean"] / 1e3,
            "p99_us": side["clat_ns"].get("percentile", {}).get("99.000000", 0) / 1e3,
            "cpu_us_per_io": cpu * 1e6 / max(1, side["total_ios"])}


def main():
    servers = [KINDS[name]() for name in args.servers.split(",")]
    for n, server in enumerate(servers):
        server.start(21809 + 10 * n)
        # Every block is there before it is read or overwritten.
        run(server, {"name": "fill", "rw": "write", "bs": "1M", "iodepth": 8, "fsync": 0}, 0)
    rows = []
    for job in JOBS:
        if args.only not in job["name"]:
            continue
        row = {"job": job["name"]}
        for server in servers:
            row[server.name] = run(server, job, args.seconds)
            print(f"{job['name']:36} {server.name:16} " + " ".join(
                f"{key}={value:.1f}" for key, value in row[server.name].items()), file=sys.stderr)
        rows.append(row)
    base = servers[0].name
    others = [s.name for s in servers[1:]]
    lines = ["| job | server | IOPS | MiB/s | mean us | p99 us | CPU us/I/O | " +
             f"IOPS, {base} / it | CPU, {base} / it |", "|---|---|--:|--:|--:|--:|--:|--:|--:|"]
    for row in rows:
        for name in [base] + others:
            r, b = row[name], row[base]
            ratio = ["", ""] if name == base else [
                f"{b['iops'] / r['iops']:.2f}" if r["iops"] else "-",
                f"{b['cpu_us_per_io'] / r['cpu_us_per_io']:.2f}" if r["cpu_us_per_io"] else "-"]
            lines.append(f"| {row['job']} | {name} | {r['iops']:.0f} | {r['bandwidth'] / 2**20:.1f} | "
                         f"{r['mean_us']:.0f} | {r['p99_us']:.0f} | {r['cpu_us_per_io']:.1f} | "
                         f"{ratio[0]} | {ratio[1]} |")
    print("\n".join(lines))
    if args.markdown:
        with open(args.markdown, "w") as out:
            out.write("\n".join(lines) + "\n")
    if args.json:
        with open(args.json, "w") as out:
            json.dump({"seconds": args.seconds, "size_mib": args.size, "rows": rows}, out, indent=1)


try:
    main()
finally:
    for process in processes:
        process.send_signal(signal.SIGKILL)
    for process in processes:
        process.wait()
    if "KEEP" in os.environ:
        print("kept:", work, file=sys.stderr)
    else:
        shutil.rmtree(work, ignore_errors=True)
