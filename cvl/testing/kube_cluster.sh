# A Kubernetes cluster of one node, in two acts: the holder, and the cluster in namespaces of its
# own. It reads orders on stdin; when that ends, because whoever owns the cluster has gone, in
# whatever way, the kernel takes back everything: processes, containers, mounts, bridge, card.
#
# In the environment: FOLDER, its files; BIN, the programs; NODE and ADDRESS; PAUSE, the image of
# pods' network; PYTHON and RUNTIME, what it is to run before each container. The network card is
# plugged in before the order `start`.
set -eu

PATIENCE=900 # times 0.1 s: for a server to answer on a busy computer

hold() { # outside the namespace of its processes: to clear up when all of them are gone
    GROUP=$(basename "$FOLDER")
    export GROUP
    status=0
    unshare --pid --fork --kill-child --mount-proc sh "$0" cluster || status=$?
    for parent in /sys/fs/cgroup/*/"$GROUP"; do
        [ ! -d "$parent" ] || find "$parent" -depth -type d -exec rmdir {} \;
    done
    rm -rf "$FOLDER"
    return "$status"
}

cluster() {
    mkdir -p "$FOLDER/log" "$FOLDER/certs" "$FOLDER/kubelet"
    cd "$FOLDER"
    keep_settings
    keep_logs
    control_groups
    echo ready
    while read -r order; do
        case $order in
        start) start_engine && start_control_plane ;;
        join) join ;;
        cut) stop apiserver ;;
        restore) start_apiserver ;;
        lose) kill -STOP "$(cat kubelet.pid)" ;;
        return) kill -CONT "$(cat kubelet.pid)" ;;
        esac >&2
        echo "$order"
    done
}

# kubelet wants these for the whole computer: let it find them set, and change nothing.
keep_settings() {
    for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 \
        kernel/panic_on_oops=1 kernel/keys/root_maxkeys=1000000 \
        kernel/keys/root_maxbytes=25000000; do
        name=$(echo "${setting%=*}" | tr / .)
        echo "${setting#*=}" >"$name"
        mount --bind "$name" "/proc/sys/${setting%=*}"
    done
}

# kubelet removes the logs of all pods that it does not know: those of other clusters, too.
keep_logs() {
    mkdir -p var-log
    mount --bind var-log /var/log
}

# All that runs in pods is below one control group of ours.
control_groups() {
    for controller in /sys/fs/cgroup/*/; do
        [ -e "$controller/cgroup.procs" ] && mkdir -p "$controller/$GROUP/docker" || continue
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$controller/$file" ] || cat "$controller/$file" >"$controller/$GROUP/$file"
        done
    done
}

start_engine() {
    ip route del default # what is not here is said to be so at once
    cat >runtime <<END
#!/bin/sh
case " \$* " in *' --bundle '*) "$PYTHON" -IS "$RUNTIME" "\$@" ;; esac
exec runc "\$@"
END
    chmod +x runtime
    serve dockerd --host="unix://$FOLDER/docker.sock" --data-root="$FOLDER/data" \
        --exec-root="$FOLDER/exec" --pidfile="$FOLDER/docker.pid" --bip=198.18.0.1/16 \
        --add-runtime="lenient=$FOLDER/runtime" --default-runtime=lenient \
        --cgroup-parent="/$GROUP/docker" --log-level=warn
}

start_control_plane() {
    ssh-keygen -q -t rsa -b 2048 -m PEM -N '' -f service-accounts.key
    serve etcd --data-dir=etcd --unsafe-no-fsync --logger=zap
    start_apiserver
    serve controller-manager --kubeconfig=kubeconfig --use-service-account-credentials=false \
        --service-account-private-key-file=service-accounts.key \
        --root-ca-file=certs/apiserver.crt --leader-elect=false --cert-dir=certs \
        --bind-address=127.0.0.1 --port=0 --feature-gates=TTLAfterFinished=true \
        --flex-volume-plugin-dir="$FOLDER/plugins" \
        --controllers='*,-nodeipam,-route,-service,-cloud-node-lifecycle,-attachdetach' \
        --node-monitor-period=1s --node-monitor-grace-period=10s \
        --kube-api-qps=100 --kube-api-burst=200
    serve scheduler --kubeconfig=kubeconfig --leader-elect=false --cert-dir=certs \
        --bind-address=127.0.0.1 --port=0
    until_up dockerd docker -H "unix://$FOLDER/docker.sock" version
}

start_apiserver() {
    serve apiserver --etcd-servers=http://127.0.0.1:2379 --secure-port=6443 --cert-dir=certs \
        --bind-address="$ADDRESS" --advertise-address="$ADDRESS" --token-auth-file=tokens.csv \
        --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction \
        --service-account-key-file=service-accounts.key \
        --service-account-signing-key-file=service-accounts.key \
        --service-account-issuer=https://kubernetes.default.svc \
        --service-cluster-ip-range=198.19.0.0/24 --endpoint-reconciler-type=none \
        --allow-privileged=true --kubelet-preferred-address-types=InternalIP \
        --feature-gates=TTLAfterFinished=true
    until_up apiserver "$BIN/kubectl" --kubeconfig=kubeconfig get --raw /readyz
}

join() {
    cat >kubelet.yaml <<END
kind: KubeletConfiguration
apiVersion: kubelet.config.k8s.io/v1beta1
address: $ADDRESS
readOnlyPort: 0
cgroupDriver: cgroupfs
cgroupRoot: /$GROUP
failSwapOn: false
oomScoreAdj: 0
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
makeIPTablesUtilChains: false
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, nodefs.inodesFree: 1%, imagefs.available: 1%}
imageGCHighThresholdPercent: 100
nodeStatusUpdateFrequency: 1s
nodeStatusReportFrequency: 2s
nodeLeaseDurationSeconds: 4
syncFrequency: 5s
kubeAPIQPS: 50
kubeAPIBurst: 100
eventRecordQPS: 50
volumePluginDir: $FOLDER/plugins
featureGates: {DevicePlugins: false}
END
    serve kubelet --config=kubelet.yaml --kubeconfig=kubeconfig --hostname-override="$NODE" \
        --node-ip="$ADDRESS" --container-runtime=docker --network-plugin= \
        --docker-endpoint="unix://$FOLDER/docker.sock" --pod-infra-container-image="$PAUSE" \
        --container-runtime-endpoint="unix://$FOLDER/dockershim.sock" \
        --experimental-dockershim-root-directory="$FOLDER/dockershim" \
        --root-dir="$FOLDER/kubelet" --cert-dir=certs
}

serve() { # NAME OPTION...: in the background
    name=$1
    shift
    program=$BIN/$name
    [ -x "$program" ] || program=$BIN/kube-$name
    [ -x "$program" ] || program=$name
    "$program" "$@" </dev/null >>"log/$name" 2>&1 &
    echo $! >"$name.pid"
}

stop() { # NAME: at once
    kill -KILL "$(cat "$1.pid")"
    wait "$(cat "$1.pid")" || :
}

until_up() { # NAME COMMAND...
    name=$1 tries=0
    shift
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        if [ "$tries" -gt $PATIENCE ] || ! kill -0 "$(cat "$name.pid")"; then
            tail -n 5 "log/$name"
            echo "$name does not start"
            exit 1
        fi
        sleep 0.1
    done
}

"$@"
