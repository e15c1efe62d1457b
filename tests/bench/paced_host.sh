#!/bin/sh
# paced_host.sh: what sshd runs in place of each command. It answers with the next exchange that record_ssh.py kept in /recording,
# as late as the host gave it, and does no work. /counts has how many each host gave.
# shellcheck disable=SC1090,SC2154 # the recording sets seconds, size and rc
set -eu
read -r name </etc/hostname
count=/counts/$name
number=0
if [ -e "$count" ]; then read -r number <"$count"; fi
echo $((number + 1)) >"$count"
if [ ! -e "/recording/$number.sh" ]; then
    echo "paced_host: the recording has no exchange $number: $SSH_ORIGINAL_COMMAND" >&2
    exit 70
fi
. "/recording/$number.sh" # seconds, size, rc
if [ "$size" -gt 0 ]; then
    got=$(wc -c)
    # the same module has the same size, but for what it is told (names, times)
    if [ "$got" -lt $((size * 9 / 10 - 2000)) ] || [ "$got" -gt $((size * 11 / 10 + 2000)) ]; then
        echo "paced_host: exchange $number is of $got bytes, and of $size in the recording" >&2
        exit 70
    fi
fi
sleep "$seconds"
if [ -s "/recording/$number.err" ]; then cat "/recording/$number.err" >&2; fi
[ "$rc" = 0 ] || { cat "/recording/$number.out" && exit "$rc"; }
exec cat "/recording/$number.out"
