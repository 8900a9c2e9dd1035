# start: unpack what was sent into a private folder, make the run of it, leave the supervisor.

start() {
    known && { join; return; }
    for _h in $_need; do
        [ -e "$_base/lib/$_h" ] || { say need lib "$_h"; exit 1; }
    done
    load cache spare prepare run sweep containers ${_follow:+follow} # all, while a refusal costs nothing
    cache_fits
    say send # nothing of it has been sent so far
    trap ':' PIPE # we have to clean up when nobody hears us any more
    trap 'exit 1' HUP INT TERM
    trap '[ -z "${_maker:-}" ] || wait "$_maker"; rm -rf "${_new:-}"' EXIT # it may still be writing
    unpack
    believe
    workspace
    prepare
    furnish
    if ! publish; then
        exec 8>&-
        rm -rf "$_new"
        join
        return
    fi
    # Its standard output is a pipe to here, which it closes when it has put its name down.
    : "$(leave supervise)"
    whose
    say started
    exec 7<"$_run/alive" 8>&-
    rm -rf "$_new"
    [ -z "$_spare" ] || leave spare "$_cache" "$_spare" >/dev/null 7<&-
    [ -z "$_follow" ] || watch
}

# The run is there already: a second start only follows.
join() {
    whose
    say started
    [ -z "$_follow" ] || { load follow && follow; }
}

unpack() {
    self
    _new=$_base/new/$_pid-$_started
    _fresh=$_new/run
    set -- mkdir -p -m 700 "$_base" "$_base/runs" "$_base/jobs" "$_base/new" "$_new" \
        "$_fresh" "$_fresh/bin" "$_new/job" "$_new/job/work"
    "$@" 2>/dev/null || try "$@"
    { mkfifo "$_fresh/alive"; shim; } 2>/dev/null & # while the tar comes in
    _maker=$!
    if [ -n "$_cache" ] && [ "$_from" = - ]; then
        try twice
    else
        try tar -xpof - -C "$_new"
    fi
    [ -e "$_new/end" ] || fail internal 'what was sent broke off'
}

# twice: unpack, and a whole tree into twin/ as well, as it comes in: the one becomes the cache, the
# other the workspace. If the second fails alone, the first is copied later.
twice() {
    mkdir "$_new/twin" && mkfifo "$_new/pipe" || return
    { tar -xpof - -C "$_new/twin" tree end || rm -f "$_new/twin/end"; cat; } <"$_new/pipe" >/dev/null 2>&1 &
    _twin=$!
    tee "$_new/pipe" | tar -xpof - -C "$_new"
    _unpacked=$?
    wait "$_twin"
    return "$_unpacked"
}

# try COMMAND...: refuse the run, with the host's own words on stderr, if it fails.
try() {
    _words=$(LC_ALL=C "$@" 2>&1) && return
    printf '%s\n' "$_words" >&2
    case $_words in
        *'o space'* | *'rote only'* | *[Qq]uota*) no_space ;; # "Wrote only 1 of 2 bytes": tar
        *'ead-only'* | *'ermission denied'*) fail readonly "cannot write to $_base" ;;
        *) fail internal "${_words##*"$_nl"}" ;;
    esac
}

no_space() { fail space "no space left for $_base"; }

# What the supervisor needs, made while a refusal still costs nothing. Whatever is changed after
# the marker was changed by the job.
furnish() {
    wait "$_maker"; _maker=
    [ -p "$_fresh/alive" ] || fail tool "no named pipe can be made in $_base"
    exec 8<>"$_fresh/alive"
    set -- "${_grace:-1000}" "${_timeout:--}" "${_build_timeout:--}" "${_tty:-0}" "${_docker:-0}"
    _placeholder=$_me # until the supervisor has written its own name
    printf '%s\n' "$_placeholder" >"$_fresh/supervisor" || no_space
    printf '%-99s\n' '' >"$_fresh/reserve" || no_space
    { true >"$_fresh/open" && true >"$_fresh/output" && true >"$_fresh/marker"; } || no_space
    uptime
    printf '%s\n' "$* $_now" "$_base/jobs/$_id" >"$_fresh/options" || no_space
}

# A rename, so that the run is there whole or not at all. If somebody was faster, it lands inside
# of theirs, or fails: whose name stands in it has won, and puts the job's folder in its place.
publish() {
    of "$_id"
    [ -d "$_run" ] || mv "$_fresh" "$_run" 2>/dev/null || [ -d "$_run" ] || try mv "$_fresh" "$_run"
    _owner=
    { read -r _owner <"$_run/supervisor"; } 2>/dev/null
    if [ "$_owner" != "$_placeholder" ]; then
        rm -rf "$_run/run"
        return 1
    fi
    [ ! -e "$_job" ] || try rm -rf "$_job"
    mv "$_new/job" "$_job" 2>/dev/null || try mv "$_new/job" "$_job"
}

_loaded=start # the last line: nothing of it is missing
