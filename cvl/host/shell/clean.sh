# Tidying up: one run, the list of runs, and everything that is old.

# clean: all of a run goes but its result, and what its sender has said of it.
clean() {
    known || { say unknown; return; }
    state
    [ "$_state" != running ] || fail usage "$_id is still running"
    empty
    leftovers
    say "$_state"
}

runs() {
    open_answer
    for _run in "$_base"/runs/*; do
        _id=${_run##*/}
        of "$_id"
        [ -d "$_run" ] && state && printf '%s %s\n' "$_id" "$_state"
    done
}

# sweep: what nobody has come back for in _days days.
sweep() {
    open_answer
    for _run in "$_base"/runs/*; do
        _id=${_run##*/}
        of "$_id"
        [ -d "$_run" ] && state && [ "$_state" != running ] && old "$_run/result" || continue
        empty
        [ "$_job" != "$_run" ] && [ -e "$_job" ] || rm -rf "$_run" && printf '%s removed\n' "$_id"
        leftovers
    done
    for _job in "$_base"/jobs/*; do
        [ -e "$_base/runs/${_job##*/}" ] || ! old "$_job" ||
            { rm -rf "$_job" && printf '%s removed\n' "${_job#"$_base"/}"; }
    done
    for _new in "$_base"/new/*-*; do
        _pid=${_new##*/}
        [ ! -d "$_new" ] || { process "${_pid%-*}" && [ "$_started" = "${_pid#*-}" ]; } ||
            { rm -rf "$_new" && printf '%s removed\n' "${_new#"$_base"/}"; }
    done
    for _folder in "$_base"/cache/*; do
        old "$_folder/used" && lock "$_folder" 1 || continue
        rm -rf "$_folder" && printf '%s removed\n' "${_folder#"$_base"/}"
    done
    return 0
}

# old FILE: it is there, and was last written _days days ago or longer.
old() {
    [ -e "$1" ] || return 1
    [ "$_days" = 0 ] || [ -n "$(find "$1" -mtime "+$((_days - 1))")" ]
}

# empty: remove all of a run but its result and meta.json; what is root's with a container's help.
empty() {
    _help=
    set -- "$_job"
    [ "$_job" != "$_run" ] || set --
    for _file in "$_run"/* "$_run"/.[!.]*; do
        case $_file in "$_run/result" | "$_run/meta.json") ;; *) set -- "$@" "$_file" ;; esac
    done
    rm -rf "$@" 2>/dev/null && return
    for _file; do force "$_file" || _help=needed; done
    [ -n "$_help" ] || return 0
    load containers
    as_root "$_image" "$_job" 'cd /r && for f in * .[!.]*; do case $f in result|meta.json) ;; *) rm -rf "$f" ;; esac; done' &&
        [ "$_job" != "$_run" ] && rmdir "$_job"
}

# force PATH: remove it although folders in it are read-only, as those of some caches are.
force() {
    find "$1" -type d ! -perm -700 -exec chmod u+rwx {} \;
    rm -rf "$1"
} 2>/dev/null

# leftovers: say what could not be removed.
leftovers() {
    [ "${_help:-}" = needed ] || return 0
    _help=
    find "$_job" "$_run" -mindepth 1 ! -name result ! -name meta.json 2>/dev/null | head -n 20 |
        while IFS= read -r _file; do say warn "cannot remove $_file"; done
}

_loaded=clean # the last line: nothing of it is missing
