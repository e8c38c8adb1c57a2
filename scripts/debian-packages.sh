#!/usr/bin/env bash
# Installs the Debian packages that the full test suite wants: DICOM tools, a real PACS, a browser, servers, tracing.
# Needs root. Everything else comes from PyPI by `make`. Run by .ci/run; a developer runs it once by hand.
set -euo pipefail

packages=(dcmtk dicom3tools dcm2niix orthanc orthanc-dicomweb orthanc-webviewer chromium fonts-dejavu-core)
packages+=(postgresql rabbitmq-server iproute2 procps strace bc curl openjph-tools systemd)

missing=()
for package in "${packages[@]}"; do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ "${#missing[@]}" -eq 0 ]; then
    echo "all Debian packages are there: ${packages[*]}"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "not root; ask an administrator for: apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --no-install-recommends "${missing[@]}" >/dev/null
echo "installed: ${missing[*]}"
