#!/usr/bin/env bash
# Print the Python that the virtual environment is made with: $PYTHON if it is
# set, else the first of python3, python3.11, python3.12, python3.10 that fits.
set -euo pipefail

fits() {
    "$1" -c 'import ensurepip, sys, venv
sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' > /dev/null 2>&1
}

describe() {
    local version
    version=$("$1" -c 'import platform
print("Python", platform.python_version())' 2> /dev/null) || version='not there'
    echo "$1 is $version"
}

if [ -n "${PYTHON:-}" ]; then
    candidates=("$PYTHON")
else
    candidates=(python3 python3.11 python3.12 python3.10)
fi
for candidate in "${candidates[@]}"; do
    if fits "$candidate"; then
        command -v "$candidate"
        exit 0
    fi
done
echo "kpu_mm needs Python 3.10, 3.11 or 3.12 with its venv module," \
    "but $(describe "${candidates[0]}"): install one and name it," \
    "as in \`make PYTHON=/path/to/python3.11 ...\`" \
    "(Debian, Ubuntu: apt install python3-venv python3-dev)." >&2
exit 2
