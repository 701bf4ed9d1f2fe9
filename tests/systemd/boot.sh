#!/bin/sh
# SPDX-License-Identifier: MIT
#
# boot.sh DIRECTORY BUILD: install the build over this system's root, in memory, and boot that. In mount and PID namespaces of its own.
#
# SYSTEMD_ROOT names the root of another system: then it is that one, the build lies in there, and its own tools install it.
set -eu

directory=$1
build=$2
tree=${SYSTEMD_ROOT:-/}

echo "step: overlay"
mkdir -p "$directory/memory"
mount -t tmpfs -o mode=755 redial-test "$directory/memory"
cd "$directory/memory"
mkdir upper work root
mount -t overlay -o lowerdir="$tree",upperdir=upper,workdir=work redial-test root
# What this system has enabled is its own matter. Without an id, units would be enabled at the first boot.
rm -rf root/etc/systemd/system/*.wants root/etc/machine-id
echo 0123456789abcdef0123456789abcdef >root/etc/machine-id
echo "step: install"
if [ "$tree" = / ]; then
    make -s -C "$build" install DESTDIR="$PWD/root" >/dev/null
else
    mount --bind root "$tree/mnt"
    chroot "$tree" make -s -C "$build" install DESTDIR=/mnt >/dev/null
fi
echo "step: boot"
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --machine=redial-test --directory=root --boot \
    systemd.unit=sysinit.target </dev/null
