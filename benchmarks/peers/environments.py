"""The contenders' own virtual environments, in .bench/ of the checkout; made anew when pins change."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from ..stand import ROOT
from .contender import Contender

FOLDER = ROOT / ".bench"


def environment(contender: Contender) -> Path:
    """Where its programs are; this interpreter's own folder if it has no requirements of its own."""
    requirements = contender.folder / "requirements.txt"
    if not requirements.exists():
        return Path(sys.executable).parent
    folder = FOLDER / contender.library
    stamp = folder / "installed"
    wanted = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"  installing {contender.library} into {folder} ...", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        python = str(folder / "bin" / "python")
        install = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
        subprocess.run([*install, "--requirement", str(requirements)], check=True)
        stamp.write_text(wanted)
    return folder / "bin"
