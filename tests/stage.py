"""A root folder to install into: this machine's, with changes of its own that end with the test."""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.tools import missing, program

PYTHON = Path(sys.base_prefix) / "bin"


@dataclass
class Stage:
    """An overlay over this machine's root, entered by chroot in name spaces of its own."""

    folder: Path
    python: Path = PYTHON
    workdir: str = "/"
    user: str = "0"

    def __post_init__(self) -> None:
        self.environment = {"PATH": f"{self.python}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.environment |= {key: value for key, value in os.environ.items() if key.startswith("PIP_")}
        self.environment |= {"PIP_RETRIES": "0", "PIP_NO_COMPILE": "1"}  # to compile takes longer than all else
        if subprocess.run([program("unshare"), "--mount", "true"], capture_output=True, check=False).returncode:
            missing("no name spaces can be made here (unshare needs root)")
        for name in ("upper", "work", "root"):
            (self.folder / name).mkdir(parents=True)
        self.run(f"chmod a+rx /root {' '.join(str(p) for p in self.python.parents if str(p).startswith('/root/'))}")

    def command(self, command: str, before: str = "true", **more: str) -> list[str]:
        """What carries it out in the stage. before: what else is mounted first, at $R."""
        mount = f"lowerdir=/,upperdir={self.folder}/upper,workdir={self.folder}/work"
        script = f"""set -e; export R={self.folder}/root
            mount -t overlay overlay -o {mount} $R; mount -t proc proc $R/proc; mount --rbind /dev $R/dev
            mount -t tmpfs tmpfs $R/tmp; {before}; cd $R
            exec chroot --userspec={self.user} $R env -i "$@" """
        inside = f"cd {self.workdir} && {command}"
        variables = [f"{key}={value}" for key, value in {**self.environment, **more}.items()]
        enter = [program("unshare"), "--mount", "--pid", "--fork", "--kill-child"]
        return [*enter, "sh", "-c", script, "sh", *variables, "sh", "-c", inside]

    def run(self, command: str, **more: str) -> None:
        done = subprocess.run(self.command(command, **more), capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"

    def copy(self, sources: list[Path], to: str) -> None:
        there = self.folder / "upper" / str(Path(self.workdir, to)).lstrip("/")
        for source in sources:
            if source.is_dir():
                shutil.copytree(source, there, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                there.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, there)
