"""Measurements side by side with other software; commands, not tests. `python -m tests.bench --help`.

DCMTK's storescp and Orthanc cannot listen on the loopback alone. On a machine with neighbours, give the measurement a
network of its own: `unshare --map-root-user --net sh -c 'ip link set lo up && exec python -m tests.bench all'`.
"""
