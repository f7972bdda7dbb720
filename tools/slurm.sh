#!/usr/bin/env bash
# Start a tool through slurm; for slurm_train.sh and slurm_test.sh:
#     [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     bash tools/slurm.sh PARTITION JOB_NAME TOOL [arguments of the tool]
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: bash $0 PARTITION JOB_NAME TOOL [arguments of the tool]" >&2
    exit 2
fi
partition=$1
job=$2
tool=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-8}
if [ "$gpus" -lt "$per_node" ]; then
    per_node=$gpus
fi
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# several words, as a shell would split them
read -r -a more <<< "${SRUN_ARGS:-}"

export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec srun --partition="$partition" \
    --job-name="$job" \
    --gres="gpu:$per_node" \
    --ntasks="$gpus" \
    --ntasks-per-node="$per_node" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${more[@]+"${more[@]}"} \
    "${PYTHON:-python}" -u "$tools/$tool" --launcher slurm "$@"
