#!/usr/bin/env bash
# Install Debian's Chromium and its driver, which the test of the demo page
# needs. Done at once where they are there.
set -euo pipefail

if command -v chromium && command -v chromedriver; then
    exit
fi
if [ ! -f /etc/debian_version ] || [ "$(id -u)" -ne 0 ]; then
    echo 'Install chromium and chromium-driver: only root on Debian can have' \
        'it done.' >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get install --yes --no-install-recommends \
    chromium chromium-driver fonts-dejavu-core
