#!/usr/bin/env bash
# Train the model. Options: train.sh --help
#
# One process by default. NPROC_PER_NODE=8 starts eight, one a GPU. On several nodes, run this on
# each with NODE_RANK, WORLD_SIZE (how many nodes), MASTER_ADDR and MASTER_PORT set.
set -euo pipefail

SCRIPT_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

nodes=1
if [[ -n ${NODE_RANK:-} && -z ${RANK:-} ]]; then # with RANK, a launcher has started us already
    nodes=${WORLD_SIZE:-1}
fi
processes=${NPROC_PER_NODE:-1}

launcher=()
if ((nodes > 1)); then
    launcher=(-m torch.distributed.run --nnodes "$nodes" --node_rank "$NODE_RANK"
        --master_addr "$MASTER_ADDR" --master_port "${MASTER_PORT:-29500}"
        --nproc_per_node "$processes")
elif ((processes > 1)); then
    launcher=(-m torch.distributed.run --standalone --nproc_per_node "$processes")
fi
exec "$SCRIPT_DIR/python.sh" ${launcher[@]+"${launcher[@]}"} "$SCRIPT_DIR/train.py" "$@"
