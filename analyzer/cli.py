"""The commands of the analyser: parse options, call the pipeline, hand over to a format.

`app` holds commands only: `rulegen.cli` mounts them in `tlswall`, `__main__` in `python -m analyzer`.
What is costly to import is imported in the command that needs it: a small capture must answer at once.
"""

from __future__ import annotations

import gc
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, TextIO

import typer

from analyzer.command import FOUND, fail, guarded, keep, one_of, output, say
from analyzer.errors import SlowKernels
from analyzer.model import Severity
from analyzer.report import FORMATS, Detail, Options
from analyzer.report.progress import Progress
from analyzer.report.text import byte_count, count, visible
from analyzer.version import VERSION

PROFILES: Final = ("default", "nf_conntrack_tls")
MODULE_PORTS: Final = 8
"""Ports that the kernel module takes at most."""

_FORMAT_NAMES: Final = tuple(format.name for format in FORMATS)
_SEVERITIES: Final = tuple(severity.name.lower() for severity in Severity)
_SCHEMA_FORMATS: Final = ("json-schema", "tables")
_STATES_FORMATS: Final = ("table", "mermaid")

_EXAMPLES: Final = """Examples:

tlswall analyze incident.pcap

tlswall analyze monday.pcapng.gz tuesday.pcapng.gz --format ndjson -o days.ndjson

tcpdump -w - port 443 | tlswall analyze - --fail-on high
"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def show_version(wanted: bool) -> None:
    """Callback of --version."""
    if wanted:
        typer.echo(f"tlswall {VERSION}")
        raise typer.Exit


def parse_ports(text: str) -> tuple[int, ...]:
    """`443,8443` as numbers.

    Raises:
        typer.BadParameter: Not a list of ports, or more than the kernel module takes.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 1 <= int(word[:6]) <= 65535 for word in words):
        raise typer.BadParameter("Ports are numbers from 1 to 65535, separated by commas: 443,8443.")
    if len(words) > MODULE_PORTS:
        raise typer.BadParameter(f"At most {MODULE_PORTS} ports, as in the kernel module.")
    return tuple(map(int, words))


@app.command(epilog=_EXAMPLES)
def analyze(
    captures: Annotated[
        list[str],
        typer.Argument(
            metavar="CAPTURE", help="pcap or pcapng files, also .gz and .zst; - is standard input."
        ),
    ],
    *,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="|".join(_FORMAT_NAMES),
            callback=one_of(_FORMAT_NAMES),
            help="What to write.",
        ),
    ] = FORMATS[0].name,
    profile: Annotated[
        str,
        typer.Option(
            metavar="|".join(PROFILES),
            callback=one_of(PROFILES),
            help="The state machine that judges; nf_conntrack_tls gives the kernel module's verdicts.",
        ),
    ] = PROFILES[0],
    ports: Annotated[
        str | None,
        typer.Option(
            metavar="PORT,...",
            help="Server ports that the profile nf_conntrack_tls looks at.",
            show_default="443",
        ),
    ] = None,
    fail_on: Annotated[
        str | None,
        typer.Option(
            metavar="|".join(_SEVERITIES),
            callback=one_of(_SEVERITIES),
            help="Exit with status 1 if a finding is at least this severe.",
        ),
    ] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to standard output."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Only the summary and a line per kind of finding.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every finding and every connection.")
    ] = False,
) -> None:
    """Say what happened to TLS in captures, and which packets prove it."""
    if quiet and verbose:
        raise typer.BadParameter("--quiet and --verbose exclude each other.")
    if ports is not None and profile == PROFILES[0]:
        raise typer.BadParameter(
            "--ports goes with --profile nf_conntrack_tls; the default profile finds TLS on any port."
        )
    numbers = parse_ports(ports or "443")
    chosen = next(format for format in FORMATS if format.name == format_name)
    detail = Detail.BRIEF if quiet else Detail.FULL if verbose else Detail.NORMAL
    _refuse_overwriting(captures, output_path)

    from analyzer import pipeline

    if pipeline.uncompiled():
        say("the kernels are not compiled, so this is slow: install a C compiler and reinstall tlswall")
        warnings.simplefilter("ignore", SlowKernels)
    gc.freeze()  # what was imported is never garbage
    progress = Progress(_stored_size(captures), _terminal() if not quiet else None)
    with guarded(lambda: _interrupted(progress)):
        with progress:
            analysis = pipeline.analyze(captures, profile=profile, ports=numbers, progress=progress)
        took = progress.elapsed
        for capture in analysis.captures:
            for issue in capture.errors:
                say(f"{capture.path}: {issue.why} (at byte {issue.offset:,})")
        for name, why in analysis.failures.items():
            say(f"the detector {name} failed, so its findings are incomplete; please report this: {why}")
        with output(output_path) as out:
            chosen.render(analysis, out, Options(profile=profile, detail=detail))
        if verbose:
            packets = sum(capture.packets for capture in analysis.captures)
            size = sum(capture.bytes for capture in analysis.captures)
            rates = f"{packets / took:,.0f} packets/s, {byte_count(size / took)}/s"
            say(f"{count(packets, 'packet')} in {took:.2f} s: {rates}")
        worst = next(analysis.iter_findings(), None) if fail_on is not None else None
        analysis.close()
        keep(analysis)
        if fail_on is not None and worst is not None and worst.severity >= Severity[fail_on.upper()]:
            raise typer.Exit(FOUND)


