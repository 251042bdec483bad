"""The command `tlswall`: the analyser's commands and those of the rule generator.

It parses options and calls from_findings and a backend. What is costly to import is imported in the command
that needs it: `tlswall analyze` passes here too.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from analyzer.cli import app as analyzer_app
from analyzer.cli import show_version
from analyzer.command import fail, guarded, one_of, output, say
from rulegen.predict_cli import app as predict_app

if TYPE_CHECKING:
    from analyzer.capture import CaptureInfo
    from rulegen.from_findings import Answer, Wish
    from rulegen.ir.rule import Ruleset, Source

HOOKS: Final = ("forward", "input", "output", "prerouting")
"""rulegen.ir.rule.Hook, which help need not wait for."""

BACKENDS: Final = ("nft", "iptables", "ip6tables", "bpf", "ipset")
"""Names of rulegen.backends.BACKENDS."""

FORMATS: Final = ("text", "json")

_EXAMPLES: Final = """Examples:

tlswall rules incident.pcap -o rules.nft

tlswall rules incident.pcap --explain

tlswall rules incident.pcap --policy block:ttl=7d --policy heartbleed --ports 443,8443 -o rules.nft

tlswall rules -p heartbleed:ports=443 -p heartbleed:ports=8443,variant=strict -o rules.nft

tlswall rules -p min-version:min=1.2,action=reset --servers 192.0.2.0/24 --hook input -o rules.nft

tlswall rules -p sni:names=a.example,*.b.example --backend bpf -o rules.bpf

tlswall rules incident.pcap --policy pin:servers=192.0.2.7 --connection 17 -o rules.nft

tlswall rules incident.pcap --finding DG06:client | ssh gateway nft -f -
"""

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.registered_commands.extend(analyzer_app.registered_commands)
app.registered_commands.extend(predict_app.registered_commands)


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Read TLS in packet captures, say what is wrong, and write the firewall rules that answer it."""


@app.command(epilog=_EXAMPLES)
def rules(
    captures: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAPTURE]...", help="pcap or pcapng files, also .gz and .zst; - is standard input."
        ),
    ] = None,
    *,
    policies: Annotated[
        list[str] | None,
        typer.Option(
            "--policy",
            "-p",
            metavar="NAME[:key=value,...]",
            help="A policy (`tlswall policies` explains them); without, those that answer the findings.",
        ),
    ] = None,
    backend_name: Annotated[
        str,
        typer.Option(
            "--backend",
            metavar="|".join(BACKENDS),
            callback=one_of(BACKENDS),
            help="For nftables; for iptables or ip6tables, which look at bytes with u32; for both of them,"
            " with BPF programs (bpf); or the sets that these three look into (ipset).",
        ),
    ] = BACKENDS[0],
    hook: Annotated[
        str,
        typer.Option(metavar="|".join(HOOKS), callback=one_of(HOOKS), help="Where the packets are judged."),
    ] = HOOKS[0],
    ports: Annotated[
        str | None,
        typer.Option(
            metavar="PORT,...", help="Server ports, for policies that take them.", show_default="any"
        ),
    ] = None,
    servers: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS,...",
            help="Addresses and prefixes of servers, for policies that take them.",
            show_default="any",
        ),
    ] = None,
    ttl: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="How long an address stays blocked: 90s, 30m, 24h, 7d.", show_default="24h"
        ),
    ] = None,
    connection: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="The connection of the captures that --policy pin lets through."
        ),
    ] = None,
    findings: Annotated[
        list[str] | None,
        typer.Option(
            "--finding",
            metavar="ID[:client|:server]",
            help="Block an endpoint for this finding too, whatever its class; and whose side to blame.",
        ),
    ] = None,
    defragment: Annotated[
        bool,
        typer.Option(
            "--defragment/--no-defragment",
            help="Turn connection tracking on, so that IP fragments are judged whole.",
        ),
    ] = True,
    check: Annotated[
        bool,
        typer.Option("--check/--no-check", help="Ask the real tool, in a network namespace of its own."),
    ] = True,
    explain: Annotated[
        bool,
        typer.Option(
            "--explain",
            help="Tell of every rule what it means, where it comes from, what each backend makes of it, and"
            " how it is got around. Rules are then written with -o only.",
        ),
    ] = False,
    explain_format: Annotated[
        str,
        typer.Option(
            "--format", metavar="|".join(FORMATS), callback=one_of(FORMATS), help="Of what --explain tells."
        ),
    ] = FORMATS[0],
    output_path: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write here instead of to standard output."),
    ] = None,
) -> None:
    """Write firewall rules that answer what was found, and account for every finding."""
    if not captures and not policies:
        raise typer.BadParameter("Name a capture, or a policy with --policy.")
    if connection is not None and not policies:
        raise typer.BadParameter(
            "--connection names the one that --policy pin lets through: add --policy pin."
        )
    if explain_format != FORMATS[0] and not explain:
        raise typer.BadParameter("--format is of what --explain tells: add --explain.")
    from rulegen.account import account_lines
    from rulegen.backends import backend_named, emit
    from rulegen.errors import InvalidRuleset, Refused, WishError
    from rulegen.from_findings import parse_asked, parse_wish
    from rulegen.lines import write

    if output_path is not None and output_path.exists():
        for capture in map(Path, captures or ()):
            if capture.exists() and output_path.samefile(capture):
                fail(f"{capture}: is a capture, and not overwritten with rules")
    given = (("ports", ports), ("servers", servers), ("ttl", ttl), ("connection", connection))
    defaults = {name: str(value) for name, value in given if value is not None}
    with guarded():
        try:
            wishes = [parse_wish(text) for text in policies or ()]
            asked = parse_asked(findings or ())
            answer = _answer(
                captures or [],
                wishes=wishes,
                hook=hook,
                asked=asked,
                defaults=defaults,
                defragment=defragment,
            )
            if explain:
                _explain(answer.ruleset, explain_format)
            if explain and output_path is None:
                write(account_lines(answer), sys.stderr)
                return
            backend = backend_named(backend_name)
            artifact = emit(answer.ruleset, backend)
        except WishError as error:
            fail(str(error))
        except InvalidRuleset as error:
            fail(f"no rules written: {error}")
        except Refused as error:
            fail(f"no rules written: {error}; {_others(answer.ruleset)}")
        write(account_lines(answer, artifact), sys.stderr)
        if check:
            checked = backend.check(artifact.text)
            if checked.accepted is False:
                fail(f"no rules written: {backend.name} refuses them: {checked.message}")
            say(
                f"not checked: {checked.message}"
                if checked.accepted is None
                else f"{backend.name} accepts the rules"
            )
        if artifact.sets_apart:
            say("these rules look into sets: load what --backend ipset makes of the same command first")
        with output(output_path) as out:
            out.write(artifact.text.encode())


