# A Docker engine with a bridge of its own, for as long as stdin lasts: that ends when whoever owns
# the engine has gone, in whatever way. Then containers, engine, bridge and files go, too.
#
# usage: sh docker_engine.sh FOLDER BRIDGE ADDRESS
set -u
folder=$1 bridge=$2 address=$3 engine=
export DOCKER_HOST="unix://$folder/docker.sock" DOCKER_CONFIG="$folder/config"

main() {
    trap 'rm -rf "$folder"' EXIT
    ip link add "$bridge" type bridge || exit 1
    trap clear_up EXIT
    ip addr add "$address" dev "$bridge" && ip link set "$bridge" up || exit 1
    dockerd --host="$DOCKER_HOST" --data-root="$folder/data" --exec-root="$folder/exec" \
        --pidfile="$folder/pid" --bridge="$bridge" --iptables=false --ip6tables=false \
        --ip-masq=false --storage-driver=vfs --log-level=warn >"$folder/log" 2>&1 &
    engine=$!
    wait_until up_or_gone
    if ! docker version >/dev/null 2>&1; then
        tail "$folder/log" >&2
        exit 1
    fi
    echo ready
    cat >/dev/null
}

# TERM, so that the engine ends its own containerd; KILL if it hangs.
clear_up() {
    if [ -n "$engine" ]; then
        docker ps -aq | xargs -r timeout 20 docker rm -f
        kill "$engine"
        wait_until gone || kill -KILL "$engine"
    fi >/dev/null 2>&1
    ip link del "$bridge"
    rm -rf "$folder"
}

up_or_gone() { docker version || gone; }

gone() { ! kill -0 "$engine"; }

# Wait for a command to succeed, 60 s at most.
wait_until() {
    tries=0
    until "$@"; do
        [ "$tries" -lt 600 ] || return 1
        tries=$((tries + 1))
        sleep 0.1
    done >/dev/null 2>&1
}

main
