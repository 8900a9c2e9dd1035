# In a pod. The container's arguments are the job's argv; its files came as Secrets, in /cvl-in.
# The last line that is written tells the exit code: whoever reads the log knows by it that nothing
# is missing. Then the results wait here: nobody can read the files of a container that has ended.

root=${CVL_ROOT_DIR:-}
in=$root/cvl-in own=$root/cvl home=$root/workspace repo=$root/cvlization_repo
first=$root/cvl-first/pods twice=

# --- one sentence each ---------------------------------------------------------------------------

# A job runs once. This is a second pod for it if another one has been noted as the first, and a
# second start of this pod's container if this folder has been made before.
ran_before() {
    if [ -r "$first" ]; then
        while read -r node uid _; do
            if [ "$node" = "${CVL_NODE:-0}" ] && [ "$uid" != "${CVL_POD:-}" ]; then return 0; fi
        done <"$first"
    fi
    [ -d "$own/begun" ]
}

# Files that are too many for Secrets are sent in here, by `receive`, once this runs.
packed() { if [ -n "$CVL_AWAIT" ]; then cat "$own/sent"; else cat "$in"/code-*; fi; }

receiving() { read -r receiver <"$own/receiving" && kill -0 "$receiver"; } 2>/dev/null

arrived() {
    waited=0
    while [ -n "$CVL_AWAIT" ] && [ ! -e "$own/sent" ]; do
        if [ -n "$stopped" ]; then return 1; fi
        if [ "$waited" -ge "$CVL_AWAIT" ] && ! receiving; then
            say "nobody has sent the job's files within $CVL_AWAIT seconds"
            return 1
        fi
        sleep 1 &
        wait "$!"
        waited=$((waited + 1))
    done
}

unpack() {
    mkdir -p "$CVL_WORK_DIR" || return 1
    arrived || return 1
    if have tar && have gzip; then
        packed | tar -xzf - -C "$root/"
    elif have python3; then
        packed | python3 -c 'import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|gz").extractall(sys.argv[1])' "$root/"
    else
        say "this image has neither tar and gzip nor python3 to unpack the example with"
        return 1
    fi
}

# All that came with the job bears a time of 1980: what is newer is a result.
mark_start() {
    touch -t 198001020000 "$own/start"
    find "$home" "$repo" "$CVL_WORK_DIR" -exec touch -h -t 198001010000 {} + 2>/dev/null
}

# Say whether the kernel killed something here for want of memory (control groups 2 and 1).
out_of_memory() {
    for file in /sys/fs/cgroup/memory.events /sys/fs/cgroup/memory/memory.oom_control; do
        [ ! -r "$file" ] || sed -n 's/^oom_kill //p' "$file"
    done | grep -qv '^0$'
}

start() {
    cd "$home" || exit 125
    become "$@"
}

collecting() { read -r collector <"$own/collecting" && kill -0 "$collector"; } 2>/dev/null

# Whether somebody comes for the results after TERM: who has it sent says so, or has been here, or
# it is the timeout that has sent it. The pod's time began when our files were mounted, or earlier.
awaited() {
    [ -e "$own/wanted" ] || collecting || {
        now=$(date +%s) && born=$(date -r "$in/entry.sh" +%s) &&
            [ "$((now - born + 10))" -ge "$CVL_RUNTIME" ]
    } 2>/dev/null
}

# Wait until the results are collected: CVL_HOLD seconds, or 30 after TERM unless they are awaited.
hold() {
    waited=0 after=0
    while [ ! -e "$own/collected" ] && [ "$waited" -lt "$CVL_HOLD" ]; do
        if [ -n "$stopped" ] && [ "$after" -ge 30 ] && ! awaited; then break; fi
        [ -z "$stopped" ] || after=$((after + 1))
        sleep 1 &
        wait "$!"
        waited=$((waited + 1))
    done
}

tell_end() {
    why=
    if [ "$code" != 0 ] && out_of_memory; then why=' (out of memory)'; fi
    [ -z "$stopped" ] || why=' (stopped)'
    [ -z "$twice" ] || why=' (again)'
    printf '[cvl] %s: exit code %s%s\n' "$CVL_RUN_ID" "$code" "$why"
}

# --- the life of a job ---------------------------------------------------------------------------

trap end_job TERM # which comes when the pod is deleted, evicted or past its deadline
CVL_WORK_DIR=$own/work CVL_GRACE=${CVL_GRACE:-10} CVL_HOLD=${CVL_HOLD:-600}
CVL_RUNTIME=${CVL_RUNTIME:-999999999} CVL_AWAIT=${CVL_AWAIT:-}
export CVL_WORK_DIR CVL_INPUTS="$CVL_WORK_DIR" CVL_OUTPUTS="$CVL_WORK_DIR"
if ran_before; then
    say "this job has been started before: it does not run a second time"
    twice=1 code=125 CVL_HOLD=0
elif ! unpack; then
    say "the job's own files are not there"
    code=125 CVL_HOLD=0
    [ -z "$stopped" ] || code=143
else
    [ ! -e "$own/sent" ] || rm -f "$own/sent"
    export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"
    if have find; then mark_start; fi
    if [ -z "$stopped" ]; then
        mkdir "$own/begun"
        echo "$$" >"$own/pid"
        run "$@"
    else
        code=143 CVL_HOLD=0
    fi
    [ -z "$killer" ] || kill "$killer" 2>/dev/null
fi
tell_end
hold
exit "$code"
