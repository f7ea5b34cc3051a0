#!/bin/bash
# All machines lose power at once, but no disk loses anything: every sheep is killed with -9 and the
# notes that would prove them clean are gone. So all copies are marked, and the placement groups
# elect their leaders by themselves, within seconds. What was flushed is there; the loss is recorded
# for ever, and the gateway without a store that lives through it fails its next FLUSH, once.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdcopy jq
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"

pgs=32

# How many PGs have a loss epoch, as sheep 1 sees it.
lost_pgs() {
	collie 1 --json pg list | jq '[.[] | select(.loss_epoch > 0)] | length'
}

power_cut() {
	local i
	for i in 1 2 3; do kill -KILL "${sheep_pid[$i]}"; done
	for i in 1 2 3; do
		wait_gone $i
		rm -f "$work/run$i"/*.note
	done
}

start_cluster 3 --pgs $pgs
collie 1 vdi create disk 64M
collie 1 vdi create survivor 64M
[ "$(lost_pgs)" = 0 ] || fail "a new cluster has lost something"

start_gateway() {
	"$sheep_bin" --gateway --state "$work/state4" -c "local:$work/engine" -p 127.0.0.1:0 \
		-n "unix:$work/nbd4" -a "unix:$work/admin4" --runtime-dir "$work/run4" \
		>>"$work/sheep4.log" 2>&1 </dev/null &
	sheep_pid[4]=$!
	wait_until 20 sheep_is_up 4
}

# A client of the fourth: writes a block that nobody flushes, waits for the file, and flushes twice.
survivor() {
	$python - "$work/nbd4" "$work/go" <<-'END'
		import errno, nbd, os, sys, time
		handle = nbd.NBD()
		handle.set_export_name("survivor")
		handle.connect_unix(sys.argv[1])
		handle.pwrite(b"s" * 4096, 0)
		handle.flush()
		handle.pwrite(b"t" * 4096, 0)
		print("written", flush=True)
		while not os.path.exists(sys.argv[2]):
		    time.sleep(0.05)
		try:
		    handle.flush()
		    sys.exit("the first FLUSH after the loss succeeds")
		except nbd.Error as error:
		    if error.errnum != errno.EIO:
		        sys.exit(f"FLUSH: {error}")
		handle.flush()
		if handle.pread(4096, 0)[:1] not in (b"s", b"t"):
		    sys.exit("the block holds neither")
	END
}

rounds=$(rounds 10)
start_gateway
for ((round = 1; round <= rounds; round++)); do
	rm -f "$work/stop" "$work/state.progress"
	FLUSH_EVERY=50 $blocks write "$work/state" "$work/stop" disk "$work/nbd1" "$work/nbd2" "$work/nbd3" \
		>"$work/writer.out" 2>&1 &
	writer=$!
	background=($writer)
	rm -f "$work/go"
	survivor >"$work/survivor.out" 2>&1 &
	survivor=$!
	background+=($survivor)
	wait_until 20 grep -q written "$work/survivor.out"
	wait_until 20 has_written 1000
	power_cut
	# What no disk lost is there, flushed or not, so nothing the writer had acknowledged is missing.
	started=$(date +%s%N)
	for i in 1 2 3; do start_sheep $i; done
	for i in 1 2 3; do wait_until 30 sheep_is_up $i; done
	wait_healthy 4 60
	echo "round $round: healthy $((($(date +%s%N) - started) / 1000000)) ms after the start"
	before=$(cat "$work/state.progress")
	wait_until 20 has_written $((before + 200))
	touch "$work/stop"
	touch "$work/go"
	wait $survivor || { cat "$work/survivor.out"; fail "round $round: the survivor"; }
	wait $writer || { cat "$work/writer.out"; fail "round $round: the writer"; }
	background=()
	$blocks check "$work/state" disk "$work"/nbd[123] || fail "round $round: writes were lost"
	[ "$(lost_pgs)" = $pgs ] || fail "$(lost_pgs) of $pgs PGs show a loss epoch"
	collie 1 vdi delete disk 2>/dev/null || wait_until 20 collie 1 vdi delete disk
	collie 1 vdi create disk 64M
done
