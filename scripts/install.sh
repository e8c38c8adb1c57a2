#!/usr/bin/env bash
# Installs the node as systemd services, or brings an installation to this version; run it as often as you like.
#   sudo scripts/install.sh [--source AET@HOST]... [--destination AET@HOST:PORT]...
# The peers go into a new node.toml; one that is there is left as it is.
# DESTDIR: an empty folder that is to become the root of another machine; nothing is started then.
# PYTHON: which python3 (3.11 or newer). EXTRAS: of pyproject.toml. PACKAGES=keep: the environment is there already.
set -euo pipefail
cd "$(dirname "$0")/.."

DESTDIR=${DESTDIR:-} PYTHON=${PYTHON:-python3} EXTRAS=${EXTRAS:-postgresql,redis,oidc} PACKAGES=${PACKAGES:-install}
HOME_DIR=/opt/perfusion-node STATE=/var/lib/dicomnode ETC=/etc/dicomnode UNITS=/etc/systemd/system ACCOUNT=dicomnode
VENV=$DESTDIR$HOME_DIR/.venv

if [ -z "$DESTDIR" ]; then
    [ "$(id -u)" -eq 0 ] || { echo "run it as root: sudo $0 $*" >&2; exit 1; }
    id "$ACCOUNT" >/dev/null 2>&1 ||
        useradd --system --user-group --home-dir "$STATE" --no-create-home --shell /usr/sbin/nologin "$ACCOUNT"
fi

echo "1/4 the software, in $HOME_DIR"
install -d -m 0755 "$DESTDIR$HOME_DIR/docs"
install -m 0644 docs/*.md "$DESTDIR$HOME_DIR/docs/"
install -m 0644 LICENSE NOTICE README.md CHANGELOG.md "$DESTDIR$HOME_DIR/"
if [ "$PACKAGES" = install ]; then
    "$PYTHON" -c 'import sys; sys.exit("Python 3.11 or newer is needed") if sys.version_info < (3, 11) else None'
    [ -x "$VENV/bin/python" ] || "$PYTHON" -m venv "$VENV"
    pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt)
    "${pip[@]}" torch # first and alone: its version is exact, and a looser request would bring gigabytes of CUDA
    "${pip[@]}" --force-reinstall --no-deps .
    "${pip[@]}" ".[$EXTRAS]"
    # What names its own place must name the one that it will have.
    [ -z "$DESTDIR" ] || grep -rlIF "$DESTDIR" "$VENV/bin" "$VENV/pyvenv.cfg" | xargs -r sed -i "s|$DESTDIR||g"
fi

echo "2/4 folders and settings: $ETC, $STATE"
install -d -m 0755 "$DESTDIR$ETC"
install -d -m 0700 "$DESTDIR$ETC/secrets" "$DESTDIR$STATE"
if [ ! -e "$DESTDIR$ETC/node.toml" ]; then
    (cd "$DESTDIR$ETC" && "$VENV/bin/python" -m dicomnode init --data-dir "$STATE/data" --only-settings "$@")
    chmod 0640 "$DESTDIR$ETC/node.toml"
fi
if [ -z "$DESTDIR" ]; then
    chgrp "$ACCOUNT" "$ETC/node.toml"
    chown "$ACCOUNT:$ACCOUNT" "$STATE"
fi

echo "3/4 units, in $UNITS"
install -d -m 0755 "$DESTDIR$UNITS"
install -m 0644 systemd/dicomnode* "$DESTDIR$UNITS/"

echo "4/4 start"
if [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    systemctl daemon-reload
    systemctl enable dicomnode.target
    # The socket stays open: who connects meanwhile waits for the new listener.
    systemctl try-restart 'dicomnode-*.service' dicomnode.service
    systemctl is-active --quiet dicomnode.service || systemctl start dicomnode.target
    echo "Running. \`sudo -u $ACCOUNT $HOME_DIR/.venv/bin/dicomnode doctor\` looks it over."
else
    echo "Not started: there is no systemd to start it. There: systemctl enable --now dicomnode.target"
fi
