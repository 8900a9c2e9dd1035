# In a training container. job.sh (variables, then `set -- ARGV`) comes through the input channel
# `cvl`, so that arguments are of any length. So does secrets.sh, which is removed as soon as it
# was read. What the job leaves in /workspace and in $CVL_WORK_DIR goes to /opt/ml/output/data on
# every ending. The last line that is written tells the exit code: whoever reads the log knows by
# it that nothing is missing.

ml=${CVL_ML:-/opt/ml}
root=${CVL_ROOT_DIR:-}
home=$root/workspace
repo=$root/cvlization_repo
input=$ml/input/data/cvl
data=$ml/output/data
old=$ml/output/cvl-old newest=$ml/output/cvl-newest before=$ml/output/cvl-before

# --- one sentence each ---------------------------------------------------------------------------

# Take one value out of resourceconfig.json: `"key": "value"` or `"key": [list]`.
config() {
    file=$ml/input/config/resourceconfig.json
    [ ! -r "$file" ] || tr -d '\n\r\t ' <"$file" | sed -n "$1"
}

know_nodes() {
    current=$(config 's/.*"current_host":"\([^"]*\)".*/\1/p')
    hosts=$(config 's/^\(.*\)"instance_groups":.*/\1/;s/.*"hosts":\[\([^]]*\)\].*/\1/p' | tr -d '"' | tr ',' ' ')
    WORLD_SIZE=0 NODE_RANK=0 MASTER_ADDR=${current:-localhost}
    for host in $hosts; do
        [ "$host" != "$current" ] || NODE_RANK=$WORLD_SIZE
        [ "$WORLD_SIZE" != 0 ] || MASTER_ADDR=$host
        WORLD_SIZE=$((WORLD_SIZE + 1))
    done
    [ "$WORLD_SIZE" != 0 ] || WORLD_SIZE=1
    # Hosts are listed as text is sorted (algo-1, algo-10, algo-2); their numbers are the ranks.
    case $current in
        algo-*[!0-9]* | algo-) ;;
        algo-*) NODE_RANK=$((${current#algo-} - 1)) MASTER_ADDR=algo-1 ;;
    esac
    export WORLD_SIZE NODE_RANK MASTER_ADDR MASTER_PORT="${MASTER_PORT:-29500}"
}

# Lay out what came with the job: the example, unless the image has it, and the user's own files.
unpack() {
    mkdir -p "$home" "$data" || return 1
    if [ -f "$input/code.tar" ]; then
        have tar || { say "this image has no tar to unpack the example with"; return 1; }
        tar -xf "$input/code.tar" -C "$root/" || return 1
    fi
    if [ -d "$input/work" ]; then
        cp -R "$input/work/." "$CVL_WORK_DIR/" || return 1
        find "$CVL_WORK_DIR" -type f -exec touch -t 198001010000 {} +
    fi
}

# Tell old files from new ones, for whatever `find` there is (busybox compares whole seconds, and
# what is unpacked or copied may bear any time). What came with the job bears a time of 1980. What
# else the image has in the job's folders is listed, and the newest time of all of it kept.
mark_start() {
    touch -t 198001020000 "$old"
    touch -r "$old" "$newest"
    find "$home" "$repo" -type f -newer "$old" >"$before" 2>/dev/null
    find "$home" "$repo" -type l >"$before.links" 2>/dev/null
    while IFS= read -r file; do
        if [ "$file" -nt "$newest" ]; then touch -r "$file" "$newest"; fi
    done <"$before"
}

# Move what is new or changed below $1 to $2. A file is moved, not copied: there may be no room.
keep() {
    target=$2
    export target before newest
    find "$1" \( -name __pycache__ -o -name .git -o -name .venv \) -prune -o \
        \( -type l -o -type f -newer "$old" \) -exec sh -c '
        top=$1
        shift
        for file; do
            if [ ! -L "$file" ] && [ ! "$file" -nt "$newest" ] &&
                grep -Fxq -- "$file" "$before"; then continue; fi
            if [ -L "$file" ] && grep -Fxq -- "$file" "$before.links"; then continue; fi
            place=$target/${file#"$top"/}
            if [ -e "$place" ] || [ -L "$place" ]; then place=$target/_repo/${file#"$top"/}; fi
            mkdir -p "${place%/*}" && mv -f "$file" "$place"
        done' sh "$1" {} +
}

# What came with the job and was not changed is no result.
drop_inputs() {
    [ -d "$input/work" ] || return 0
    export old input CVL_WORK_DIR
    find "$input/work" -type f -exec sh -c '
        for file; do
            there=$CVL_WORK_DIR/${file#"$input"/work/}
            [ "$there" -nt "$old" ] || rm -f "$there"
        done' sh {} +
}

keep_results() {
    if ! have find; then
        say "this image has no find: only what is in CVL_WORK_DIR comes back"
        return
    fi
    drop_inputs
    keep "$home" "$CVL_WORK_DIR"
    # Of a job that has failed, the service keeps no model.
    if [ "$code" != 0 ] && [ -z "$stopped" ]; then keep "$ml/model" "$CVL_WORK_DIR/model"; fi
    if [ -d "$repo" ]; then keep "$repo" "$CVL_WORK_DIR/_repo"; fi
}

# The service shows the first 1024 characters of this file as the reason.
tell_failure() {
    [ "$code" != 0 ] || return 0
    own=$(head -c 900 "$ml/output/failure" 2>/dev/null)
    printf 'cvl: exit code %s on node %s. %s' "$code" "$NODE_RANK" "$own" >"$ml/output/failure"
}

finish() {
    tell_failure
    printf '[cvl] %s: exit code %s\n' "${CVL_RUN_ID:-run}" "$code"
    exit "$code"
}

start() {
    cd "$home" || exit 125
    . "$input/job.sh"
    if [ -n "${_cvl_secrets:-}" ]; then
        [ -r "$input/secrets.sh" ] || { say "the forwarded variables are not there"; exit 125; }
        . "$input/secrets.sh"
        rm -f "$input/secrets.sh" 2>/dev/null
    fi
    unset _cvl_secrets
    become "$@"
}

# --- the life of a job ---------------------------------------------------------------------------

# SageMaker sends TERM and, 120 s later, KILL. The job has $CVL_GRACE of that; the rest is for us.
trap end_job TERM
know_nodes
CVL_GRACE=${CVL_GRACE:-100}
CVL_WORK_DIR=$data
[ "$NODE_RANK" = 0 ] || CVL_WORK_DIR=$data/node-$NODE_RANK
mkdir -p "$CVL_WORK_DIR"
if ! unpack || [ ! -f "$input/job.sh" ]; then
    say "the job's own files are not there"
    code=125
    finish
fi
export CVL_WORK_DIR CVL_INPUTS="$CVL_WORK_DIR" CVL_OUTPUTS="$CVL_WORK_DIR"
export CVL_CHECKPOINT_DIR="$ml/checkpoints" CVL_NO_DOCKER=1 PYTHONUNBUFFERED=1
if [ -d "$repo" ]; then export PYTHONPATH="$repo${PYTHONPATH:+:$PYTHONPATH}"; fi
if have find; then mark_start; fi

if [ -z "$stopped" ]; then
    run
else
    code=143
fi
[ -z "$killer" ] || kill "$killer" 2>/dev/null
keep_results
finish
