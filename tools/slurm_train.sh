#!/usr/bin/env bash
# Train through slurm:
#     [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...] \
#     bash tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR \
#         [arguments of tools/train.py]
set -euo pipefail

if [ $# -lt 4 ]; then
    echo "usage: bash $0 PARTITION JOB_NAME CONFIG WORK_DIR" \
        "[arguments of tools/train.py]" >&2
    echo "example: bash $0 gpu kpu configs/distill/kpu_vitb.py work_dirs/kpu" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
work_dir=$4
shift 4
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec bash "$tools/slurm.sh" "$partition" "$job" \
    train.py "$config" --work-dir "$work_dir" "$@"
