"""Ask a firewall tool whether it accepts a text, without touching the host.

In:  a command line and its standard input.
Out: Checked.

The tool runs in a network namespace of its own, so that even a mistake of ours can't change the host's
ruleset; as a plain user also in a user namespace, where it may ask the kernel.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import Final

from rulegen.backends.base import Checked

TIMEOUT_S: Final = 120
"""nft needs 2 s for 65,000 intervals; this is for slow machines and far larger sets."""

_MESSAGE_LINES: Final = 12


def ask(command: Sequence[str], text: str, *, package: str) -> Checked:
    """Run the tool in its own namespaces.

    Args:
        command: The tool and its arguments; it reads the text from standard input.
        text: What it shall judge.
        package: The Debian package that has the tool.
    """
    # /usr/sbin is where firewall tools are, and is not in a plain user's PATH.
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
    tool = shutil.which(command[0], path=path)
    if tool is None:
        return Checked(accepted=None, message=f"{command[0]} is not installed (apt install {package})")
    unshare = shutil.which("unshare", path=path)
    if unshare is None:
        return Checked(accepted=None, message="unshare is not installed (apt install util-linux)")
    namespaces = [unshare, "--net"] if os.geteuid() == 0 else [unshare, "--map-root-user", "--net"]
    if _run([*namespaces, "true"], "").returncode != 0:
        return Checked(accepted=None, message="this system does not let a plain user make namespaces")
    try:
        done = _run([*namespaces, tool, *command[1:]], text)
    except subprocess.TimeoutExpired:
        return Checked(accepted=None, message=f"{command[0]} did not answer within {TIMEOUT_S} s")
    message = "\n".join((done.stderr or done.stdout).strip().splitlines()[:_MESSAGE_LINES])
    return Checked(accepted=done.returncode == 0, message=message)


def _run(command: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
