# follow: the output from a byte on, as it grows, to its end; then the result.

follow() {
    known || { nowhere; return; }
    if ! concluded; then
        here
        # Held open for writing too, the open cannot wait for a supervisor that is gone.
        exec 8<>"$_run/alive" 7<"$_run/alive" 8>&-
        watch
        return
    fi
    open_answer
    remains
    close_answer
    say "$_state"
}

# written: the output from a byte on, as far as there is any by now.
written() {
    known || fail unknown "no such run: $_id"
    open_answer
    [ ! -e "$_run/output" ] || tail -c "+$((_offset + 1))" "$_run/output"
}

# remains: what a finished run has behind the offset, not a byte more than its result says.
remains() {
    [ "$_offset" -lt "$_bytes" ] && [ -r "$_run/output" ] || return 0
    if [ "$_offset" = 0 ]; then
        head -c "$_bytes" "$_run/output"
    else
        tail -c "+$((_offset + 1))" "$_run/output" | head -c "$((_bytes - _offset))"
    fi
}

# watch: follow a living run. fd 7 reads the fifo that the supervisor holds open for writing, so a
# reader wakes, without polling, when that process is gone, however it went.
watch() {
    open_answer
    _tail=
    trap ':' PIPE
    (
        while read -r _rest; do :; done <&7
        settled
    ) 2>/dev/null >&2 &
    _witness=$!
    trap 'kill "$_witness" $_tail 2>/dev/null' EXIT
    trap 'exit 1' HUP INT TERM
    exec 7<&-
    tail -c "+$((_offset + 1))" -s 0.02 --pid="$_witness" -f "$_run/output" 2>/dev/null &
    _tail=$!
    wait "$_tail"
    [ $? != 1 ] || pour
    concluded || exit 1 # nobody reads us any more
    trap - EXIT
    close_answer
    say "$_state"
}

# settled: a process that is killed lets go of its files a moment before it is gone.
settled() {
    _looks=0
    until concluded || ! supervised || [ "$_looks" -ge 250 ]; do
        _looks=$((_looks + 1))
        sleep 0.02
    done
    state
}

# pour: for a tail that knows no --pid. The descriptor keeps the place between two calls of cat.
pour() {
    exec 5<"$_run/output"
    tail -c "+$((_offset + 1))" <&5
    _naps=0
    while kill -0 "$_witness" 2>/dev/null; do
        cat <&5 && nap || return
    done
    cat <&5
}

# nap: a tenth of a second, less at first; false if nobody reads us any more, where the shell can
# tell: there a `read` with a limit returns at once when the other end of our pipe is gone.
nap() {
    if [ "$_naps" -lt 10 ]; then
        _naps=$((_naps + 1))
        sleep 0.01
        return
    fi
    uptime
    _before=$_now
    # shellcheck disable=SC3045 # busybox has it, who has not says so
    if [ -z "${BASH_VERSION:-}" ] && { read -r -t 0.1 _rest <&1; [ $? = 1 ]; } 2>/dev/null; then
        uptime
        [ "$((_now - _before))" -gt 5 ]
    else
        sleep 0.1
    fi
}

_loaded=follow # the last line: nothing of it is missing