def _explain(ruleset: Ruleset, explain_format: str) -> None:
    import json

    from rulegen.explain import explain, explanation_lines
    from rulegen.ir.check import check
    from rulegen.lines import write

    check(ruleset)
    explained = explain(ruleset)
    if explain_format == "json":
        sys.stdout.write(f"{json.dumps(explained.plain(), indent=2)}\n")
    else:
        write(explanation_lines(explained), sys.stdout)


def _others(ruleset: Ruleset) -> str:
    """What to do about a refusal."""
    from rulegen.explain import REFUSED, say

    rules_of = [said for said in say(ruleset) if said.backend != "ipset"]  # which says sets alone
    able = [said.backend for said in rules_of if said.level != REFUSED]
    can = f"--backend {' or '.join(able)} can" if able else "no backend can say all of it"
    return f"{can}; --explain tells what each makes of each rule"


def _answer(captures: list[str], *, wishes: Sequence[Wish], **options: object) -> Answer:
    """Analyse the captures, if there are any, and answer what was found."""
    from rulegen.from_findings import answer
    from rulegen.ir.rule import Hook

    options["hook"] = Hook(str(options["hook"]))
    if not captures:
        # the options of `answer`, by name
        return answer((), (), (), wishes=wishes, **options)  # type: ignore[arg-type]
    from analyzer import pipeline
    from analyzer.report.progress import Progress
    from rulegen.handshakes import with_handshakes
    from rulegen.policies import policy_named

    paths = [Path(capture) for capture in captures]
    size = sum(path.stat().st_size for path in paths) if all(path.is_file() for path in paths) else None
    progress = Progress(size, sys.stderr if sys.stderr.isatty() else None)
    handshakes = any(policy_named(wish.policy).wants_handshakes for wish in wishes)
    with progress:
        analysis = pipeline.analyze(captures, progress=progress, tables=("messages",) if handshakes else ())
    for capture in analysis.captures:
        for issue in capture.errors:
            say(f"{capture.path}: {issue.why} (at byte {issue.offset:,})")
    connections: Iterable[Mapping[str, object]] = analysis.iter_connections()
    if handshakes:
        connections = with_handshakes(connections, analysis.messages)
    return answer(
        [_source(capture) for capture in analysis.captures],
        analysis.iter_findings(),
        connections,
        wishes=wishes,
        **options,  # type: ignore[arg-type]
    )


def _source(capture: CaptureInfo) -> Source:
    import hashlib

    from rulegen.ir.rule import Source

    path, first_ns, last_ns = Path(capture.path), capture.first_ns, capture.last_ns
    times_ns = None if first_ns is None or last_ns is None else (first_ns, last_ns)
    if not path.is_file():
        return Source(name=capture.path, sha256=None, times_ns=times_ns)
    with path.open("rb") as stored:
        digest = hashlib.file_digest(stored, "sha256").hexdigest()
    return Source(name=path.name, sha256=digest, times_ns=times_ns)


@app.command("policies")
def show_policies(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Only these.")] = None,
) -> None:
    """Explain the policies: what each stops, costs, how it is bypassed, and which backends can say it."""
    from rulegen.errors import WishError
    from rulegen.explain import policy_lines
    from rulegen.lines import write
    from rulegen.policies import POLICIES, policy_named

    with guarded():
        try:
            chosen = tuple(map(policy_named, names)) if names else POLICIES
        except WishError as error:
            fail(str(error))
        write(policy_lines(chosen), sys.stdout)
