# The pristine copy of what was sent, kept so that only changes travel, and the workspace made of it.

# held -> _id_held: the tree that the cache holds, `-` if none or if an update was cut short.
held() {
    _id_held=
    { read -r _id_held <"$_base/cache/$_cache/id"; } 2>/dev/null
    _id_held=${_id_held:--}
}

# Refuse a delta that does not fit, before it is read. Whether the cache, and a spare of it, are what
# they are said to be is found out while it comes in.
cache_fits() {
    _look='' _look_spare=''
    [ -n "$_cache" ] && [ "$_from" != - ] || return 0
    held
    [ "$_id_held" != - ] && { [ "$_id_held" = "$_from" ] || [ "$_id_held" = "$_tree" ]; } || refit
    _folder=$_base/cache/$_cache
    intact "$_folder" &
    _look=$!
    spare_of "$_id_held" || return 0
    intact "$_folder/spare" &
    _look_spare=$!
}

# believe -> _ready: what was found out; the spare may be taken. Changes while another start brings
# the cache up to date are that one's: the lock will tell.
believe() {
    _ready='' _seen=${_id_held:-}
    if [ -n "$_look" ] && ! wait "$_look"; then
        held
        [ "$_id_held" != "$_seen" ] || { disown; refit; }
    elif [ -n "$_look_spare" ] && wait "$_look_spare"; then
        _ready=1
    fi
}

# intact FOLDER: nothing in its tree has changed since the id was written, by whosever hand: disks
# for scratch are rid of what is old file by file.
intact() {
    _changed=$(cd "$1/tree" && { find . -cnewer ../id -print -quit || find . -newer ../id; }) 2>/dev/null &&
        [ -z "$_changed" ]
}

# disown: what the cache holds is no tree that we know. That can be said without the lock.
disown() {
    true >"$_base/cache/$_cache/id"
    _id_held=-
}

refit() {
    say need tree "$_id_held"
    exit 1
}

# workspace: make ws/ in the new run. The lock is held until it is copied: the next update waits.
workspace() {
    [ ! -e "$_fresh/inplace" ] || return 0
    if [ -z "$_cache" ]; then
        try mkdir -p "$_new/job/ws"
        git_root "$_new/job/ws"
        return
    fi
    _folder=$_base/cache/$_cache
    [ -d "$_folder" ] || try mkdir -p -m 700 "$_base/cache" "$_folder"
    lock "$_folder" 300 || fail internal "the cache $_folder stays locked"
    take_spare
    update
    true >"$_folder/used"
    if [ -e "$_new/twin/end" ]; then
        git_root "$_new/twin/tree"
        try mv "$_new/twin/tree" "$_new/job/ws"
    elif [ -e "$_new/spare" ]; then
        try mv "$_new/spare/tree" "$_new/job/ws"
    else
        copy "$_folder/tree" "$_new/job/ws"
    fi
    unlock
}

# update: bring the cache to _tree. The id is empty meanwhile, so that a crash is noticed.
update() {
    held
    [ "$_id_held" != "$_tree" ] || return 0
    [ "$_from" = - ] || [ "$_id_held" = "$_from" ] || { unlock; refit; }
    true >"$_folder/id"
    if [ "$_from" = - ]; then
        try rm -rf "$_folder/tree"
        [ -d "$_new/tree" ] || try mkdir "$_new/tree"
        git_root "$_new/tree"
        try mv "$_new/tree" "$_folder/tree"
    else
        merge "$_folder/tree"
        [ ! -e "$_new/spare" ] || merge "$_new/spare/tree"
    fi
    printf '%s\n' "$_tree" >"$_folder/id" || no_space
}

# merge TREE. tar, not cp: it replaces what is read-only, a link, or of another type.
merge() {
    [ ! -s "$_new/gone" ] || (cd "$1" && xargs -0 rm -rf -- <"$_new/gone") ||
        fail internal 'the cache cannot be updated'
    [ ! -d "$_new/tree" ] || try join_trees "$1"
}

join_trees() { (cd "$_new/tree" && tar -cf - .) | tar -xpof - -C "$1"; }

# copy FROM TO [COMMAND...]: by way of that command. Where files can share blocks they do; they never
# share an inode.
copy() {
    _copied=$1 _copy=$2
    shift 2
    "$@" cp -a --reflink=auto "$_copied" "$_copy" 2>/dev/null && return
    try rm -rf "$_copy"
    try "$@" cp -a "$_copied" "$_copy"
}

# git_root FOLDER: the least that `git rev-parse --show-toplevel` takes for a repository.
git_root() {
    [ ! -e "$1/.git" ] || return 0
    try mkdir "$1/.git" "$1/.git/objects" "$1/.git/refs"
    printf 'ref: refs/heads/main\n' >"$1/.git/HEAD"
}

_loaded=cache # the last line: nothing of it is missing
