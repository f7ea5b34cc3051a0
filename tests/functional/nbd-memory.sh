#!/bin/bash
# lib/nbd against clients that nobody here wrote: a disk in memory, over TCP and a unix socket.
. "${top_srcdir:?}/tests/functional/functions.sh"
requires nbdinfo nbdcopy qemu-img qemu-io fio
"$python" -c 'import nbd' 2>/dev/null || skip "python3 has no libnbd"

server=${top_builddir:?}/tests/functional/nbd_memory
here=${top_srcdir:?}/tests/functional
limit="timeout $((60 * patience))"

has_address() {
	grep -q '^listening on ' "$work/address"
}

# serve ADDRESS [-r]: sets $uri.
serve() {
	local address=$1
	shift
	: >"$work/address"
	"$server" "$@" "$address" 64M >"$work/address" 2>"$work/sheep-nbd.log" &
	pid=$!
	background+=("$pid")
	wait_until 10 has_address
	address=$(sed -n 's/^listening on //p' "$work/address")
	case $address in
	unix:*) uri="nbd+unix:///memory?socket=${address#unix:}" raw=${address#unix:} ;;
	*) uri="nbd://$address/memory" raw=$address ;;
	esac
}

# A clean end: the exit code has what sanitizers found.
stop() {
	kill -TERM "$pid"
	$limit tail --pid="$pid" -f /dev/null || fail "the server does not stop"
	wait "$pid" || fail "the server ended with $?"
}

copies() {
	head -c 64M /dev/urandom >"$work/image"
	$limit nbdcopy --connections=4 --requests=64 "$work/image" "$uri"
	$limit nbdcopy --connections=4 "$uri" "$work/back"
	cmp "$work/image" "$work/back" || fail "nbdcopy gives back something else"
	# One connection, large requests, and a source with holes.
	truncate -s 64M "$work/sparse"
	printf data | dd of="$work/sparse" bs=1 seek=20000001 conv=notrunc status=none
	$limit nbdcopy --connections=1 --request-size=16777216 "$work/sparse" "$uri"
	$limit nbdcopy --request-size=33554432 "$uri" "$work/back"
	cmp "$work/sparse" "$work/back" || fail "a sparse file comes back different"
}

qemu() {
	$limit qemu-img convert -n -f raw -O raw "$work/image" "$uri"
	$limit qemu-img compare -f raw -F raw "$work/image" "$uri"
	# Odd places; -f is FUA; -z -u zeroes and gives back.
	$limit qemu-io -f raw -c 'write -f -P 0x5a 12345 6789' -c 'write -z -u 1M 3M' \
		-c 'discard 8M 1M' -c 'flush' -c 'read -P 0x5a 12345 6789' -c 'read -P 0 1M 3M' \
		-c 'aio_write -P 0x11 16M 2M' -c 'aio_read -v 0 1' -c 'aio_flush' \
		-c 'read -P 0x11 16M 2M' "$uri" >"$work/qemu" || {
		cat "$work/qemu"
		fail "qemu-io"
	}
	! grep -qi 'pattern verification failed\|error' "$work/qemu" || fail "qemu-io: $(cat "$work/qemu")"
}

fio_verify() {
	$limit fio --name=verify --ioengine=nbd --uri="$uri" --rw=randwrite --iodepth=64 \
		--bssplit=512/20:4k/50:12k/10:64k/10:1m/10 --size=64M --verify=crc32c \
		--verify_fatal=1 --verify_state_save=0 --fsync=64 --output="$work/fio" ||
		fail "fio: $(cat "$work/fio")"
}

for address in "unix:$work/nbd" 127.0.0.1:0; do
	serve "$address"
	[ "$($limit nbdinfo --size "$uri")" = $((64 << 20)) ] || fail "the size"
	$limit nbdinfo --list "$uri" | grep -q 'export="memory"' || fail "the list"
	copies
	qemu
	fio_verify
	$limit nbdcopy "$uri" "$work/mirror"
	$limit "$python" "$here/odd-requests.py" "$uri" "$work/mirror" 400
	$limit nbdcopy "$uri" "$work/back"
	cmp "$work/mirror" "$work/back" || fail "odd requests"
	$limit "$python" "$here/nbd-odd-clients.py" "$uri" rw
	$limit "$python" "$here/garbage.py" "$raw"
	$limit nbdinfo "$uri" >/dev/null || fail "not alive any more"
	stop

	serve "$address" -r
	$limit "$python" "$here/nbd-odd-clients.py" "$uri" ro
	stop
done
