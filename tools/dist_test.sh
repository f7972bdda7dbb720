#!/usr/bin/env bash
# Test on several GPUs, or processes on a machine without GPUs:
#     bash tools/dist_test.sh CONFIG CHECKPOINT GPUS \
#         [arguments of tools/test.py]
# CHECKPOINT is `none` for a model whose config names all its weights.
# For several machines and another interpreter see tools/distributed.sh.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: bash $0 CONFIG CHECKPOINT GPUS" \
        "[arguments of tools/test.py]" >&2
    echo "example: bash $0 configs/downstream/imagenet/linear_kpu-vitb.py epoch_10.pth 8" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec bash "$tools/distributed.sh" "$gpus" test.py "$config" "$checkpoint" "$@"
