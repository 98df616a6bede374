#!/bin/sh
# A copy of this machine in namespaces of its own, for tests/support/machine.rs. What is on the machine may be read in it,
# what is written in it nobody else sees, and it is gone with its last process. Needs root.
#
# machine.sh BASE GROUP PREPARE INIT [ARGUMENT]...
# BASE is an empty directory to mount on, GROUP the name of a control group that is made for it. The shell text PREPARE is run in
# the copy; then INIT is its process 1.

set -eu

if [ "$1" != inside ]; then
    base=$1 group=$2
    mount -t tmpfs tmpfs "$base"
    mkdir "$base/up" "$base/work" "$base/root" "$base/cgroup"
    # What the copy's init system makes of control groups stays below one of its own.
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
# What is mounted on the machine's root is not in the copy. These directories are needed.
for directory in $MACHINE_NEEDS; do
    if [ -z "$(ls -A "$root$directory" 2>/dev/null)" ]; then
        mkdir -p "$root$directory"
        mount --bind "$directory" "$root$directory"
        mount -o remount,bind,ro "$root$directory"
    fi
done
mount -t proc proc "$root/proc"
# Neither kernel settings nor devices are the copy's to change.
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
# Where an init system writes before it logs.
: >"$root/dev/console"
cd "$root"
mkdir -p "$root/mnt/outside"
pivot_root . mnt/outside
umount -l /mnt/outside
cd /
sh -euc "$prepare"
: >/run/prepared
exec "$@"
