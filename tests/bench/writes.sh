# Writes whose waits are measured, while something happens to the cluster. Source it after functions.sh:
#
#	fault="kill -9"			# for the messages
#	begin_writes 1			# 4 KiB, 16 in flight, through sheep 1, to the volume "disk" of 64 MiB
#	...; writes_go_on
#	end_writes			# no error; the longest wait of any write is in $longest, in ms
#	wait_whole			# all three sheep are well, and have what was acknowledged
blocks="$python ${top_srcdir:?}/tests/functional/blocks.py"
export BLOCKS=16384
rounds=$([ -n "${SHEEPFOLD_LONG:-}" ] && echo 10 || echo 3)
fault=none

begin_writes() { # GATEWAY
	rm -f "$work/stop" "$work/state.progress"
	DEPTH=16 $blocks write "$work/state" "$work/stop" disk "$work/nbd$1" >"$work/writer.out" 2>&1 &
	writer=$!
	background=($writer)
	wait_until 20 has_written 2000
}

writes_go_on() {
	wait_until 60 has_written $(($(cat "$work/state.progress") + 2000))
}

end_writes() {
	touch "$work/stop"
	wait $writer || { cat "$work/writer.out"; fail "$fault: the writer"; }
	background=()
	grep -q ' 0 reconnects, 0 errors' "$work/writer.out" || fail "$fault: $(cat "$work/writer.out")"
	longest=$(sed -n 's/.*longest \([0-9]*\) ms.*/\1/p' "$work/writer.out")
}

wait_whole() { # [VOLUME]
	local i
	for i in 1 2 3; do wait_until 60 sheep_is_up $i; done
	wait_healthy 3 >"$work/out"
	$blocks check "$work/state" "${1:-disk}" "$work"/nbd[123] >"$work/out" || { cat "$work/out"; fail "$fault: the data"; }
}
