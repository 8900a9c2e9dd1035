# Ending everything that a run started: found by environment, session and descent, then TERM, KILL.

# stop_run CAUSE GRACE: what is left behind by a stop request.
stop_run() {
    trap ':' HUP INT TERM PIPE
    of "$_id"
    read -r _own _rest <"$_run/options"
    end_run "$1" "${2:-$_own}"
}

# end_run CAUSE CENTIS: claim the ending, then TERM, grace, KILL until the supervisor has concluded.
# The rename decides between a stop, a timeout and the job's own end: one of them wins.
end_run() {
    uptime
    _deadline=$((_now + $2))
    mv "$_run/open" "$_run/ending.$1.$_deadline" 2>/dev/null
    _told=' '
    # shellcheck disable=SC2015 # no else
    may_have_containers && end_containers 8>&- &
    while ! concluded && supervised; do
        freeze
        terminate
        uptime
        [ "$_now" -lt "$_deadline" ] || slay
        pause
    done
    concluded || state # the supervisor has died over it: nobody else might ask
}

# clear_out TERM|CONT: end what is left, containers meanwhile; those that it may have started in
# the end are looked for again.
clear_out() {
    may_have_containers || { clear_processes "$1"; return; }
    end_containers 8>&- &
    clear_processes "$1"
    wait "$!"
    [ "$_told" = ' ' ] || end_containers
}

# clear_processes TERM|CONT: at the deadline by KILL. Five seconds more for the kernel. CONT where
# TERM was sent already, by the one who stopped the run.
clear_processes() {
    _told=' '
    while freeze; [ -n "$_found" ]; do
        if [ "$1" = TERM ]; then terminate; else _told=; signal CONT "$_found"; fi
        uptime
        [ "$_now" -lt "$_deadline" ] || slay
        [ "$_now" -lt "$((_deadline + 500))" ] || break
        pause
    done
}

# lost: the supervisor is gone and has left no result. The first who asks concludes.
lost() {
    lock "$_run" 30 || return
    if ! concluded; then
        uptime
        _deadline=$((_now + 200))
        load containers
        clear_out TERM
        conclude lost 125 ''
    fi
    unlock
}

# conclude CAUSE CODE FLAGS: written into space that was reserved, then renamed. What the job may have
# put into either's place, a folder or a pipe, would take it in.
conclude() {
    _bytes=0 # the job may have put something else there
    [ ! -f "$_run/output" ] || _bytes=$(stat -L -c %s "$_run/output" 2>/dev/null || wc -c <"$_run/output")
    rm -f "$_run/env.sh" "$_run/probe"
    for _file in "$_run/reserve" "$_run/result"; do
        [ -f "$_file" ] || [ ! -e "$_file" ] || rm -rf "$_file"
    done
    printf '%-99s\n%s\n' "$1 $2 $((_bytes))${3:+ $3}" "$_seal" 1<>"$_run/reserve"
    mv "$_run/reserve" "$_run/result"
}

# scan -> _found: `pid:start` of each living process of the run; never ourselves. The work folder
# tells it from a run of the same id below another base. Whom we have seen once is found again, also
# when its parent is dead and nothing else tells.
scan() {
    { read -r _rest && IFS= read -r _spelled; } <"$_run/options"
    _session='- -'
    { read -r _session <"$_run/session"; } 2>/dev/null
    read -r _stat </proc/self/stat
    _found=$(
        tail -v -c +1 /proc/[0-9]*/environ /proc/[0-9]*/stat 2>/dev/null | tr '\0' '\n' |
            LC_ALL=C work="CVL_WORK_DIR=$_spelled/work" seen="$_run/seen" awk -v id="$_id" -v session="$_session" -v ours="$$ ${_stat%% *}" '
                function ends(tail) { return substr($0, length($0) - length(tail) + 1) == tail }
                BEGIN {
                    split(session, leader, " "); split(ours, o, " "); skip[o[1]]; skip[o[2]]
                    while ((getline line <ENVIRON["seen"]) > 0) known[line]
                }
                /^==> \/proc\/[0-9]+\/(environ|stat) <==$/ {
                    split($2, path, "/"); pid = path[3]; stat = path[4] == "stat"; next
                }
                !stat {
                    if ($0 == "CVL_RUN_ID=" id) marked[pid]
                    if (/^CVL_WORK_DIR=/ && $0 != ENVIRON["work"] &&
                        (ends("/jobs/" id "/work") || ends("/runs/" id "/work"))) other[pid]
                    next
                }
                sub(/^[0-9]+ \(.*\) /, "") && $1 != "Z" && $1 != "X" {
                    pids[++n] = pid; parent[pid] = $2; group[pid] = $3; sid[pid] = $4; start[pid] = $20
                }
                function take(p) { if (!(p in skip) && !(p in taken)) { taken[p]; more = 1 } }
                END {
                    l = leader[1]
                    led = !(l in start) || start[l] == leader[2]
                    for (i = 1; i <= n; i++) {
                        p = pids[i]
                        if (p in marked && !(p in other) || led && (sid[p] == l || group[p] == l) ||
                            (p ":" start[p]) in known) take(p)
                    }
                    while (more) {
                        more = 0
                        for (i = 1; i <= n; i++) if (parent[pids[i]] in taken) take(pids[i])
                    }
                    for (i = 1; i <= n; i++) if (pids[i] in taken) print pids[i] ":" start[pids[i]]
                }'
    )
    reachable
    [ "$_found" != "${_noted:-}" ] || return 0
    _noted=$_found
    # shellcheck disable=SC2086 # one a line
    printf '%s\n' $_found >>"$_run/seen"
}

# reachable: leave out what we may not signal: it runs as somebody else.
reachable() {
    _all=$_found _found=
    for _p in $_all; do
        kill -0 "${_p%:*}" 2>/dev/null && _found="$_found $_p"
    done
}

# freeze -> _found: a stopped process starts no others, so two scans that agree have them all.
freeze() {
    scan
    for _round in 1 2 3 4 5 6 7 8 9; do
        _before=$_found
        signal STOP "$_found"
        scan
        [ "$_found" != "$_before" ] || break
    done
}

# terminate: TERM to each, once; then they may go on.
terminate() {
    for _p in $_found; do
        case $_told in
            *" $_p "*) ;;
            *) signal TERM "$_p" && _told="$_told$_p " ;;
        esac
    done
    signal CONT "$_found"
}

slay() { signal KILL "$_found"; }

# signal NAME "PID:START ...": those that are still who they were.
signal() {
    for _p in $2; do
        process "${_p%:*}" && [ "$_started" = "${_p#*:}" ] && kill -s "$1" "${_p%:*}" 2>/dev/null
    done
    return 0
}

# pause: until all that was found is gone, or the deadline comes; a tenth of a second after it.
pause() {
    _rounds=$(((_deadline - _now) / 2))
    [ "$_rounds" -gt 0 ] || _rounds=5
    [ "$_rounds" -le 25 ] || _rounds=25
    while sleep 0.02 && [ "$_rounds" -gt 0 ] && any_left; do _rounds=$((_rounds - 1)); done
}

any_left() {
    for _p in $_found; do
        process "${_p%:*}" && [ "$_started" = "${_p#*:}" ] && return 0
    done
    return 1
}

_loaded=sweep # the last line: nothing of it is missing
