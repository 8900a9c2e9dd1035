# The supervisor: builds, runs the job, ends what it left, writes the result.

supervise() {
    trap ':' HUP INT QUIT TERM PIPE USR1 USR2 # caught, not ignored: the job gets them as they were
    of "$_id"
    exec 2>>"$_run/errors"
    exec 3>&- 4>&- 5>&- 6>&- 7>&- 9>&-
    self
    printf '%s\n' "$_me" >"$_run/supervisor"
    exec >/dev/null
    options
    settle
    keep_engine
    _outcome=exited _code=0 _timer=
    enter || { _outcome=not-started _code=125; }
    if [ "$_outcome" = exited ] && [ -e "$_run/build.sh" ]; then
        phase build.sh "$_build_limit" build-failed
        [ "$_code" = 0 ] || { _outcome=build-failed _code=125; }
    fi
    [ "$_outcome" != exited ] || phase job.sh "$_limit" timeout
    finish
}

options() {
    read -r _grace _limit _build_limit _tty _docker _marked <"$_run/options"
}

# keep_engine: which Docker engine the job speaks to is wanted when env.sh is gone.
keep_engine() {
    [ -s "$_run/env.sh" ] || return 0
    _wanted='(DOCKER_(HOST|CONTEXT|CONFIG|TLS|TLS_VERIFY|CERT_PATH|API_VERSION)|PATH|HOME)='
    grep -Eq "^export $_wanted" "$_run/env.sh" || return 0
    (. "$_run/env.sh"; exec /usr/bin/env) | grep -E "^$_wanted" >"$_run/engine"
}

# settle: wait until a file changed now is newer than the marker. Coarse clocks tick every 1-10 ms.
settle() {
    uptime
    while printf '%-99s\n' '' 1<>"$_run/reserve" && ! newer && [ "$_now" -lt "$((_marked + 2))" ]; do
        uptime
    done
}

# shellcheck disable=SC3013 # all three shells have -nt; one of them counts whole seconds
newer() { [ "$_run/reserve" -nt "$_run/marker" ]; }

# enter: be where the job will be.
enter() {
    place
    cd "$_place" 2>>"$_run/output" || {
        printf 'cvl: the folder is not there: %s\n' "$_place" >>"$_run/output"
        return 1
    }
}

# place -> _place: the absolute folder of the job. Its name may hold anything, newlines too.
place() {
    _place=
    while IFS= read -r _line; do _place=$_place$_line$_nl; done <"$_run/place"
    _place=$_place$_line
    case $_place in
        /*) ;;
        *) _place=$_job/ws${_place:+/$_place} ;;
    esac
}

# phase SCRIPT LIMIT CAUSE -> _code: run it in the foreground, so that its code is exact.
phase() {
    ended && return
    _timer=
    if [ "$2" != - ]; then
        timer "$2" "$3" 8>&- &
        _timer=$!
    fi
    (launch "$1") 8>&- </dev/null >>"$_run/output" 2>&1
    _code=$?
    if ended && [ "$_outcome" = "$3" ]; then return; fi
    cancel
}

# cancel: the timer has not struck; end it.
cancel() {
    [ -z "$_timer" ] || kill "$_timer" 2>/dev/null
    _timer=
}

# launch SCRIPT: become the job. env.sh is read in the job's own process: this one keeps no secrets.
# The last to read it removes it first: what it says may leave no `rm` to be found.
launch() {
    # shellcheck disable=SC2016 # the job's shell expands it
    _read='[ ! -s "$_env" ] || { exec 3<"$_env"; [ "$_script" != job.sh ] || rm -f "$_env"
        . /proc/self/fd/3; exec 3<&-; }; unset _env _script'
    self
    printf '%s\n' "$_me" >"$_run/session"
    export PYTHONUNBUFFERED=1 CVL_RUN_ID="$_id" CVL_WORK_DIR="$_job/work" \
        CVL_CONTAINER_NAME="cvl-$_id" COMPOSE_PROJECT_NAME="cvl-$_id"
    [ ! -x "$_run/bin/docker" ] || export PATH="$_run/bin:$PATH"
    # shellcheck disable=SC2016 # the job's shell expands it
    set -- sh -c '_env=$0/env.sh _script=$1; '"$_read"'; . "$0/$1"' "$_run" "$1"
    [ "$_tty" = 0 ] || pretend "$@"
    command -v setsid >/dev/null && set -- setsid "$@"
    exec "$@"
}

# pretend COMMAND...: become the job with a terminal of its own. `script` hands its one word to
# $SHELL, whichever that is, so the word says nothing but our names.
pretend() {
    export _cvl_run="$_run" _cvl_script="$5" _cvl_shell="${SHELL-}"
    SHELL=/bin/sh
    export SHELL
    # shellcheck disable=SC2016
    set -- script -qefc 'stty rows 24 cols 80; export SHELL="$_cvl_shell"; set -- "$_cvl_run" "$_cvl_script"
        unset _cvl_run _cvl_script _cvl_shell; _env=$1/env.sh _script=$2; '"$_read"'; . "$1/$2"' /dev/null
    command -v setsid >/dev/null && set -- setsid "$@"
    exec "$@"
}

# timer CENTIS CAUSE: end the run when its time is over. Naps are short enough to notice the end.
timer() {
    _idle=${!:-}
    trap '[ "${!:-}" = "$_idle" ] || kill "$!" 2>/dev/null; exit' TERM
    uptime
    _until=$((_now + $1))
    while uptime && _left=$((_until - _now)) && [ "$_left" -gt 0 ]; do
        [ "$_left" -lt 1000 ] || _left=1000
        sleep "$((_left / 100)).$((_left % 100 / 10))$((_left % 10))" &
        wait "$!"
        _idle=$!
        concluded && exit
    done
    end_run "$2" "$_grace"
}

# finish: what the job left is ended, then the result is written. Whoever renames `open` first,
# the job's own end or a stop, decides why the run ended.
finish() {
    uptime
    _mercy=$_grace
    [ "$_mercy" -lt 200 ] || _mercy=200
    _deadline=$((_now + _mercy))
    if mv "$_run/open" "$_run/ending.$_outcome.$_deadline" 2>/dev/null; then
        clear_out TERM
    else
        ended
        clear_out CONT
    fi
    full && _flags=disk-full || _flags=
    outlived
    _flags=$_flags${_outlived:+${_flags:+ }$_outlived}
    conclude "$_outcome" "$_code" "$_flags"
    cancel
    act
}

# full: nothing can be written any more, so the output may be cut.
full() { ! printf '%65536s' '' >"$_run/probe"; }

# act: the user's timeout action. It may well be a shutdown, so the result was written before.
act() {
    [ "$_outcome" = timeout ] && [ -e "$_run/action.sh" ] || return 0
    printf 'over\n' >"$_run/supervisor" # nobody waits for us any more
    exec 8>&-
    sh "$_run/action.sh" >"$_run/action.log" 2>&1
}

_loaded=run # the last line: nothing of it is missing
