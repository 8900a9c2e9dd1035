#!/usr/bin/env bash
# Run one of this example's Python scripts with the packages that requirements.txt pins: in the
# example's Docker image where Docker works, else in a virtual environment (see environment.py).
#
# usage: python.sh ARGS...      as for python3
#
#   CVL_NO_DOCKER=1      do not use Docker
#   CVL_IMAGE            use this image instead of the example's own
#   CVL_CONTAINER_NAME   name the container so, for whoever has to stop it
#   CVL_WORK_DIR         relative paths in ARGS start here; default: the current directory
set -euo pipefail

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
WORK_DIR=$(cd "${CVL_WORK_DIR:-.}" && pwd)
IMAGE=${CVL_IMAGE:-cvl-$(basename "$SCRIPT_DIR")}

main() {
    export PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
    if docker_works && have_image; then
        run_in_docker "$@"
    fi
    cd "$WORK_DIR"
    exec python3 "$SCRIPT_DIR/environment.py" "$@"
}

docker_works() {
    [[ ${CVL_NO_DOCKER:-} != 1 ]] && timeout 10 docker version >/dev/null 2>&1
}

have_image() {
    docker image inspect "$IMAGE" >/dev/null 2>&1 && return
    echo "Building the image $IMAGE, once. (CVL_NO_DOCKER=1 does without Docker.)" >&2
    CVL_IMAGE=$IMAGE "$SCRIPT_DIR/build.sh" >&2 && return
    echo "The image could not be built: going on without Docker." >&2
    return 1
}

# Paths are the same inside as outside, so that what the scripts print is true on the host.
run_in_docker() {
    local options=(--rm --init --workdir "$WORK_DIR" --env HOME=/tmp --env USER=cvl) name folder
    for name in PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE CVL_RUN_ID CVL_WORK_DIR \
        CUDA_VISIBLE_DEVICES OMP_NUM_THREADS \
        NODE_RANK RANK WORLD_SIZE LOCAL_RANK MASTER_ADDR MASTER_PORT; do
        options+=(--env "$name")
    done
    choose_folders "$@"
    for folder in "${folders[@]}"; do
        options+=(--mount "type=bind,source=$folder,target=$folder")
    done
    if [[ -n ${CVL_CONTAINER_NAME:-} ]]; then
        options+=(--name "$CVL_CONTAINER_NAME")
    fi
    if ! docker info --format '{{.SecurityOptions}}' | grep -q rootless; then
        options+=(--user "$(id -u):$(id -g)") # results belong to us; rootless Docker does that anyway
    fi
    if [[ -n ${MASTER_ADDR:-} ]]; then
        options+=(--network host) # the other nodes have to reach us
    fi
    if gpus_work; then
        options+=(--gpus all --ipc host)
    fi
    exec docker run "${options[@]}" "$IMAGE" python3 "$@"
}

# Fill $folders with what the container has to see: our own two, and wherever a path among the
# arguments leads. A word that is no path lies, so to speak, in $WORK_DIR.
choose_folders() {
    folders=()
    choose_folder "$SCRIPT_DIR"
    choose_folder "$WORK_DIR"
    local argument
    for argument in "$@"; do
        argument=${argument#--*=}
        [[ $argument == /* ]] || argument=$WORK_DIR/$argument
        choose_folder "$(realpath -ms -- "$argument")"
    done
}

choose_folder() {
    local path=$1 folder
    until [[ -d $path ]]; do # a file, or something that is yet to be made
        path=$(dirname "$path")
    done
    [[ $path != / ]] || return 0 # never the whole machine
    for folder in ${folders[@]+"${folders[@]}"}; do
        [[ $path/ != "$folder"/* ]] || return 0
    done
    folders+=("$path")
}

gpus_work() {
    grep -q '^torch' "$SCRIPT_DIR/requirements.txt" &&
        nvidia-smi -L >/dev/null 2>&1 &&
        docker run --rm --gpus all "$IMAGE" true >/dev/null 2>&1
}

main "$@"
