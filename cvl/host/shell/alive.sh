# Who lives: clocks, processes, the state of a run, and locks whose holder may die.

# uptime -> _now: hundredths of a second since boot, suspend included. No fork.
uptime() {
    read -r _now _rest </proc/uptime
    _now=$((${_now%.*} * 100 + 1${_now#*.} - 100))
}

# process PID -> _started: its start in ticks since boot. False if there is none; a zombie is none.
process() {
    { read -r _stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    _stat=${_stat##*) }
    # shellcheck disable=SC2086 # numbers
    set -- $_stat
    _started=${20}
    [ "$1" != Z ] && [ "$1" != X ]
}

# self -> _me: `<pid> <start> <boot id> <host>` of this very process, also in a subshell.
self() {
    read -r _stat </proc/self/stat
    _pid=${_stat%% *}
    process "$_pid"
    machine
    _me="$_pid $_started $_boot $_host"
}

machine() {
    _boot=- _host=-
    { read -r _boot </proc/sys/kernel/random/boot_id; } 2>/dev/null
    { read -r _host </proc/sys/kernel/hostname; } 2>/dev/null
}

# whose: who asks is told what tells our folder on this machine from all others. No fork.
whose() {
    [ -n "$_whose" ] || return 0
    machine
    _machine=
    { read -r _machine _rest </etc/machine-id; } 2>/dev/null
    say on "${_machine:--}" "$_host" "$_base"
}

# nowhere: there is no such run, and this is who says so.
nowhere() {
    whose
    say unknown
}

# living PID START BOOT HOST: such a process lives. What another machine started is taken to live:
# homes are shared between machines, and only that machine can tell.
living() {
    machine
    if [ "$3" != "$_boot" ]; then
        [ -n "$4" ] && [ "$4" != "$_host" ]
        return
    fi
    process "$1" && [ "$_started" = "$2" ]
}

# of ID -> _run, _job: the folder of a run that is ours, and the one that its job may do with as it
# likes. They lie apart, so that no job hits ours by accident. An older cvl had both in one.
of() {
    _run=$_base/runs/$1 _job=$_base/jobs/$1
    [ ! -d "$_run/work" ] || _job=$_run
}

# supervised: the run's supervisor lives. Its file is empty while it is being written.
supervised() {
    _tries=0
    _owner=
    while [ -e "$_run/supervisor" ]; do
        { read -r _owner <"$_run/supervisor"; } 2>/dev/null
        [ -n "$_owner" ] || [ "$_tries" -ge 20 ] && break
        _tries=$((_tries + 1))
        sleep 0.05
    done
    # shellcheck disable=SC2086 # four words
    [ -n "$_owner" ] && [ "$_owner" != "${_placeholder:-}" ] && living $_owner
}

# here: refuse what only the machine can do that the run is on.
here() {
    { read -r _rest _rest _its_boot _its_host <"$_run/supervisor"; } 2>/dev/null
    machine
    [ "$_its_boot" = "$_boot" ] || [ "${_its_host:-$_host}" = "$_host" ] ||
        fail unknown "this run is on $_its_host, not on $_host"
}

# state -> _state: `running` or `result ...`. Who finds the supervisor dead settles the run.
state() {
    concluded && return
    supervised && { _state=running; return; }
    concluded && return
    load sweep
    lost
    concluded || fail internal 'the result cannot be written'
}

# concluded -> _state, _bytes: the result is there. One without the seal that we were
# told was not written by the supervisor, and counts for nothing. Who was told none believes what is
# there once the supervisor is gone, which could still write another.
concluded() {
    [ -f "$_run/result" ] && sound || return 1
    if [ -n "$_seal" ]; then
        [ "$_mark" = "$_seal" ] || return 1
    else
        ! supervised || return 1
    fi
    _state="result $_why $_exit $_bytes${_flags:+ $_flags}"
}

# sound -> _why, _exit, _bytes, _flags, _mark: the file holds what could be a result.
sound() {
    _mark=
    { read -r _why _exit _bytes _flags; read -r _mark; } <"$_run/result" 2>/dev/null
    case $_exit in '' | 0?* | *[!0-9]* | ????*) return 1 ;; esac
    case $_bytes in '' | 0?* | *[!0-9]* | ???????????????????*) return 1 ;; esac
    case ${_flags#disk-full} in
        '') ;;
        containers-left | containers-left=* | ' containers-left' | ' containers-left='*) ;;
        *) return 1 ;;
    esac
    case $_flags in *[!a-z0-9=,\ -]*) return 1 ;; esac
    [ "$_why" != exited ] || { [ "$_exit" -le 255 ]; return; }
    code_of "$_why" && [ "$_code" = "$_exit" ]
}

# ended -> _outcome, _code, _deadline: somebody has claimed the ending.
ended() {
    set -- "$_run"/ending.*
    [ -e "$1" ] || return 1
    _outcome=${1##*/ending.}
    _deadline=${_outcome##*.}
    _outcome=${_outcome%.*}
    code_of "$_outcome"
}

# code_of CAUSE -> _code: the exit code of an ending that is not the job's own. False for any other.
code_of() {
    case $1 in
        timeout) _code=124 ;;
        interrupted) _code=130 ;;
        hangup) _code=129 ;;
        stopped | terminated) _code=143 ;;
        build-failed | not-started | lost) _code=125 ;;
        *) return 1 ;;
    esac
}

# lock FOLDER SECONDS: be the only holder of FOLDER's lock, or give up. No fork if it is free.
#
# Its files lock.N are only ever counted up. The highest is held while it names a living process;
# whoever can make the next one holds that. As the highest is never removed, two that find the
# same holder dead cannot both succeed.
lock() {
    self
    uptime
    _until=$((_now + $2 * 100))
    until claim "$1"; do
        uptime
        [ "$_now" -lt "$_until" ] || return 1
        sleep 0.05
    done
}

claim() {
    top "$1"
    [ "$_top" = 0 ] || free "$1/lock.$_top" || return 1
    _held=$1/lock.$((_top + 1))
    _last=$_top
    set -C
    { true >"$_held"; } 2>/dev/null
    _made=$?
    set +C
    [ "$_made" = 0 ] || return 1
    printf '%s\n' "$_me" >"$_held"
    top "$1"
    if [ "$_top" -gt "$((_last + 1))" ]; then
        rm -f "$_held"
        return 1
    fi
}

# top FOLDER -> _top: the highest lock there; old ones are thrown away now and then.
top() {
    _top=0
    set -- "$1"/lock.*
    for _file; do
        _n=${_file##*lock.}
        [ "$_n" = '*' ] || [ "$_n" -le "$_top" ] || _top=$_n
    done
    [ $# -lt 50 ] || for _file; do
        [ "${_file##*lock.}" -ge "$((_top - 10))" ] || rm -f "$_file"
    done
}

# free FILE: its holder has let go, or is dead. It is empty while it is being written.
free() {
    _holder=
    { read -r _holder <"$1"; } 2>/dev/null
    if [ -z "$_holder" ]; then
        sleep 0.2
        { read -r _holder <"$1"; } 2>/dev/null
    fi
    # shellcheck disable=SC2086 # four words
    [ -z "$_holder" ] || [ "$_holder" = free ] || ! living $_holder
}

unlock() { printf 'free\n' >"$_held"; }

_loaded=alive # the last line: nothing of it is missing
