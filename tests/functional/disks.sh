# File systems on disks that fail on command: nbd_faulty <- nbdfuse <- loop <- ext4 or XFS. Source
# it after functions.sh:
#
#	make_disk 1 ext4		mounted at $work/disk1; sheep 1 has its store there
#	faulty 1 hang			a command for it: see nbd_faulty.c
#	kill_sheep 1; remove_disk 1
#
# A process with a request in a hung disk cannot die: `faulty N release error` comes before anyone
# waits for its end.
faulty_bin=${top_builddir:?}/tests/functional/nbd_faulty
declare -A disk_server=() disk_fuse=() disk_loop=() disk_run=()
disk_size=${disk_size:-1200M}

requires_disks() {
	requires nbdfuse fusermount3 losetup mkfs.ext4 mkfs.xfs
	[ "$(id -u)" = 0 ] || skip "only root can mount file systems"
	[ -c /dev/fuse ] || skip "there is no /dev/fuse"
	[ -c /dev/loop-control ] || skip "there is no /dev/loop-control"
	grep -qw "${1:-ext4}" /proc/filesystems || modprobe "${1:-ext4}" 2>/dev/null ||
		skip "the kernel has no ${1:-ext4}"
}

faulty() {
	local i=$1
	shift
	timeout 60 "$faulty_bin" -c "$work/control$i.${disk_run[$i]}" "$@"
}

disk_is_served() {
	grep -q '^listening' "$work/server$1.${disk_run[$1]}" && kill -0 "${disk_server[$1]}"
}

# What survived of an XFS has the UUID of the one before, which another mount namespace may still hold.
mount_disk() { # N TYPE
	mount -t "$2" $([ "$2" != xfs ] || echo "-o nouuid") "${disk_loop[$1]}" "$work/disk$1" ||
		fail "disk $1 does not mount"
}

# make_disk N ext4|xfs [IMAGE]: with a new file system, or with the one in the image.
make_disk() {
	local i=$1 type=$2 image=${3:-} run fuse
	run=$((${disk_run[$i]:-0} + 1))
	disk_run[$i]=$run
	fuse=$work/fuse$i.$run
	mkdir -p "$fuse" "$work/disk$i"
	# shellcheck disable=SC2086 # the image is one word or none
	"$faulty_bin" "unix:$work/medium$i.$run" "$work/control$i.$run" "$disk_size" ${image:+"$image"} \
		>"$work/server$i.$run" 2>&1 </dev/null &
	disk_server[$i]=$!
	wait_until 20 disk_is_served "$i"
	nbdfuse "$fuse/disk" "nbd+unix:///disk?socket=$work/medium$i.$run" >>"$work/fuse.log" 2>&1 </dev/null &
	disk_fuse[$i]=$!
	wait_until 10 test -f "$fuse/disk"
	disk_loop[$i]=$(losetup --show --direct-io=on -f "$fuse/disk") || fail "no loop device"
	if [ -z "$image" ]; then
		case $type in
		ext4) mkfs.ext4 -q "${disk_loop[$i]}" ;;
		xfs) mkfs.xfs -q -f "${disk_loop[$i]}" ;;
		esac || fail "mkfs.$type"
	fi
	mount_disk "$i" "$type"
	mkdir -p "$work/disk$i/store"
	ln -sfn "disk$i/store" "$work/store$i"
}

# Its sheep has been killed. Nothing of what the disk still has to do may matter any more.
remove_disk() {
	local i=$1
	# Asked of the mount table: a file system without its disk does not answer.
	! findmnt -n "$work/disk$i" >/dev/null || try_for 10 umount "$work/disk$i" || umount -l "$work/disk$i" || true
	if [ -n "${disk_loop[$i]:-}" ]; then
		losetup -d "${disk_loop[$i]}" || true
		unset "disk_loop[$i]"
	fi
	if [ -n "${disk_fuse[$i]:-}" ]; then
		try_for 10 fusermount3 -u "$work/fuse$i.${disk_run[$i]}" || fusermount3 -uz "$work/fuse$i.${disk_run[$i]}" || true
		try_for 5 is_gone "${disk_fuse[$i]}" || kill -KILL "${disk_fuse[$i]}" 2>/dev/null || true
		wait "${disk_fuse[$i]}" 2>/dev/null || true
		unset "disk_fuse[$i]"
	fi
	if [ -n "${disk_server[$i]:-}" ]; then
		kill -TERM "${disk_server[$i]}" 2>/dev/null || true
		try_for 5 is_gone "${disk_server[$i]}" || kill -KILL "${disk_server[$i]}" 2>/dev/null || true
		wait "${disk_server[$i]}" 2>/dev/null || true
		unset "disk_server[$i]"
	fi
	rm -f "$work/medium$i.${disk_run[$i]}" "$work/control$i.${disk_run[$i]}"
}

# As wait_until, but with a result.
try_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" >/dev/null 2>&1; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

is_gone() {
	! kill -0 "$1" 2>/dev/null
}

# cut_disk N none|all|random SEED: the power of sheep N and its disk goes, and comes back with what
# survived. The sheep is not started. Prints what was lost.
cut_disk() {
	local i
	power_off "$@"
	for i in $1; do power_on "$i"; done
}

power_off() {
	local i=$1
	faulty "$i" cut "$2" "$3" "$work/survived$i" || fail "disk $i is not cut"
	kill -KILL "${sheep_pid[$i]}"
	end_disk "$i"
}

# Its power has been cut and its sheep has got SIGKILL.
end_disk() {
	local i=$1
	faulty "$i" release error >/dev/null
	wait_gone "$i"
	disk_type[$i]=$(findmnt -no FSTYPE "$work/disk$i")
	remove_disk "$i"
}
declare -A disk_type=()

power_on() {
	make_disk "$1" "${disk_type[$1]}" "$work/survived$1"
	rm -f "$work/survived$1"
}

# For cleanup(): whatever state things are in.
release_disks() {
	local i
	for i in "${!disk_server[@]}"; do faulty "$i" release error >/dev/null 2>&1 || true; done
}
remove_disks() {
	local i
	for i in "${!disk_run[@]}"; do remove_disk "$i" || true; done >/dev/null 2>&1
}
before_kills+=(release_disks)
after_kills+=(remove_disks)

# remount_disk N: its sheep has been killed and its faults have ended: the file system recovers.
remount_disk() {
	local i=$1 type
	type=$(findmnt -no FSTYPE "$work/disk$i")
	try_for 10 umount "$work/disk$i" || fail "disk $i is busy"
	mount_disk "$i" "$type"
}

# extents N FILE: where a file of the store is on the disk: "OFFSET LENGTH" in bytes, a line each.
extents() {
	filefrag -e -b512 "$work/store$1/$2" |
		sed -nE 's/^ *[0-9]+: +[0-9]+\.\. *[0-9]+: +([0-9]+)\.\. *[0-9]+: +([0-9]+):.*/\1 \2/p' |
		while read -r at length; do echo $((at * 512)) $((length * 512)); done
}
