#!/bin/bash
# A disk alone loses its power, with its cache, and comes back; the machine goes on, and so the boot is the same and the
# note is kept. What it had acknowledged and not synced is gone. The store must notice (its log does not reach the note) and
# count as unclean: a FLUSH of a client that outlived it fails, once. When only the process is killed nothing is
# lost, and the FLUSH succeeds; as it does when the file system was unmounted after that, which syncs it. A store that
# stopped on an error of its disk is unclean, whatever its log has.
. "${top_srcdir:?}/tests/functional/functions.sh"
. "${top_srcdir:?}/tests/functional/disks.sh"
requires jq
requires_disks ext4

store_size=800M
make_disk 1 ext4
start_cluster 1 --copies 1 --min-insync 1
collie 1 vdi create disk 64M
"$sheep_bin" --gateway --state "$work/state4" -c "local:$work/engine" -p 127.0.0.1:0 \
	-n "unix:$work/nbd4" -a "unix:$work/admin4" --runtime-dir "$work/run4" \
	>>"$work/sheep4.log" 2>&1 </dev/null &
sheep_pid[4]=$!
wait_until 20 sheep_is_up 4

# client [FAULT]: of the gateway: flushes one pattern, has another one acknowledged after the disk got that fault, and
# flushes when told to. Says how many blocks went back, and how the FLUSH ended.
client() {
	rm -f "$work/second" "$work/go" "$work/client.out"
	timeout $((120 * patience)) "$python" - "$work/nbd4" "$work/second" "$work/go" >"$work/client.out" 2>"$work/client.err" <<-'END' &
		import errno, nbd, os, sys, time
		BLOCK, COUNT = 4096, 64
		def wait_for(path):
		    while not os.path.exists(path):
		        time.sleep(0.02)
		handle = nbd.NBD()
		handle.set_export_name("disk")
		handle.connect_unix(sys.argv[1])
		for i in range(COUNT):
		    handle.pwrite(b"s" * BLOCK, i * BLOCK)
		try:
		    handle.flush()
		except nbd.Error as error:
		    # A new client's FLUSH covers what others wrote in placement groups that it does not use: a loss there, too.
		    if error.errnum != errno.EIO:
		        raise
		    handle.flush()
		print("flushed", flush=True)
		wait_for(sys.argv[2])
		for i in range(COUNT):
		    handle.pwrite(b"t" * BLOCK, i * BLOCK)
		print("written", flush=True)
		wait_for(sys.argv[3])
		seen = [handle.pread(BLOCK, i * BLOCK) for i in range(COUNT)]
		if any(block not in (b"s" * BLOCK, b"t" * BLOCK) for block in seen):
		    sys.exit("a block holds neither")
		try:
		    handle.flush()
		    end = "kept"
		except nbd.Error as error:
		    if error.errnum != errno.EIO:
		        sys.exit(f"FLUSH: {error}")
		    end = "EIO"
		handle.flush()
		print("lost", sum(block[:1] == b"s" for block in seen), end)
	END
	client=$!
	background=($client)
	wait_until 30 grep -qs flushed "$work/client.out"
	# shellcheck disable=SC2086 # words, or none
	[ $# = 0 ] || faulty 1 $1 >/dev/null
	touch "$work/second"
	wait_until 30 grep -q written "$work/client.out"
}

# expect "LOST END" [TEXT]: what the client saw; and what the last start of sheep 1 said of its store.
expect() {
	local got
	touch "$work/go"
	wait $client || { cat "$work/client.err"; fail "$what: the client"; }
	background=()
	got=$(sed -n 's/^lost //p' "$work/client.out")
	said=$(tail -n +$((log_lines + 1)) "$work/sheep1.log" | grep 'filled again' || true)
	echo "$what: blocks lost, and FLUSH: $got; ${said#*store1\': }"
	# shellcheck disable=SC2053 # a pattern
	[[ $got == $1 ]] || fail "$what: '$got', not '$1'"
	case "$said" in
	*"${2:-}"*) [ -n "${2:-}" ] || [ -z "$said" ] || fail "$what: $said" ;;
	*) fail "$what: it does not say '$2' but '$said'" ;;
	esac
}

restart() {
	log_lines=$(wc -l <"$work/sheep1.log")
	start_sheep 1
	wait_until 60 sheep_is_up 1
	wait_until 60 serves_all 1
}

what="killed"
client
kill_sheep 1
restart
expect "0 kept"

what="killed, and mounted again"
client
kill_sheep 1
remount_disk 1
restart
expect "0 kept"

for ((round = 1; round <= $(rounds 20); round++)); do
	what="disk without power"
	client lie # nothing is synced by chance, as by a journal
	cut_disk 1 none $round
	restart
	expect "[1-9]* EIO" "does not reach"
	what="killed after that"
	client
	kill_sheep 1
	restart
	expect "0 kept"
done

# Killed before its registration: without the engine's file nobody can register. The next start finds what this one did.
what="disk without power, and a start that never serves"
client lie
cut_disk 1 none 99
mv "$work/engine" "$work/engine.away"
mkdir "$work/engine"
log_lines=$(wc -l <"$work/sheep1.log")
start_sheep 1
wait_gone 1
tail -n +$((log_lines + 1)) "$work/sheep1.log" | grep -q "does not reach" || fail "$what: it saw nothing"
rm -rf "$work/engine"
mv "$work/engine.away" "$work/engine"
restart
expect "[1-9]* EIO" "no note"

what="an error of the disk"
client
faulty 1 fail write EIO
store_has_stopped() { tail -n +$((log_lines + 1)) "$work/sheep1.log" | grep -q "the store stops"; }
"$python" -c 'import nbd, sys
handle = nbd.NBD()
handle.set_export_name("disk")
handle.connect_unix(sys.argv[1])
handle.pwrite(b"u" * 4096, 32 << 20)' "$work/nbd4" >/dev/null 2>&1 &
background+=($!)
wait_until 30 store_has_stopped
faulty 1 heal >/dev/null
kill_sheep 1
remount_disk 1
restart
expect "* EIO" "no note"
