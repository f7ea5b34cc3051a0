#!/bin/bash
# A block is damaged, and there is no other copy of it: reading it is an error, for its neighbours nothing has happened,
# every sheep names it in `cluster health`, a restart forgets nothing, and a write makes it good.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires jq

start_cluster 2 --copies 1 --min-insync 1
collie 1 vdi create disk 64M

# Damage block 700 behind the store's back. Both sheep look at each byte that they read, so whoever has it notices.
timeout $((60 * patience)) "$python" - "$work/nbd1" "$work"/store*/segment* <<-'END' || fail "the block is not found on disk"
	import nbd, sys
	handle = nbd.NBD()
	handle.set_export_name("disk")
	handle.connect_unix(sys.argv[1])
	def content(block):
	    return b"%016d" % block * 256
	for block in range(1024, 0, -1):
	    handle.pwrite(content(block - 1), (block - 1) * 4096)
	handle.flush()
	for path in sys.argv[2:]:
	    with open(path, "r+b") as file:
	        at = file.read().find(content(700))
	        if at >= 0:
	            file.seek(at + 100)
	            file.write(b"!")
	            sys.exit(0)
	sys.exit("not in any segment")
END

# expect_blocks ERRNO: what reading block 700 ends with (0: no error); all others are as they were.
expect_blocks() {
	timeout $((60 * patience)) "$python" - "$work/nbd2" "$1" <<-'END' || fail "the blocks are not as expected"
		import nbd, sys
		handle = nbd.NBD()
		handle.set_export_name("disk")
		handle.connect_unix(sys.argv[1])
		for block in range(1024):
		    try:
		        data, error = handle.pread(4096, block * 4096), 0
		    except nbd.Error as failure:
		        data, error = None, failure.errnum
		    want = int(sys.argv[2]) if block == 700 else 0
		    if error != want or (data and data != b"%016d" % block * 256):
		        sys.exit(f"block {block}: error {error}, not {want}, or other data")
	END
}

# lost N: how many problems sheep N tells that are of lost data.
lost() {
	{ collie "$1" --json cluster health || true; } | jq '[.. | objects | select(.what? // "" | test("data is lost"))] | length'
}

expect_blocks 5
comes_to 1 lost 1
comes_to 1 lost 2
{ collie 2 cluster health || true; } | tr '\n' ' ' >"$work/health" # it wraps lines
grep -q "volume 'disk': data is lost: pg [0-9]* object [0-9]*\.0 (from byte 0 on, 1 of its blocks)" "$work/health" ||
	fail "$(cat "$work/health")"
wait_healthy 2
for i in 1 2; do
	kill_sheep $i TERM
	start_sheep $i
	wait_until 20 sheep_is_up $i
done
wait_healthy 2
expect_blocks 5
comes_to 1 lost 1

timeout $((60 * patience)) "$python" - "$work/nbd1" <<-'END' || fail "the block cannot be written"
	import nbd, sys
	handle = nbd.NBD()
	handle.set_export_name("disk")
	handle.connect_unix(sys.argv[1])
	handle.pwrite(b"%016d" % 700 * 256, 700 * 4096)
	handle.flush()
END
expect_blocks 0
comes_to 0 lost 1
comes_to 0 lost 2
