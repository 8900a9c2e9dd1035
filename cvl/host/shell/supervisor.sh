# The far side of cvl: what a request does, and the way in for the processes that it leaves behind.
#
# `sh supervisor.sh BASE LIB` is a request (docs/far-side.md); with a further `ENTRY ID ARG...` it is
# one of the processes that outlive it. POSIX sh and POSIX utilities throughout, plus tar.
# All names of ours begin with "_": a variable of the connection reaches the job as it was.

unset _seal # it might be exported
_base=$1 _lib=$2 _entry=${3:-request} _id=${4:-} _nonce='' _seal='' _opened=''
_here=$_base/lib/$_lib
_nl='
'

# Answers go to stderr, marked with the nonce; everything else there is the host's own words.
say() { printf 'cvl:%s %s\n' "$_nonce" "$*" >&2; }

fail() {
    say fail "$@"
    exit 1
}

# load FILE...: read these files of ours. A job may have damaged one by accident: without an answer
# of ours the client puts all of them there again.
load() {
    for _part; do
        _loaded=
        . "$_here/$_part.sh"
        [ "$_loaded" = "$_part" ] || exit 1
    done
}

# What stands between these two on stdout is ours; all else there is the login shell's.
open_answer() { printf 'cvl:%s\n' "$_nonce"; _opened=1; }

close_answer() {
    [ "$_opened" != 1 ] || printf '\000cvl:%s end\n' "$_nonce"
    _opened=${_opened:+2}
}

headers() {
    _verb='' _id='' _follow='' _offset=0 _cause=stopped _grace='' _timeout='' _build_timeout=''
    _cache='' _from='-' _tree='' _need='' _tty='' _docker='' _disk='' _gpu='' _days=30
    _image='' _settle='' _spare='' _whose=''
    while IFS= read -r _line && [ -n "$_line" ]; do
        _value=${_line#* }
        case ${_line%% *} in
            nonce) _nonce=$_value ;;
            verb) _verb=$_value ;;
            id) word id "$_value" && _id=$_value ;;
            seal) word seal "$_value" && _seal=$_value ;;
            cause) code_of "$_value" && _cause=$_value || fail usage "cause: $_value" ;;
            offset) centis "$_value" && _offset=$_value ;;
            days) centis "$_value" && _days=$_value ;;
            grace) centis "$_value" && _grace=$_centis ;;
            timeout) centis "$_value" && _timeout=$_centis ;;
            build_timeout) centis "$_value" && _build_timeout=$_centis ;;
            cache) word cache "$_value" && _cache=$_value ;;
            base) _from=$_value ;;
            tree) word tree "$_value" && _tree=$_value ;;
            lib) word lib "$_value" && _need="$_need $_value" ;;
            spare) centis "$_value" && _spare=$((_centis / 100)) ;;
            disk) centis "$_value" && _disk=$_centis ;;
            gpu) centis "$_value" && _gpu=$_centis ;;
            image) _image=$_value ;;
            tty) _tty=$_value ;;
            docker) _docker=$_value ;;
            follow) _follow=$_value ;;
            settle) _settle=$_value ;;
            whose) _whose=$_value ;;
        esac
    done
}

# word NAME VALUE: refuse what could mean something in a path.
word() {
    case $2 in
        '' | [!A-Za-z0-9]* | *[!A-Za-z0-9._-]*) fail usage "$1: $2" ;;
    esac
}

# centis NUMBER -> _centis: hundredths, as /proc/uptime counts them.
centis() {
    case $1 in
        '' | . | *[!0-9.]* | *.*.* | ????????????????*) fail usage "not a number: $1" ;;
    esac
    _whole=${1%%.*} _part=00
    case $1 in *.*) _part=${1#*.}00 ;; esac
    _part=${_part%"${_part#??}"}
    _whole=${_whole#"${_whole%%[!0]*}"}
    _centis=$((${_whole:-0} * 100 + 1$_part - 100))
}

# The run that a request is about; what it says when there is none.
known() {
    [ -n "$_id" ] || fail usage 'no id'
    of "$_id"
    [ -d "$_run" ]
}

status() {
    known || forbid not-started || { nowhere; return; }
    state
    say "$_state"
}

# forbid CAUSE: who is in doubt has it settled: a start that is still on its way finds its place
# taken, by a run that has ended for this cause. It may still have been faster. Made aside and renamed,
# as every run: an empty folder in that place would give way to the start's own rename.
forbid() {
    [ -n "$_settle" ] || return 1
    self
    code_of "$1"
    _new=$_base/new/$_pid-$_started
    trap 'rm -rf "$_new"' EXIT
    {
        mkdir -p -m 700 "$_base" "$_base/runs" "$_base/new" "$_new" "$_new/run"
        true >"$_new/run/output" && true >"$_new/run/marker" && true >"$_new/run/place" &&
            printf '%s\n' "$1 $_code 0" "$_seal" >"$_new/run/result" || return 1
        [ -d "$_run" ] || mv "$_new/run" "$_run"
        rm -rf "$_new" "$_run/run"
    } 2>/dev/null
    [ -d "$_run" ]
}

# A process of its own does the work, so that the connection may go at once.
stop() {
    known || forbid "$_cause" || { nowhere; return; }
    state
    [ "$_state" = running ] || { say "$_state"; return; }
    here
    load sweep containers # as the process will
    unset CVL_RUN_ID # we may have been asked from within the run
    leave stop "$_cause" "$_grace" >/dev/null
    say stopping
}

# leave ENTRY ARG...: run supervisor.sh on, free of this connection. It is told the seal on its standard
# input: an argument or a variable could be seen by the job. The first setsid makes a group
# leader, as which the second one forks and returns at once: unlike `&`, which would have the job
# ignore INT and QUIT for good.
leave() {
    _entry=$1
    shift
    set -- sh "$_here/supervisor.sh" "$_base" "$_lib" "$_entry" "$_id" "$@"
    if command -v setsid >/dev/null; then
        setsid setsid "$@" <&3 3<&-
    else
        "$@" <&3 3<&- &
    fi 2>/dev/null 3<<-END
	$_seal
	END
}

# told -> _seal: what `leave` has said.
told() {
    IFS= read -r _seal
    exec </dev/null
}

# What ends without `end`, or a refusal, has broken off; `end payload`: there is one on stdout.
request() {
    headers
    case $_verb in
        start) load start && start ;;
        follow | written) load follow sweep && "$_verb" ;;
        status | stop) "$_verb" ;;
        changed | pack | rest) load changes && "$_verb" ;;
        clean | runs | sweep) load clean sweep && "$_verb" ;;
        *) fail usage "verb: $_verb" ;;
    esac
    close_answer
    say end ${_opened:+payload}
}

# What outlives a request reads all of its files before it begins: later they may be damaged.
load alive
case $_entry in
    request) request ;;
    supervise) told && load run sweep containers && supervise ;;
    stop) told && load sweep containers && stop_run "$5" "$6" ;;
    spare) told && load start cache spare && make_spare "$5" "$6" ;;
esac; exit # what may stand here by now is not ours
