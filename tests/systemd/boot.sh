#!/bin/sh
# SPDX-License-Identifier: MIT
#
# boot.sh DIRECTORY BUILD: install the build over this system's root, in memory, and boot that. In mount and PID namespaces of its own.
set -eu

directory=$1
build=$2

echo "step: overlay"
mkdir -p "$directory/memory"
mount -t tmpfs -o mode=755 redial-test "$directory/memory"
cd "$directory/memory"
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work redial-test root
# What this system has enabled is its own matter. Without an id, units would be enabled at the first boot.
rm -rf root/etc/systemd/system/*.wants root/etc/machine-id
echo 0123456789abcdef0123456789abcdef >root/etc/machine-id
echo "step: install"
make -s -C "$build" install DESTDIR="$PWD/root" >/dev/null
echo "step: boot"
exec systemd-nspawn --quiet --register=no --keep-unit --private-network --machine=redial-test --directory=root --boot \
    systemd.unit=sysinit.target </dev/null
