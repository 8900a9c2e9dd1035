#!/bin/sh
# Writes to stdout one line, how many KiB the results have, and then the results: a tar, or several
# one after another. With too many (more KiB than $1) only the line.
set -u
root=${CVL_ROOT_DIR:-}
cd "$root/" || exit 1
echo "$$" >cvl/collecting
: >cvl/wanted
trap 'rm -f cvl/collecting' EXIT

have() { command -v "$1" >/dev/null 2>&1; }

results() {
    find cvl/work workspace cvlization_repo \
        \( -name __pycache__ -o -name .git -o -name .venv \) -prune -o \
        \( -type l -o -type f \) -newer cvl/start "$@"
}

add() {
    total=0
    while read -r kib _; do total=$((total + kib)); done
    echo "$total"
}

if ! have find || [ ! -e cvl/start ]; then
    results() { :; }
    have tar || exit 3
    du -sk cvl/work | add
    exec tar -cf - cvl/work
fi
size=$(results -exec du -k {} + 2>/dev/null | add)
echo "$size"
[ "$size" -le "$1" ] || exit 0
if have tar; then
    results -exec tar -cf - {} +
elif have python3; then
    results -print0 | python3 -c 'import sys, tarfile
names = sys.stdin.buffer.read().decode("utf-8", "surrogateescape").split("\0")[:-1]
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|", format=tarfile.GNU_FORMAT) as out:
    for name in names:
        out.add(name, recursive=False)'
else
    exit 3
fi
:
