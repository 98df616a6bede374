#!/bin/sh
# A copy of this machine in namespaces of its own, for tests/support/machine.rs. Processes in it read the
# machine's files. Their writes are visible in the copy alone, and end with its last process. Needs root.
#
# machine.sh BASE GROUP PREPARE INIT [ARGUMENT]...
# BASE is an empty directory to mount on, GROUP the name of a control group that is made for it. The shell text PREPARE is run in
# the copy; then INIT is its process 1.

set -eu

if [ "$1" != inside ]; then
    base=$1 group=$2
    mount -t tmpfs tmpfs "$base"
    mkdir "$base/up" "$base/work" "$base/root" "$base/cgroup"
    # The copy's init system creates its control groups below this one.
    mount -t cgroup2 cgroup2 "$base/cgroup"
    mkdir "$base/cgroup/$group"
    echo $$ >"$base/cgroup/$group/cgroup.procs"
    shift 2
    exec unshare --mount --pid --cgroup --fork --kill-child --propagation private sh "$0" inside "$base" "$@"
fi

base=$2 prepare=$3
shift 3
root=$base/root
umount "$base/cgroup"
mount -t overlay overlay -o "lowerdir=/,upperdir=$base/up,workdir=$base/work" "$root"
# File systems mounted below the machine's root are missing in the copy: bind those that the test needs.
for directory in $MACHINE_NEEDS; do
    if [ -z "$(ls -A "$root$directory" 2>/dev/null)" ]; then
        mkdir -p "$root$directory"
        mount --bind "$directory" "$root$directory"
        mount -o remount,bind,ro "$root$directory"
    fi
done
mount -t proc proc "$root/proc"
# Keep the copy from changing kernel settings and devices.
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup" 2>/dev/null || :
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t tmpfs -o mode=755 tmpfs "$root/dev"
for device in null zero full random urandom tty; do
    : >"$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir "$root/dev/shm" "$root/dev/pts" "$root/dev/mqueue"
chmod 1777 "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
ln -s /proc/self/fd "$root/dev/fd"
# An init system writes to the console before it logs.
: >"$root/dev/console"
cd "$root"
mkdir -p "$root/mnt/outside"
pivot_root . mnt/outside
umount -l /mnt/outside
cd /
sh -euc "$prepare"
: >/run/prepared
exec "$@"
