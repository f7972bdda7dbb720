#!/usr/bin/env bash
# Start a tool on several GPUs, or processes on a machine without GPUs; for
# dist_train.sh and dist_test.sh:
#     bash tools/distributed.sh GPUS TOOL [arguments of the tool]
# On several machines, run it on each with NNODES, NODE_RANK, MASTER_ADDR and
# PORT set. PYTHON names another interpreter.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: bash $0 GPUS TOOL [arguments of the tool]" >&2
    exit 2
fi
gpus=$1
tool=$2
shift 2
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$tools/$tool" --launcher pytorch "$@"
