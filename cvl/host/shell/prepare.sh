# What a run needs of the machine: checked, or made, before the job starts.

prepare() {
    [ -z "$_tty" ] || can_pretend
    [ -z "$_docker" ] || docker_answers
    [ -z "$_disk" ] || disk_suffices
    [ -z "$_gpu" ] || gpus_suffice
}

can_pretend() {
    command -v script >/dev/null || fail tool 'a terminal (-t) needs the program script (util-linux)'
    case $(script --version 2>&1) in
        *util-linux*) ;;
        *) fail tool 'a terminal (-t) needs the script of util-linux; here is another one' ;;
    esac
}

docker_answers() {
    command -v docker >/dev/null || fail docker 'Docker is not installed'
    _words=$(within 20 docker version --format '{{.Server.Version}}' 2>&1) && return
    _code=$?
    case $_words in
        *'ermission denied'*) _why='you may not use Docker: no permission for its socket' ;;
        *'annot connect'* | *'daemon running'* | *'connection refused'*)
            _why='Docker is installed but not running' ;;
        *) _why="Docker does not answer: ${_words##*"$_nl"}" ;;
    esac
    [ "$_code" != 124 ] || _why='Docker does not answer within 20 seconds'
    fail docker "$_why"
}

# within SECONDS COMMAND...: with a limit where the host has the means.
within() {
    if command -v timeout >/dev/null; then timeout "$@"; else shift && "$@"; fi
}

# Images and files may lie on different disks; the fuller one counts.
disk_suffices() {
    _free=$(df -Pk "$_base" /var/lib/docker 2>/dev/null |
        awk 'NR > 1 && (least == "" || $4 < least) { least = $4 } END { printf "%d", least / 9765.625 }')
    [ "${_free:-0}" -ge "$_disk" ] ||
        say warn "$((_free / 100)) GB of disk are free, the example asks for $((_disk / 100)) GB"
}

gpus_suffice() {
    _count=0
    for _device in /proc/driver/nvidia/gpus/*; do
        [ ! -e "$_device" ] || _count=$((_count + 100))
    done
    if ! command -v nvidia-smi >/dev/null; then
        say warn 'the example asks for a GPU: no NVIDIA driver here (nvidia-smi is not installed)'
    elif [ "$_count" -gt 0 ] && [ "$_count" -lt "$_gpu" ]; then
        say warn "the example asks for $((_gpu / 100)) GPUs, here are $((_count / 100))"
    fi
}

# shim: what the job calls `docker` labels the containers that it starts.
shim() {
    ! command -v docker >/dev/null || ln -s "$_here/docker.sh" "$_fresh/bin/docker"
}

_loaded=prepare # the last line: nothing of it is missing