@app.command()
def schema(
    *,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="|".join(_SCHEMA_FORMATS),
            callback=one_of(_SCHEMA_FORMATS),
            help="What to write.",
        ),
    ] = _SCHEMA_FORMATS[0],
) -> None:
    """Print the JSON Schema of `analyze --format json`, or the columns of all tables."""
    from analyzer.report.schema import schema_text, tables_text

    with guarded(), output(None) as out:
        out.write((schema_text() if format_name == "json-schema" else tables_text()).encode())


@app.command()
def states(
    *,
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="|".join(_STATES_FORMATS),
            callback=one_of(_STATES_FORMATS),
            help="What to write.",
        ),
    ] = _STATES_FORMATS[0],
    machine: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this machine: handshake, for example.")
    ] = None,
) -> None:
    """Print the TLS state machines that judge a connection, each row with its source."""
    from analyzer.report import states as layout
    from analyzer.tls.state import ROWS

    names = tuple(dict.fromkeys(row.machine.name.lower() for row in ROWS))
    one_of(names)(machine)
    rows = [row for row in ROWS if machine is None or row.machine.name.lower() == machine]
    with guarded(), output(None) as out:
        out.write((layout.mermaid(rows) if format_name == "mermaid" else layout.table(rows)).encode())


@app.command()
def crosscheck(
    capture: Annotated[str, typer.Argument(metavar="CAPTURE", help="A pcap or pcapng file.")],
) -> None:
    """Compare what tlswall reads with tshark and scapy, and list every difference."""
    from analyzer.crosscheck import compare

    with guarded():
        differences = compare(capture)
        with output(None) as out:
            out.writelines(f"{visible(str(difference), 2000)}\n".encode() for difference in differences)
        say(f"{count(len(differences), 'difference')}" if differences else "no differences")
        if differences:
            raise typer.Exit(FOUND)


def _refuse_overwriting(captures: Sequence[str], output_path: Path | None) -> None:
    if output_path is None or not output_path.exists():
        return
    for capture in captures:
        if capture != "-" and Path(capture).exists() and output_path.samefile(capture):
            fail(f"{capture}: is a capture, and not overwritten with the report")


def _terminal() -> TextIO | None:
    """Standard error, if it is a terminal."""
    return sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None


def _stored_size(captures: Sequence[str]) -> int | None:
    """Bytes of all captures together; None where one of them is no ordinary file."""
    paths = [Path(capture) for capture in captures]
    return sum(path.stat().st_size for path in paths) if all(path.is_file() for path in paths) else None


def _interrupted(progress: Progress) -> str:
    of = f" of {byte_count(progress.size)}" if progress.size else ""
    return f"interrupted after reading {byte_count(progress.done)}{of}; the report is not complete"
