"""Installs lsi_torchvision_ops into the running interpreter's site-packages, if `import torchvision` needs it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
from importlib.util import find_spec
from pathlib import Path

FILES = ("lsi_torchvision_ops.py", "lsi_torchvision_ops.pth")


def main() -> int:
    if find_spec("torchvision") is None:
        print("torchvision is not installed: nothing to do")
        return 0
    if _imports():
        print("import torchvision works: nothing to do")
        return 0
    target = Path(sysconfig.get_path("purelib"))
    for name in FILES:
        shutil.copyfile(Path(__file__).parent / name, target / name)
    if not _imports():
        print(f"import torchvision still fails with the hook in {target}", file=sys.stderr)
        return 1
    print(f"import torchvision works now: hook installed in {target}")
    return 0


def _imports() -> bool:
    """In a fresh process: .pth files are read at interpreter start."""
    return subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True).returncode == 0


if __name__ == "__main__":
    sys.exit(main())
