"""Run nft where it can't touch the host, and bound what it may use.

In:  an nft file's text, names of interfaces that it wants.
Out: what nft lists of it.
Source: unshare(1), prlimit(1); nft(8).

Nothing runs outside a network namespace of its own; a plain user gets a user namespace around it. The text
may be hostile: it can make nft slow, huge or talkative, so that time, memory and output have limits.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Final

from rulegen.artifacts.unknown import ToolMissing, Unreadable

TIMEOUT_S: Final = 120
"""nft needs 2 s for 65,000 intervals; this is for slow machines and far larger sets."""

MEMORY_MAX_BYTES: Final = 4 << 30
OUTPUT_MAX_BYTES: Final = 512 << 20
MESSAGE_MAX_CHARS: Final = 600
INTERFACES_MAX: Final = 64
ROUNDS_MAX: Final = 16
"""Attempts with more interfaces each; nft tells of ten at a time."""

_SCRIPT: Final = """
set -e
for name in "$@"; do ip link add "$name" type bridge; done
nft -f -
nft -a -n --debug=netlink list ruleset
echo "$MARK"
nft -n -j list ruleset 2>/dev/null
echo "$MARK"
ip -o link 2>/dev/null || true
"""
"""Interfaces are bridges because every kernel that filters in a bridge has them, and dummies are a module."""

_MARK: Final = "\x1e"
_NO_INTERFACE: Final = re.compile(r":\d+:(\d+)-(\d+): Error: Interface does not exist\n(.*)\n")
_INTERFACE: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.:@-]{0,14}")
_PLACE: Final = re.compile(r"/dev/stdin:(\d+):\d+-\d+: Error: (.*)")


@dataclass(frozen=True, slots=True)
class Listed:
    """What nft says of a file that it loaded."""

    programs: str
    """Sets' elements and rules' programs, then the ruleset as text with handles."""
    json: str
    interfaces: tuple[tuple[int, str], ...]


def list_nft(text: str) -> Listed:
    """Load a text into an empty namespace and list what became of it.

    Interfaces that the text compares with by number are made, as far as it names them.

    Raises:
        ToolMissing: nft or unshare is not there, or the system gives no namespace.
        Unreadable: nft refuses the text; with the line, and nft's reason.
    """
    prefix = _namespaces()
    names: list[str] = []
    for _ in range(ROUNDS_MAX):
        status, output, errors = _run([*prefix, "sh", "-c", _SCRIPT, "sh", *names], text)
        missing = [name for name in _missing(errors) if name not in names]
        if status == 0 or not missing or len(names) + len(missing) > INTERFACES_MAX:
            break
        if shutil.which("ip", path=_path()) is None:
            raise ToolMissing("ip is not installed (apt install iproute2)")
        names += missing
    if status:
        raise _refusal(errors)
    parts = output.split(f"{_MARK}\n")
    if len(parts) != 3:
        raise Unreadable("a string with a control character")
    programs, json, links = parts
    interfaces = tuple((int(number), name) for number, name in re.findall(r"(?m)^(\d+): ([^:@\s]+)", links))
    return Listed(programs, json, interfaces or ((1, "lo"),))


def _missing(errors: str) -> Iterator[str]:
    """Interfaces that nft misses, and those that stand in a set beside them: of a set it names the first."""
    found: dict[str, None] = {}
    for first, last, line in _NO_INTERFACE.findall(errors):
        start, end = int(first) - 1, int(last)
        opened, closed = line.rfind("{", 0, start), line.find("}", end)
        around = line[opened + 1 : closed].split(",") if -1 < opened < closed else ()
        for name in (
            line[start:end],
            *(item.partition(" ")[0].partition(":")[0] for item in map(str.strip, around)),
        ):
            found[name.strip('"')] = None
    return (name for name in found if _INTERFACE.fullmatch(name) and name != "lo")


def _refusal(errors: str) -> Unreadable:
    found = _PLACE.search(errors)
    message = errors.strip()[:MESSAGE_MAX_CHARS] or "nft gave up without a word"
    if found is None:
        return Unreadable(f"nft: {message}")
    return Unreadable(f"nft: {found[2][:MESSAGE_MAX_CHARS]}", int(found[1]))


def _namespaces() -> list[str]:
    # /usr/sbin is where firewall tools are, and is not in a plain user's PATH.
    path = _path()
    for tool, package in (("nft", "nftables"), ("unshare", "util-linux"), ("prlimit", "util-linux")):
        if shutil.which(tool, path=path) is None:
            raise ToolMissing(f"{tool} is not installed (apt install {package})")
    prefix = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--map-root-user", "--net"]
    if _run([*prefix, "true"], "")[0]:
        raise ToolMissing("this system does not let a plain user make namespaces")
    limits = [f"--as={MEMORY_MAX_BYTES}", f"--cpu={TIMEOUT_S}", f"--fsize={OUTPUT_MAX_BYTES}"]
    return [*prefix, "prlimit", *limits]


def _path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))


def _run(command: Sequence[str], text: str) -> tuple[int, str, str]:
    """Exit status, output and errors; output goes through files, whose size has a limit."""
    environment = {"PATH": _path(), "LC_ALL": "C.UTF-8", "MARK": _MARK}
    with tempfile.TemporaryFile() as source, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        source.write(text.encode())
        source.seek(0)
        with subprocess.Popen(
            command, stdin=source, stdout=out, stderr=err, env=environment, start_new_session=True
        ) as process:
            try:
                status = process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise Unreadable(f"nft did not answer within {TIMEOUT_S} s") from None
        return status, _read(out), _read(err)


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
