"""The command `tlswall predict`: what rulesets would do with captures, without a kernel.

Exit status: 0 done, 1 what --fail-on names was found, 2 bad input, or rules that are not modelled.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from analyzer.command import FOUND, fail, guarded, one_of, output, say

if TYPE_CHECKING:
    from analyzer.analysis import Analysis
    from rulegen.artifacts import Artifact
    from rulegen.evaluate.judge import Judged, Meetings
    from rulegen.evaluate.ruleset import Loading

PLACES: Final = ("router", "server", "client")
"""rulegen.evaluate.firewall.Place."""
VARIANTS: Final = ("nf_tables", "legacy")
FORMATS: Final = ("text", "json", "ndjson")
FAILURES: Final = ("collateral", "misses", "unknown")

_REFUSALS_MAX: Final = 50

_EXAMPLES: Final = """Examples:

tlswall predict rules.nft incident.pcap

tlswall predict rules.nft monday.pcap tuesday.pcap --fail-on collateral

tlswall predict /etc/nftables.conf incident.pcap --at server

tlswall predict rules.v4 incident.pcap --with rules.v6 --with sets.ipset --variant legacy

tlswall predict rules.nft incident.pcap --format json | jq '.rules[] | select(.packets > 0)'

tlswall predict rules.nft incident.pcap --format ndjson | grep '"drop"'
"""

app = typer.Typer()


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be predicted."""

    files: Sequence[Path]
    artifacts: Sequence[Artifact]
    loading: Loading
    captures: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Told:
    """What became of the packets."""

    analysis: Analysis
    judged: Sequence[Judged]
    meetings: Meetings


@app.command(epilog=_EXAMPLES)
def predict(
    rules: Annotated[
        Path,
        typer.Argument(
            metavar="RULES",
            help="A ruleset: an nft file, or one of iptables-save or ip6tables-save, whoever wrote it.",
        ),
    ],
    captures: Annotated[
        list[str], typer.Argument(metavar="CAPTURE...", help="pcap or pcapng files, also .gz and .zst.")
    ],
    *,
    more_rules: Annotated[
        list[Path] | None,
        typer.Option(
            "--with",
            "-w",
            metavar="RULES",
            help="Another ruleset that is loaded too, behind the first: for the other family, of other"
            " tables, or the sets of ipset save.",
        ),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="|".join(PLACES),
            callback=one_of(PLACES),
            help="Where the firewall is: between both ends, or on one of them.",
            show_default="router; server for rules that have none in the way of forwarded packets",
        ),
    ] = None,
    variant: Annotated[
        str,
        typer.Option(
            metavar="|".join(VARIANTS),
            callback=one_of(VARIANTS),
            help="Which iptables loads the rules, where their file does not say.",
        ),
    ] = VARIANTS[0],
    format_name: Annotated[
        str,
        typer.Option(
            "--format",
            "-f",
            metavar="|".join(FORMATS),
            callback=one_of(FORMATS),
            help="What to write; ndjson has a line per packet.",
        ),
    ] = FORMATS[0],
    fail_on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(FAILURES),
            help="Exit with status 1 if there is any; may be given several times.",
        ),
    ] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to standard output."),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Every rule, connection and miss.")
    ] = False,
) -> None:
    """Say what a ruleset would do with captures, packet by packet, without loading it.

    Packets go through the rules in the kernel's order, with connection tracking and the reassembly of
    fragments. Of each rule it is counted what matches, as its counter would; connections without an attack
    that would lose packets are listed, and so are attacks that would get through. What can't be known from
    a capture, because bytes were cut or because it depends on the kernel's clock, is told apart.
    """
    for wish in fail_on or ():
        one_of(FAILURES)(wish)
    with guarded():
        files = [rules, *(more_rules or ())]
        artifacts = [_read(path) for path in files]
        asked = _Asked(files, artifacts, _loading(artifacts, place, variant), captures)
        _refuse(asked, output_path)
        found = _write(asked, _judge(asked), format_name, output_path, verbose=verbose)
        if found & set(fail_on or ()):
            raise typer.Exit(FOUND)


