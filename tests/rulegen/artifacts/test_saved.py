"""What the kernel saves of a rule reads as the rule that was loaded: iptables and ip6tables, both variants."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace

import pytest

from rulegen.artifacts import read_iptables, unsupported
from rulegen.artifacts.xt_values import ConnLimit, Recent, U32Match

TOOLS = ("iptables-legacy", "iptables-nft", "ip6tables-legacy", "ip6tables-nft")

BPF = "14,48 0 0 0,84 0 0 240,21 0 10 64,48 0 0 9,21 0 8 6,40 0 0 6,69 6 0 8191,177 0 0 0,80 0 0 12,84 0 0 240,116 0 0 2,7 0 0 0,6 0 0 1,6 0 0 0"
WALK = "0>>22&0x3C@ 12>>26&0x3C@"

RULES = (
    f'-m u32 --u32 "{WALK} 0>>24=0x17"',
    f'-m u32 ! --u32 "{WALK} 0&0xFFFFFF00=0x16030000:0x160303FF && 4&0x1FFF=0,010,3:5"',
    '-m u32 --u32 "0=1" -m u32 ! --u32 "4=0:0xFFFFFFFF" -m u32 --u32 "8<<4&0xFF@0=7"',
    f'-m bpf --bytecode "{BPF}"',
    '-m string --string "a \\"b\\\\ c" --algo bm --to 65535',
    '-m string ! --hex-string "|00 00 ff|a|7c|b" --algo kmp --from 40 --to 300 --icase',
    "-m hashlimit --hashlimit-above 5/sec --hashlimit-burst 9 --hashlimit-mode srcip,dstport --hashlimit-name one"
    " --hashlimit-srcmask 24 --hashlimit-htable-expire 20000",
    "-m hashlimit --hashlimit-upto 512kb/s --hashlimit-burst 1mb --hashlimit-name two",
    "-m set --match-set hosts src -m set ! --match-set pairs src,dst",
    "-m connlimit --connlimit-above 20 --connlimit-mask 24 --connlimit-daddr",
    "-m connlimit --connlimit-upto 3 --connlimit-mask 32 --connlimit-saddr",
    "-m recent --update --seconds 60 --hitcount 4 --name ssh --rsource",
    "-m recent ! --rcheck --rttl --name other --rdest",
    "-m limit --limit 5/min --limit-burst 7",
    "-m conntrack --ctstate NEW,ESTABLISHED --ctdir REPLY",
    "-m conntrack ! --ctstate INVALID,UNTRACKED,RELATED --ctstatus ASSURED,CONFIRMED --ctexpire 5:10",
    "-m conntrack ! --ctorigsrcport 1024:65535 --ctrepldstport 443 --ctproto 6",
    "-m state --state RELATED",
    "-m connmark ! --mark 0x5/0xff",
    "-m mark --mark 0x7",
    "-m length ! --length 40:1500",
    "-m addrtype ! --src-type LOCAL --dst-type LOCAL,MULTICAST",
    "-p tcp -m tcp ! --sport 1024:65535 --dport 443 ! --tcp-flags SYN,ACK SYN --tcp-option 8",
    "-p tcp -m tcp --syn",
    "-p udp -m udp --sport 0:53 ! --dport 5353",
    "-p tcp -m multiport --dports 80,443,8000:8010 -m multiport ! --sports 1,2",
    "-p udp -m multiport --ports 53",
    "! -p udp ! -i eth+ -o wan0",
    '-m comment --comment "what \\"he\\" said \\\\ [x]"',
)
TARGETS = (
    "-j ACCEPT",
    "-j own",
    "-g own",
    "-p tcp -j REJECT --reject-with tcp-reset",
    '-j LOG --log-prefix "a \\"b\\" " --log-level 7 --log-tcp-options',
    '-j NFLOG --nflog-prefix "q" --nflog-group 5',
    "-j CONNMARK --set-xmark 0x1/0xff",
    "-j CONNMARK --set-mark 0x5/0x2",
    "-j CONNMARK --or-mark 0x5",
    "-j CONNMARK --save-mark --mask 0xff",
    "-j CONNMARK --restore-mark",
    "-j MARK --set-mark 0x5/0x2",
    "-j MARK --and-mark 0x5",
    "-j MARK --or-mark 5",
    "-j MARK --xor-mark 010",
    "-j CONNMARK --save-mark --nfmask 0xf --ctmask 0xff",
    "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xff",
    "-j SET --add-set hosts src --exist --timeout 60",
    "-j SET --del-set pairs src,dst",
)
SETS = "create hosts hash:ip family {0} timeout 5\ncreate pairs hash:ip,port family {0}\n"


def restored(tool: str, table: str, lines: list[str]) -> str:
    """What the tool saves after a restore into an empty namespace."""
    if shutil.which(f"{tool}-restore") is None or shutil.which("ipset") is None:
        pytest.skip(f"{tool} or ipset is not installed")
    sets = SETS.format("inet6" if tool.startswith("ip6") else "inet")
    text = "\n".join((f"*{table}", ":own - [0:0]", *(f"-A FORWARD {line}" for line in lines), "COMMIT", ""))
    script = f'printf %s "$0" | ipset restore && {tool}-restore && {tool}-save -t {table}'
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", script, sets],
        input=text,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"this kernel can't: {done.stderr.strip()[:200]}")
    return done.stdout


def parts_of(text: str, tool: str) -> list[tuple[object, ...]]:
    found = read_iptables(text, "ip6" if tool.startswith("ip6") else "ip")
    assert unsupported(found) == ()
    return [
        (frozenset(rule.parts), rule.target, rule.comment)
        for _, chain, rule in found.rules
        if chain.name == "FORWARD"
    ]


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("rule", RULES)
def test_matches(tool, rule):
    saved = restored(tool, "filter", [rule])
    written = f"*filter\n:own -\n-A FORWARD {rule}\nCOMMIT\n"
    assert _whole(parts_of(saved, tool), tool) == _whole(parts_of(written, tool), tool)


@pytest.mark.netns
@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize("target", TARGETS)
def test_targets(tool, target):
    table = "filter" if "REJECT" in target else "mangle"
    saved = restored(tool, table, [target])
    written = f"*{table}\n:own -\n-A FORWARD {target}\nCOMMIT\n"
    assert parts_of(saved, tool) == parts_of(written, tool)


def _whole(rules, tool):
    """Masks that cover the whole address are left out by people and written by the kernel."""
    bits = 128 if tool.startswith("ip6") else 32
    whole = {bits, (1 << bits) - 1}

    def plain(part):
        covers = isinstance(part, ConnLimit | Recent) and part.mask in whole
        return replace(part, mask=None) if covers else part

    return [(frozenset(map(plain, parts)), target, comment) for parts, target, comment in rules]


@pytest.mark.netns
@pytest.mark.parametrize("tool", ["iptables-legacy", "ip6tables-nft"])
def test_u32_is_printed_as_the_kernel_prints_it(tool):
    saved = restored(tool, "filter", list(RULES[:3]))
    texts = [
        str(part.program)
        for _, _, rule in read_iptables(saved).rules
        for part in rule.parts
        if isinstance(part, U32Match)
    ]
    assert len(texts) == 5
    assert all(f'--u32 "{text}"' in saved for text in texts)


@pytest.mark.netns
@pytest.mark.parametrize(("tool", "variant"), [("iptables-legacy", "legacy"), ("iptables-nft", "nf_tables")])
def test_the_variant_is_known(tool, variant):
    assert read_iptables(restored(tool, "filter", ["-j DROP"])).variant == variant
