#!/bin/sh
# SPDX-License-Identifier: MIT
#
# Replay each fuzz target's corpus: tests/fuzz/corpus/NAME through tests/fuzz/fuzz_NAME of the build that we are in.
set -eu

for corpus in "${top_srcdir:-.}"/tests/fuzz/corpus/*; do
    echo "fuzz_${corpus##*/}:"
    "tests/fuzz/fuzz_${corpus##*/}" "$corpus"/*
done
