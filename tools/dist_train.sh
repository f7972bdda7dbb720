#!/usr/bin/env bash
# Train on several GPUs, or processes on a machine without GPUs:
#     bash tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
# For several machines and another interpreter see tools/distributed.sh.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: bash $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    echo "example: bash $0 configs/distill/kpu_vitb.py 8" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec bash "$tools/distributed.sh" "$gpus" train.py "$config" "$@"
