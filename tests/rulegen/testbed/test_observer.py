"""What is seen of one packet, and that a plain user sees it too."""

from __future__ import annotations

import subprocess
import sys

import pytest

from rulegen.testbed.ends import answers_to, frame_of, sentinel_of
from rulegen.testbed.packets import RST, Segment

pytestmark = pytest.mark.netns

AS_A_PLAIN_USER = """
import ctypes, os, sys
from rulegen.testbed import tools
from rulegen.testbed.netns import Lab, isolate, missing_tools
from rulegen.testbed.observer import Observer, on_one_processor
from rulegen.testbed.packets import Segment

if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
    ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, which setuid took away: /proc/self is ours again
isolate()
lab = Lab.build()
packet = Segment(source="192.0.2.1", destination="192.0.2.2", source_port=1, destination_port=443).packet()
NFT = "table ip t { chain c { type filter hook forward priority 0; ct state new tcp dport 443 drop; }; }"
XT = '''*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -p tcp -m conntrack --ctstate NEW -m tcp --dport 443 -j DROP
COMMIT
'''
for tool, text in (("nft", NFT), ("iptables-nft", XT), ("iptables-legacy", XT)):
    if not missing_tools([tool]):
        tools.flush()
        tools.load(tool, text, None)
        observer = Observer.start(lab, legacy=tool == "iptables-legacy")
        with on_one_processor():
            seen = observer.observe(0, packet)
        observer.close()
        print(seen.passed, seen.entered, [step.rule for step in seen.steps if step.rule] != [])
"""


def test_a_plain_user_sees_all_of_it(lab):
    assert lab is not None  # a lab can be built here
    done = subprocess.run(
        [sys.executable, "-c", AS_A_PLAIN_USER], capture_output=True, text=True, check=False
    )
    if "no namespaces here" in done.stderr:
        pytest.skip("this system does not let a plain user make namespaces")
    assert set(done.stdout.splitlines()) == {"False True True"}, done.stderr


def test_what_the_firewall_says_to_all_is_no_answer():
    """Its multicast listener reports come at any time, RFC 3810 5.2."""
    asks = Segment(
        source="2001:db8::1", destination="2001:db8::2", source_port=1, destination_port=443
    ).packet()
    reset = Segment(
        source="2001:db8::2", destination="2001:db8::1", source_port=443, destination_port=1, flags=RST
    ).packet()
    report = Segment(source="fe80::1", destination="ff02::16", source_port=0, destination_port=0).packet()
    frames = [frame_of(bytes(12), one) for one in (report, reset)]
    assert answers_to(asks, [*frames, sentinel_of(bytes(12))]) == [reset]
