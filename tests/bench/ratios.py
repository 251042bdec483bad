"""CPU time of `tlswall analyze` against tshark and Suricata over the same capture, on one core.

    python tests/bench/ratios.py DIR [--capture handshakes|handshakes-2g|bulk-2g] [--runs 5] [--check]

Whole processes from start to exit, user and system time, as the kernel counts them (wait4). The programs take
turns, so that a busy machine slows all of them; the medians are compared. Captures and outputs go to DIR and
stay there for the next call. `--check` exits with 1 where a promise of the product is broken.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
MAKE: Final = (sys.executable, str(HERE / "make_capture.py"))

CAPTURES: Final = {
    "handshakes": ("handshakes", "--packets", "400000"),
    "handshakes-2g": ("handshakes", "--bytes", "2e9"),
    "bulk-2g": ("bulk", "--bytes", "2e9"),
}

PROMISES: Final = {"tshark": 1 / 8, "suricata": 1 / 2}
"""tlswall's CPU time as a part of theirs, at most, on `handshakes`."""
PEAK_RSS_MB: Final = 400


@dataclass(frozen=True, slots=True)
class Run:
    cpu_s: float
    wall_s: float
    rss_mb: float


def commands(capture: Path, folder: Path) -> dict[str, list[str]]:
    """The programs that are installed, and how each is run."""
    tlswall = Path(sys.executable).with_name("tlswall")
    found = {}
    if tlswall.exists():
        found["tlswall"] = [str(tlswall), "analyze", "--format", "json", str(capture)]
    if shutil.which("tshark"):
        found["tshark"] = ["tshark", "-q", "-n", "-r", str(capture), "-z", "conv,tcp"]
    if shutil.which("suricata"):
        log = folder / "suricata"
        log.mkdir(exist_ok=True)
        configuration = str(HERE / "suricata.yaml")
        found["suricata"] = ["suricata", "-c", configuration, "-S", os.devnull, "-r", str(capture)]
        found["suricata"] += ["-l", str(log), "--runmode", "single"]
    return found


def run(command: Sequence[str], core: int, output: Path) -> Run:
    """Run to the end on one core; what it prints goes to `output`."""
    start = time.monotonic()
    with output.open("wb") as out, output.with_suffix(".err").open("wb") as err:
        process = subprocess.Popen(["taskset", "-c", str(core), *command], stdout=out, stderr=err)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        message = output.with_suffix(".err").read_text(errors="replace")[-2000:]
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}\n{message}")
    return Run(used.ru_utime + used.ru_stime, time.monotonic() - start, used.ru_maxrss / 1024)


def packet_count(capture: Path) -> int:
    listing = subprocess.run(["capinfos", "-Mc", str(capture)], check=True, capture_output=True, text=True)
    return int(listing.stdout.split()[-1])


def middle(runs: list[Run]) -> Run:
    return Run(
        statistics.median(each.cpu_s for each in runs),
        statistics.median(each.wall_s for each in runs),
        max(each.rss_mb for each in runs),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--capture", choices=CAPTURES, default="handshakes")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1)
    parser.add_argument("--only", nargs="+", help="programs to run, all that are installed if left out")
    parser.add_argument("--check", action="store_true", help="exit with 1 where a promise is broken")
    arguments = parser.parse_args()

    arguments.folder.mkdir(parents=True, exist_ok=True)
    capture = arguments.folder / f"{arguments.capture}.pcap"
    if not capture.exists():
        kind, *size = CAPTURES[arguments.capture]
        partial = capture.with_suffix(".partial")
        subprocess.run([*MAKE, kind, str(partial), *size], check=True)
        partial.rename(capture)
    packets, size = packet_count(capture), capture.stat().st_size

    programs = commands(capture, arguments.folder)
    if arguments.only:
        programs = {name: programs[name] for name in arguments.only}
    runs: dict[str, list[Run]] = {name: [] for name in programs}
    for _ in range(arguments.runs):
        for name, command in programs.items():
            if name == "suricata":
                (arguments.folder / "suricata" / "eve.json").unlink(missing_ok=True)  # it appends
            runs[name].append(run(command, arguments.core, arguments.folder / f"{name}.out"))

    print(f"{capture.name}: {packets} packets, {size} bytes; medians of {arguments.runs} runs, one core")
    print("              CPU s   wall s  Mpackets/s    GB/s  peak MB  tlswall is")
    medians = {name: middle(each) for name, each in runs.items()}
    broken = []
    for name, used in medians.items():
        line = f"{name:10} {used.cpu_s:8.2f} {used.wall_s:8.2f} {packets / used.cpu_s / 1e6:11.3f}"
        line += f" {size / used.cpu_s / 1e9:7.3f} {used.rss_mb:8.0f}"
        if "tlswall" not in medians:
            print(line)
            continue
        ratio = medians["tlswall"].cpu_s / used.cpu_s
        print(f"{line} {ratio:10.3f}x")
        if arguments.capture == "handshakes" and ratio > PROMISES.get(name, float("inf")):
            broken.append(f"{ratio:.3f} of {name}'s CPU time, promised {PROMISES[name]:.3f}")
    if "tlswall" in medians and medians["tlswall"].rss_mb > PEAK_RSS_MB:
        broken.append(f"peak RSS {medians['tlswall'].rss_mb:.0f} MB, promised {PEAK_RSS_MB}")
    for what in broken:
        print(f"broken: {what}")
    return 1 if broken and arguments.check else 0


if __name__ == "__main__":
    sys.exit(main())
