# What a run has changed, and its files as a tar.

changed() {
    known || fail unknown "no such run: $_id"
    load run
    place
    [ -d "$_place" ] || _place=$_job/work
    [ -e "$_run/inplace" ] || [ ! -d "$_job" ] || unlock_files
    open_answer
    list w "$_job/work" ''
    [ "$_place" = "$_job/work" ] || list e "$_place" "$_job/ws/.git"
    [ -e "$_run/inplace" ] || [ "$_place" = "$_job/ws" ] || list r "$_job/ws" "$_job/ws/.git" "$_place"
}

# list AREA FOLDER LEAVE-OUT...: a record for each thing in there whose ctime is after the marker's.
list() {
    _area=$1
    cd "$2" 2>/dev/null || return 0 # never made, or the job has removed it
    _skip1=${3:-/proc} _skip2=${4:-/proc}
    [ -e "$_skip1" ] || _skip1=/proc
    if find /dev/null -printf '' 2>/dev/null; then
        list_at_once
    else
        list_by_stat
    fi
}

list_at_once() {
    _tail="$_area\\t%P\\0"
    find . -mindepth 1 \( -samefile "$_skip1" -o -samefile "$_skip2" \) -prune \
        -o -type d \( ! -readable -o ! -executable \) -prune -cnewer "$_run/marker" \
        -printf "u\\t0:%C@\\t$_tail" \
        -o -cnewer "$_run/marker" \( \
        -type f -readable -printf "f\\t%s:%C@\\t$_tail" \
        -o -type f -printf "u\\t%s:%C@\\t$_tail" \
        -o -type l -printf "l\\t0:%C@\\t$_tail%l\\0" \
        -o -type d -empty -printf "d\\t0:%C@\\t$_tail" \
        -o ! -type d -printf "o\\t0:%C@\\t$_tail" \) 2>/dev/null || unless_killed "$?"
}

# unless_killed STATUS: a find that a signal has ended has not listed everything.
unless_killed() {
    [ "$1" -lt 128 ] || fail internal "the listing of the results was killed"
}

# list_by_stat: for a find that cannot print. A name may hold line breaks: \001 starts a record,
# and \002 one of what cannot be read.
list_by_stat() {
    _one=$(printf '\001')
    {
        walk -exec sh -c 'for f; do
            [ -h "$f" ] || [ -r "$f" ] && { [ ! -d "$f" ] || [ -x "$f" ]; } || printf "\002%s\n" "$f"
        done' sh {} +
        TZ=UTC0 walk -exec stat -c "$_one%z|%s|%F|%n" {} +
    } 2>/dev/null | LC_ALL=C awk -v after="$(TZ=UTC0 stat -c %y "$_run/marker")" -v area="$_area" '
        /^\001/ { n++; field = substr($0, 2); name[n] = substr(field, 1); next }
        /^\002/ { m++; closed[m] = substr($0, 2); next }
        { if (n) name[n] = name[n] "\n" $0; else closed[m] = closed[m] "\n" $0 }
        function target(path,    command, line, all, first) {
            gsub(/\047/, "\047\\\047\047", path)
            command = "readlink -n -- \047" path "\047; echo ."
            for (first = 1; (command | getline line) > 0; first = 0) all = all (first ? "" : "\n") line
            close(command)
            return substr(all, 1, length(all) - 1)
        }
        function cut(i,    rest) {
            rest = name[i]
            ctime[i] = substr(rest, 1, index(rest, "|") - 1); rest = substr(rest, index(rest, "|") + 1)
            size[i] = substr(rest, 1, index(rest, "|") - 1); rest = substr(rest, index(rest, "|") + 1)
            kind[i] = substr(rest, 1, index(rest, "|") - 1); name[i] = substr(rest, index(rest, "|") + 1)
            rest = name[i]
            if (sub(/\/[^\/]*$/, "", rest)) full[rest]
        }
        END {
            for (i = 1; i <= m; i++) unreadable[closed[i]]
            for (i = 1; i <= n; i++) cut(i)
            for (i = 1; i <= n; i++) {
                if (ctime[i] <= after) continue
                type = kind[i] ~ /^regular/ ? "f" : kind[i] == "directory" ? "d" : kind[i] == "symbolic link" ? "l" : "o"
                if (name[i] in unreadable) type = "u"
                if (type == "d" && name[i] in full) continue
                stamp = ctime[i]; gsub(/[^0-9]/, "", stamp)
                printf "%s\t%s:%s\t%s\t%s%c", type, kind[i] ~ /^regular/ ? size[i] : 0, stamp, area, substr(name[i], 3), 0
                if (type == "l") printf "%s%c", target(name[i]), 0
            }
        }'
}

