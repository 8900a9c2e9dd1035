# The spare: a second copy of what the cache holds, made beside one run for the next one, which then
# has to move it only. It takes a second for 10,000 files, and nobody waits for it.

# spare_of ID: there is a spare, of that tree.
spare_of() {
    _id_spare=
    { read -r _id_spare <"$_folder/spare/id"; } 2>/dev/null
    [ "${_id_spare:--}" = "$1" ]
}

# take_spare: out of the cache, into our own folder. Under the lock, before the tree changes.
take_spare() {
    held
    [ -z "$_ready" ] || [ "$_id_held" = - ] || ! spare_of "$_id_held" ||
        try mv "$_folder/spare" "$_new/spare"
}

# make_spare CACHE KB: copied without the lock, for a start that comes meanwhile should not wait. It
# counts if nobody has held the lock since.
make_spare() {
    _cache=$1 _folder=$_base/cache/$1
    lock "$_folder" 1 || return
    held
    unlock
    _turn=${_held##*.}
    [ "$_id_held" != - ] && roomy "$2" || return 0
    ! { spare_of "$_id_held" && intact "$_folder/spare"; } || return 0
    _new=$_base/new/$_pid-$_started
    trap 'rm -rf "$_new"' EXIT
    trap 'exit 1' HUP INT TERM
    mkdir -p -m 700 "$_new" "$_new/spare" || return
    set --
    ! command -v nice >/dev/null || set -- nice -n 19
    copy "$_folder/tree" "$_new/spare/tree" "$@"
    lock "$_folder" 1 || return
    [ "${_held##*.}" != "$((_turn + 1))" ] || ! intact "$_folder" || put_spare
    unlock
}

put_spare() {
    printf '%s\n' "$_id_held" >"$_new/spare/id" || return
    [ ! -e "$_folder/spare" ] || mv "$_folder/spare" "$_new/stale" || return
    mv "$_new/spare" "$_folder/spare"
}

# roomy KB: a spare is a convenience. It takes a tenth of what is free at most.
roomy() {
    _free=$(df -Pk "$_base" 2>/dev/null | awk 'NR > 1 { print $4; exit }')
    [ "$((${_free:-0} / 10))" -ge "$1" ]
}

_loaded=spare # the last line: nothing of it is missing
