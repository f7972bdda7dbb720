#!/usr/bin/env bash
# Test through slurm:
#     [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     bash tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT \
#         [arguments of tools/test.py]
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: bash $0 PARTITION JOB_NAME CONFIG CHECKPOINT" \
        "[arguments of tools/test.py]" >&2
    echo "example: bash $0 gpu coco configs/downstream/imagenet/linear_kpu-vitb.py epoch_10.pth" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
checkpoint=$4
shift 4
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec bash "$tools/slurm.sh" "$partition" "$job" \
    test.py "$config" "$checkpoint" "$@"