def _read(path: Path) -> Artifact:
    from rulegen.artifacts import ToolMissing, Unreadable, read

    try:
        return read(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        fail(f"{path}: is no text, so no ruleset. Rules come first: tlswall predict RULES CAPTURE...")
    except Unreadable as error:
        fail(f"{path}: {error}")
    except ToolMissing as error:
        fail(f"{path}: {error}; an nft file is read by nft itself (apt install nftables)")


def _loading(artifacts: Sequence[Artifact], place: str | None, variant: str) -> Loading:
    from rulegen.evaluate.firewall import Place
    from rulegen.evaluate.ruleset import Loading, likely_place

    return Loading(place=likely_place(artifacts) if place is None else Place(place), variant=variant)


def _refuse(asked: _Asked, output_path: Path | None) -> None:
    """End the command where it can't say what it is asked for."""
    from rulegen.evaluate.ruleset import refusals

    for name in asked.captures:
        if name == "-":
            fail("a capture is read twice here, so not from standard input: save it to a file first")
        if not Path(name).exists():
            fail(f"{name}: there is no such capture")
        if output_path is not None and output_path.exists() and output_path.samefile(name):
            fail(f"{name}: is a capture, and not overwritten with the prediction")
    refused = refusals(asked.artifacts, asked.loading)
    for one in refused[:_REFUSALS_MAX]:
        say(f"not modelled: {one.where}: {one.feature.rstrip(',')}")
    if len(refused) > _REFUSALS_MAX:
        say(f"and {len(refused) - _REFUSALS_MAX} more")
    if refused:
        fail(
            f"{', '.join(map(str, asked.files))}: nothing predicted, since what these rules do is not known"
            " here; give missing sets by --with, or try a copy without these rules, and mind what they would"
            " have done"
        )


def _judge(asked: _Asked) -> _Told:
    """Analyse the captures, and take each through rules that have just been loaded."""
    from analyzer import pipeline
    from analyzer.report.progress import Progress
    from rulegen.evaluate.firewall import Place
    from rulegen.evaluate.judge import Meetings, judge
    from rulegen.evaluate.questions import questions
    from rulegen.evaluate.ruleset import firewall
    from rulegen.evaluate.traffic import Traffic

    sizes = [Path(name).stat().st_size for name in asked.captures]
    progress = Progress(2 * sum(sizes), sys.stderr if sys.stderr.isatty() else None)
    meetings, judged = Meetings(), []
    shared = questions(asked.artifacts)
    with progress:
        analysis = pipeline.analyze(asked.captures, tables=("packets",), progress=progress)
        for capture in analysis.captures:
            for issue in capture.errors:
                say(f"{capture.path}: {issue.why} (at byte {issue.offset:,})")
        done = sum(sizes)
        for index, (name, size) in enumerate(zip(asked.captures, sizes, strict=True)):

            def report(position: int, before: int = done) -> None:
                progress(before + position)

            senders = None if asked.loading.place is Place.ROUTER else Traffic(analysis, index).senders()
            loaded = firewall(asked.artifacts, asked.loading)
            judged.append(judge(loaded, name, meetings, senders=senders, questions=shared, report=report))
            done += size
    return _Told(analysis, judged, meetings)


def _write(
    asked: _Asked, told: _Told, format_name: str, output_path: Path | None, *, verbose: bool
) -> set[str]:
    """Write the prediction; which of FAILURES it has."""
    from analyzer.version import VERSION
    from rulegen.evaluate.predict import predict, rows
    from rulegen.evaluate.ruleset import rule_names
    from rulegen.lines import write
    from rulegen.prediction_text import prediction_lines

    prediction = predict(told.judged, told.meetings, told.analysis, list(rule_names(asked.artifacts)))
    if format_name == "text":
        width = shutil.get_terminal_size().columns if output_path is None and sys.stdout.isatty() else None
        lines = prediction_lines(prediction, asked.loading.place, width=width, everything=verbose)
        if output_path is None:
            write(lines, sys.stdout)
        else:
            text = io.StringIO()
            write(lines, text)
            with output(output_path) as out:
                out.write(text.getvalue().encode())
    elif format_name == "json":
        head = {
            "tlswall": VERSION,
            "rulesets": [str(path) for path in asked.files],
            "captures": list(asked.captures),
            "at": asked.loading.place.value,
        }
        with output(output_path) as out:
            out.write(f"{json.dumps(head | prediction.plain(), indent=2)}\n".encode())
    else:
        with output(output_path) as out:
            for one, name in zip(told.judged, asked.captures, strict=True):
                out.writelines(f"{json.dumps(row)}\n".encode() for row in rows(one, told.meetings, name))
    found = {"collateral": prediction.collateral, "misses": prediction.misses, "unknown": prediction.unknown}
    return {name for name, there in found.items() if there}