walk() {
    find . -mindepth 1 \( -samefile "$_skip1" -o -samefile "$_skip2" \) -prune -o "$@"
}

# unlock_files: what is closed to us is opened: our own by us, what a container wrote as root by a
# container, if the run has an image.
unlock_files() {
    legible && return
    find "$_job/ws" "$_job/work" -user "$(id -u)" \
        \( -type f ! -perm -400 -o -type d ! -perm -500 \) -exec chmod u+rX {} \; 2>/dev/null
    [ -n "$_image" ] && ! legible || return 0
    load containers
    # shellcheck disable=SC2016 # the container's shell expands it
    as_root "$_image" "$_job" \
        'find /r/ws /r/work ! -user "$(stat -c %u /r)" ! -type l -exec chmod a+rX {} +'
}

# legible: we may read all that there is.
legible() {
    if find /dev/null -readable >/dev/null 2>&1; then
        [ -z "$(find "$_job/ws" "$_job/work" ! -type l \
            \( ! -readable -o -type d ! -executable \) -print -prune 2>&1 | head -n 1)" ]
        return
    fi
    # shellcheck disable=SC2016
    find "$_job/ws" "$_job/work" -exec sh -c 'for f; do
        [ -h "$f" ] || [ -r "$f" ] && { [ ! -d "$f" ] || [ -x "$f" ]; } || exit 1
    done' sh {} + >/dev/null 2>&1
}

# pack: what GNU tar could not read of a file, it makes up with zeros: that is told.
pack() {
    known || fail unknown "no such run: $_id"
    open_answer
    cd "$_job" || fail internal "cannot enter $_job"
    {
        packed 2>&1 >&9 9>&- | LC_ALL=C awk -v answer="cvl:$_nonce padded " '
            /^tar: .*padding with zeros$/ && n++ < 100 { sub(/^tar: /, answer) }
            { print }' >&2
    } 9>&1
}

# packed: without GNU tar, many paths become several archives, one after the other.
packed() {
    case $(tar --version 2>/dev/null) in
        *GNU*) LANGUAGE=en tar --quoting-style=literal -cf - --no-recursion --null -T - ;;
        *) xargs -0 tar -cf - --no-recursion ;;
    esac || say warn 'some files could not be read'
}

# rest: what follows the byte `offset` of a file, if it is marked as it was, before and afterwards.
rest() {
    known || fail unknown "no such run: $_id"
    IFS= read -r _mark
    _file=$(cat && echo .) # its last characters may be line breaks
    _file=${_file%.}
    cd "$_job" || fail internal "cannot enter $_job"
    open_answer
    [ "$(stamp "$_file")" = "$_mark" ] || return
    # The tail of busybox counts up to 2 GiB, and reads all that is before.
    dd if="$_file" bs=65536 skip="$((_offset / 65536))" 2>/dev/null |
        tail -c "+$((_offset % 65536 + 1))" | head -c "$((${_mark%% *} - _offset))"
    [ "$(stamp "$_file")" != "$_mark" ] || say same
}

# stamp FILE: its size and its ctime, as `changed` writes them.
stamp() {
    if find /dev/null -printf '' 2>/dev/null; then
        find "$1" -maxdepth 0 -printf '%s %C@'
    else
        printf '%s %s' "$(stat -c %s "$1")" "$(TZ=UTC0 stat -c %z "$1" | tr -cd 0-9)"
    fi
}

_loaded=changes # the last line: nothing of it is missing
