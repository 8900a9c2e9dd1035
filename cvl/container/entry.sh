#!/bin/sh
# Runs one job inside a container, for POSIX sh and the usual small tools; no Python. What is the
# same wherever that container runs; behind this stands the service's own script.
set -u
exec 2>&1

pid= killer= stopped= interrupted= code=0

say() { printf 'cvl: %s\n' "$*"; }

have() { command -v "$1" >/dev/null 2>&1; }

# Signal everything in this container but ourselves. Where we are not its first process, we are in
# no container of our own, and only the job itself is ours to signal.
signal_all() {
    if [ "$$" = 1 ]; then kill -s "$1" -1; else kill -s "$1" "$pid"; fi 2>/dev/null
}

# The trap for TERM: the job has $CVL_GRACE seconds for its end.
end_job() {
    interrupted=1
    [ -z "$stopped" ] || return 0
    stopped=1
    [ -n "$pid" ] || return 0
    signal_all TERM
    (sleep "$CVL_GRACE"; signal_all KILL) &
    killer=$!
}

# The interpreter that a preset names is not in every image, another that will do may be.
become() {
    case $1 in
        bash) have bash || { shift; set -- sh "$@"; } ;;
        python) have python || { shift; set -- python3 "$@"; } ;;
        python3) have python3 || { shift; set -- python "$@"; } ;;
    esac
    exec "$@"
}

# Run the job, which is what `start` becomes, to its end. A TERM may come before its number is
# known; one that comes during `wait` cuts it short: ask again for the job's own exit code.
run() {
    start "$@" &
    pid=$!
    if [ -n "$stopped" ] && [ -z "$killer" ]; then stopped='' && end_job; fi
    wait "$pid"
    code=$?
    while [ -n "$interrupted" ]; do
        interrupted=
        wait "$pid" 2>/dev/null
        again=$?
        [ "$again" = 127 ] || code=$again
    done
}
