#!/usr/bin/env bash
# Test on several GPUs, or processes on a machine without GPUs:
#     bash tools/dist_test.sh CONFIG CHECKPOINT GPUS \
#         [arguments of tools/test.py]
# For several machines and another interpreter see tools/distributed.sh.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: bash $0 CONFIG CHECKPOINT GPUS" \
        "[arguments of tools/test.py]" >&2
    exit 2
fi
config=$1
checkpoint=$2
gpus=$3
shift 3
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

exec bash "$tools/distributed.sh" "$gpus" test.py "$config" "$checkpoint" "$@"
