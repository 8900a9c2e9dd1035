# Containers that a run started. They are the daemon's children, not ours: found by label and name.

# may_have_containers: only then is Docker asked at all.
may_have_containers() {
    read -r _rest _rest _rest _rest _docker _rest <"$_run/options"
    [ "$_docker" = 1 ] || [ -e "$_run/docker-used" ] || return 1
    command -v docker >/dev/null
}

# end_containers: what there is gets the time until the deadline, then it is removed by force. That
# the engine does not answer, because it is busy, does not mean that it runs nothing.
end_containers() {
    for _round in 1 2 3 4 5; do
        containers || { sleep 0.2; continue; }
        [ -n "$_containers" ] || break
        uptime
        _left=$(((_deadline - _now + 99) / 100))
        [ "$_left" -gt 0 ] || _left=0
        # shellcheck disable=SC2086 # ids
        [ "$_left" = 0 ] || engine $((_left + 3)) stop -t "$_left" $_containers
        # shellcheck disable=SC2086
        engine 5 rm -f -v $_containers
    done
    [ ! -e "$_run/compose-used" ] || networks
} >/dev/null 2>&1

# containers -> _containers, if the engine answers: by our label, by the name that scripts are given,
# by compose project, and what mounts anything in its folders, however that is spelled.
containers() {
    _compose=com.docker.compose.project
    _format="{{.ID}}|{{.Names}}|{{.Label \"cvl.run\"}}|{{.Label \"$_compose\"}}"
    _format="$_format|{{.Label \"$_compose.working_dir\"}},{{.Mounts}}"
    _listed=$(engine 5 ps -a --no-trunc --format "$_format") || return
    _containers=$(
        printf '%s\n' "$_listed" | awk -F '|' -v id="$_id" '
            function within(folder) { return index($0 ",", folder id "/") || index($0 ",", folder id ",") }
            $3 == id || $4 == "cvl-" id || within("/jobs/") || within("/runs/") { print $1; next }
            { n = split($2, names, ","); for (i = 1; i <= n; i++) if (names[i] == "cvl-" id) print $1 }'
    )
}

# outlived -> _outlived: the flag that names what of all containers is younger than the job and still
# runs, and bears no run's label: started past our docker, by the job or by somebody else meanwhile.
# The job may have a PATH that is not ours; where no docker is found, nobody can say.
outlived() {
    _outlived=
    may_have_containers || has_keepers || return 0
    _outlived=$(PATH=$PATH:/usr/local/bin:/usr/bin:/snap/bin; unmarked)
} 2>/dev/null

unmarked() {
    # Some date programs know no fractions of a second: then what is of the same second counts too.
    _since=$(date -u -r "$_run/marker" +%Y-%m-%dT%H:%M:%S.%N) && _ids=$(engine 5 ps -q --no-trunc) &&
        [ -n "$_ids" ] || return 0
    case ${_since##*.} in *[!0-9]*) _since=${_since%.*} ;; esac
    # shellcheck disable=SC2086 # ids
    engine 5 inspect -f '{{.Created}}|{{.Id}}|{{json .Config.Labels}}' $_ids |
        awk -F '|' -v since="$_since" '
            $1 "" >= since && !/"cvl\.run":/ && n < 3 { ids = ids (n++ ? "," : "") substr($2, 1, 12) }
            END { if (n) print "containers-left=" ids }'
}

# has_keepers: a process that keeps a container is younger than the job; or the engine is elsewhere.
has_keepers() {
    [ ! -r "$_run/engine" ] || ! grep -Eq '^DOCKER_HOST=(tcp|ssh):' "$_run/engine" || return 0
    for _file in $(grep -l -e '^containerd-shim' -e '^docker-contain' -e '^conmon' /proc/[0-9]*/comm); do
        _keeper=${_file#/proc/}
        process "${_keeper%/comm}" && [ "$_started" -ge "$_marked" ] && return
    done
    return 1
}

# networks: what compose has left of the project, which no other run shares.
networks() {
    for _network in $(engine 5 network ls -q --filter "label=com.docker.compose.project=cvl-$_id"); do
        engine 5 network rm "$_network"
    done
}

# engine SECONDS ARG...: docker as the job would reach it: its variables may name another daemon.
engine() (
    [ ! -r "$_run/engine" ] || while IFS= read -r _line; do export "${_line?}"; done <"$_run/engine"
    _limit=$1
    shift
    if command -v timeout >/dev/null; then
        exec timeout "$_limit" docker "$@"
    fi
    exec docker "$@"
)

# as_root IMAGE FOLDER SCRIPT: run SCRIPT as root with FOLDER at /r, for what containers left there
# as root. If there is no such image, or no shell in it, others that are here are tried.
as_root() {
    command -v docker >/dev/null || return 1
    for _image in $(local_images "$1"); do
        engine 300 run --rm --network none --user 0 --entrypoint /bin/sh \
            -v "$2:/r" "$_image" -c "$3" && return
    done
    return 1
} >/dev/null 2>&1

local_images() {
    [ -z "$1" ] || { engine 10 image inspect "$1" >/dev/null && printf '%s\n' "$1"; }
    engine 10 image ls -q | head -n 8
}

_loaded=containers # the last line: nothing of it is missing
