#!/usr/bin/env bash
# Fetches the prebuilt OHIF viewer that tests/viewers shows our objects in, from the npm registry into build/.
# One package, nothing is built and nothing of it runs here but in a browser. Run by .ci/run; a developer runs it once.
set -euo pipefail
cd "$(dirname "$0")/.."

version=3.13.2
sha512=5997719a9986eeba85816f5924b71b82bdd70ad2e2d4a0cd3e831a798e4f3deea3e06e1f8c48e393271933a0ba664d85f3b04ac457e9abe8dde715d907d13c10
folder=build/ohif-$version

if [ -e "$folder/index.html" ]; then
    echo "OHIF $version is there: $folder"
    exit 0
fi
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked"' EXIT
curl -fsS --retry 3 --output "$unpacked/app.tgz" "https://registry.npmjs.org/@ohif/app/-/app-$version.tgz"
echo "$sha512  $unpacked/app.tgz" | sha512sum --check --quiet || {
    echo "the tarball of OHIF $version is not the one that was tested; do not use it" >&2
    exit 1
}
tar -xzf "$unpacked/app.tgz" -C "$unpacked"
mkdir -p "$folder"
cp -a "$unpacked/package/dist/." "$folder/"
echo "fetched: OHIF $version into $folder"
