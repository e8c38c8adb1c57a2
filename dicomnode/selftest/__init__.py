"""The self-test: a virtual patient through the running node to a receiver of its own; real destinations see nothing.

permit: why the running node takes that patient, and where its maps may go. run: the walk. checks: what must have come
out. protocol: the record that a site signs.
"""
