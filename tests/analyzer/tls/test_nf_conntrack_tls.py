"""The profile gives the module's first verdict: on the same packet, for the same reason.

Three forms are held equal: the compiled kernel, the same file uncompiled, and Reference, written from the
description of the module, one byte at a time.
"""

import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyzer.tls import nf_conntrack_tls

SAMPLES = Path(__file__).parents[3] / "samples" / "captures"
ORIGINATOR, REPLY = 0, 1
LOW, HIGH = b"\x00", b"\xff"


def load_uncompiled() -> ModuleType:
    path = Path(nf_conntrack_tls.__file__).with_name("nf_conntrack_tls.py")
    spec = importlib.util.spec_from_file_location("nf_conntrack_tls_uncompiled", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


UNCOMPILED = load_uncompiled()
FORMS = [
    pytest.param(UNCOMPILED, id="uncompiled"),
    pytest.param(
        nf_conntrack_tls,
        id="compiled",
        marks=pytest.mark.skipif(not nf_conntrack_tls.COMPILED, reason="the kernel is not compiled"),
    ),
]


@pytest.fixture(params=FORMS)
def form(request):
    return request.param


def block(packets, first=1):
    """Columns of packets (direction, payload, and by keyword flow, begins, dport, length)."""
    rows = [{"flow": 0, "begins": 0, "dport": 443, "length": len(p["payload"])} | p for p in packets]
    payloads = [row["payload"] for row in rows]
    sizes = np.array([len(payload) for payload in payloads], np.int32)
    columns = SimpleNamespace(
        packet=np.arange(first, first + len(rows), dtype=np.int64),
        dport=np.array([row["dport"] for row in rows], np.uint16),
        payload_offset=np.cumsum(np.concatenate(([0], sizes)))[:-1].astype(np.int64),
        payload_captured=sizes,
        payload_length=np.array([row["length"] for row in rows], np.int32),
    )
    return (
        np.frombuffer(b"".join(payloads), np.uint8),
        columns,
        np.array([row["flow"] for row in rows], np.int64),
        np.array([row["direction"] for row in rows], np.uint8),
        np.array([row["begins"] for row in rows], np.uint8),
    )


def conversation(*packets):
    """A SYN that opens the connection, then (direction, payload) as packets 2, 3, ..."""
    syn = {"direction": ORIGINATOR, "payload": b"", "begins": 1}
    return [syn, *({"direction": direction, "payload": payload} for direction, payload in packets)]


def verdict(form, packets, **parameters):
    """(packet number, reason) of the only verdict, or None."""
    result = form.Profile(**parameters).feed(*block(packets))
    assert len(result.packet) <= 1
    if not len(result.packet):
        return None
    return int(result.packet[0]), form.REASONS[result.reason[0]]


def tls(content_type, body, version=b"\x03\x03"):
    return bytes((content_type,)) + version + len(body).to_bytes(2, "big") + body


def ssl2(message_type, rest=b"", length=None):
    length = 1 + len(rest) if length is None else length
    return (0x8000 | length).to_bytes(2, "big") + bytes((message_type,)) + rest


def ssl2_padded(message_type, rest=b"", padding=0, length=None):
    length = 1 + len(rest) if length is None else length
    header = (0x4000 | length).to_bytes(2, "big") + bytes((padding, message_type))
    return header + rest + bytes(padding)


SMUGGLING, BLEED, TYPE = "data-smuggling", "heartbleed-response", "invalid-record-type"
EMPTY, SHORT = "zero-length-ssl2-record", "heartbeat-too-short"
JUNK = b"\x00"


def beat(length):
    return tls(24, bytes(length))


def app(body):
    return tls(23, body)


# fmt: off
CASES = {
    # name: (packets after the SYN, (packet, reason) or None)
    "nothing":                      ([], None),
    "handshake is not scanned":     ([(0, tls(22, LOW * 5000))], None),
    "heartbeat is not scanned":     ([(0, beat(5000))], None),
    "a run of 128 passes":          ([(0, app(LOW * 128))], None),
    "a run of 129":                 ([(0, app(LOW * 129))], (2, SMUGGLING)),
    "alerts are scanned":           ([(1, tls(21, LOW * 129))], (2, SMUGGLING)),
    "CCS is scanned":               ([(1, tls(20, LOW * 129))], (2, SMUGGLING)),
    "a high byte ends the run":     ([(0, app(LOW * 128 + HIGH + LOW * 128))], None),
    "a run inside a record":        ([(0, app(HIGH * 70 + LOW * 129 + HIGH * 70))], (2, SMUGGLING)),
    "0x7f is low":                  ([(0, app(b"\x7f" * 129))], (2, SMUGGLING)),
    "0x80 is not low":              ([(0, app(b"\x80" * 300))], None),
    "run over packets":             ([(0, app(LOW * 200)[:5 + 128]), (0, LOW)], (3, SMUGGLING)),
    "run over records":             ([(0, app(LOW * 128)), (0, app(LOW))], (3, SMUGGLING)),
    "run over a handshake":         ([(0, app(LOW * 128) + tls(22, HIGH)), (0, app(LOW))], (3, SMUGGLING)),
    "a run for each direction":     ([(0, app(LOW * 128)), (1, app(LOW * 128))], None),
    "the other side's high byte":   ([(0, app(LOW * 128)), (1, app(HIGH)), (0, app(LOW))], (4, SMUGGLING)),
    "type 19":                      ([(0, b"\x13\x03\x01\x00\x00")], (2, TYPE)),
    "type 25":                      ([(0, b"\x19")], (2, TYPE)),
    "text: SSLv2 padded, scanned":  ([(1, b"HTTP/1.1 400 Bad Request\r\n" * 9)], (2, SMUGGLING)),
    "junk after a record":          ([(1, tls(22, b"abc")), (1, JUNK)], (3, TYPE)),
    "the version is not looked at": ([(0, tls(22, b"abc", b"\xff\xff"))], None),
    "an empty record passes":       ([(0, app(b"") + tls(22, b"") + tls(20, b"\x01"))], None),
    "junk after an empty record":   ([(0, app(b"")), (0, JUNK)], (3, TYPE)),
    "heartbeat of 18":              ([(0, beat(18))], (2, SHORT)),
    "heartbeat of 0":               ([(1, beat(0))], (2, SHORT)),
    "heartbeat answered":           ([(0, beat(19)), (1, beat(19))], None),
    "heartbeat over-answered":      ([(0, beat(19)), (1, beat(20))], (3, BLEED)),
    "heartbeat under-answered":     ([(1, beat(20)), (0, beat(19))], (3, BLEED)),
    "verdict is on the header":     ([(0, beat(19)), (1, b"\x18\x03\x03\x40"), (1, b"\x00")], (4, BLEED)),
    "two requests: the last counts":([(0, beat(19)), (0, beat(30)), (1, beat(19))], (4, BLEED)),
    "2nd answer is a request":      ([(0, beat(19)), (1, beat(19) + beat(40)), (0, beat(19))], (4, BLEED)),
    "a retransmission counts":      ([(0, beat(19)), (1, beat(19) * 2), (0, beat(21))], (4, BLEED)),
    "ssl2 hellos are clear":        ([(0, ssl2(1, LOW * 500)), (1, ssl2(4, LOW * 500))], None),
    "ssl2 master key is clear":     ([(0, ssl2(2, LOW * 500))], None),
    "ssl2 client hello, reply":     ([(1, ssl2(1, b"x"))], (2, "ssl2-client-hello-wrong-direction")),
    "ssl2 server hello reversed":   ([(0, ssl2(4, b"x"))], (2, "ssl2-server-hello-wrong-direction")),
    "ssl2 master key, reply":       ([(1, ssl2(2, b"x"))], (2, "ssl2-client-master-key-wrong-direction")),
    "ssl2 other type is scanned":   ([(0, ssl2(3, LOW * 129))], (2, SMUGGLING)),
    "the type is not scanned":      ([(0, ssl2(3, LOW * 128))], None),
    "ssl2 empty":                   ([(0, ssl2(1, length=0))], (2, EMPTY)),
    "ssl2 empty, reversed":         ([(1, ssl2(1, length=0))], (2, EMPTY)),
    "ssl2 empty: on its type byte": ([(0, b"\x80"), (0, b"\x00"), (0, b"\x01")], (4, EMPTY)),
    "ssl2 type only":               ([(0, ssl2(5) + tls(22, b"")), (0, JUNK)], (3, TYPE)),
    "ssl2 padded is scanned":       ([(0, ssl2_padded(1, LOW * 129))], (2, SMUGGLING)),
    "ssl2 padded has no direction": ([(1, ssl2_padded(1, b"x")), (0, ssl2_padded(4, b"x"))], None),
    "padding is in the record":     ([(0, ssl2_padded(3, HIGH * 9, 129))], (2, SMUGGLING)),
    "padding ends with the record": ([(0, ssl2_padded(3, HIGH * 9, 128)), (0, JUNK)], (3, TYPE)),
    "padded, empty":                ([(0, ssl2_padded(3, length=0))], (2, EMPTY)),
    "padded, only padding":         ([(0, b"\x40\x00\x07\x03" + HIGH * 6), (0, JUNK)], (3, TYPE)),
    "largest ssl2 record":          ([(0, ssl2(1, length=0x7FFF)), (0, bytes(0x7FFE)), (0, JUNK)], (4, TYPE)),
    "judged no further":            ([(0, JUNK), (0, app(LOW * 129)), (1, JUNK)], (2, TYPE)),
}
# fmt: on


@pytest.mark.parametrize(("packets", "expected"), CASES.values(), ids=CASES.keys())
def test_verdict(form, packets, expected):
    assert verdict(form, conversation(*packets)) == expected


@pytest.mark.parametrize(("packets", "expected"), CASES.values(), ids=CASES.keys())
def test_reference_agrees(packets, expected):
    reference = Reference()
    for number, (direction, payload) in enumerate(packets, start=2):
        reason = reference.feed(direction, payload)
        if reason is not None:
            assert (number, reason) == expected
            return
    assert expected is None


@pytest.mark.parametrize("record", [tls(24, bytes(19)), ssl2(1, b"x" * 9), ssl2_padded(3, b"\xff" * 9, 3)])
def test_headers_may_be_split_at_any_byte(form, record):
    stream = record + b"\x00"
    for cut in range(1, len(stream)):
        packets = conversation((ORIGINATOR, stream[:cut]), (ORIGINATOR, stream[cut:]))
        assert verdict(form, packets) == (3, "invalid-record-type")
    bytewise = conversation(*((ORIGINATOR, stream[i : i + 1]) for i in range(len(stream))))
    assert verdict(form, bytewise) == (len(stream) + 1, "invalid-record-type")


@pytest.mark.parametrize(
    ("limit", "run", "dropped"), [(1, 1, False), (1, 2, True), (4000, 4001, True), (0, 9999, False)]
)
def test_run_limit(form, limit, run, dropped):
    packets = conversation((ORIGINATOR, tls(23, LOW * run)))
    expected = (2, "data-smuggling") if dropped else None
    assert verdict(form, packets, suspicious_sequence_length=limit) == expected


def test_sixteen_bit_counter_never_passes_65535(form):
    packets = conversation(*((ORIGINATOR, tls(23, LOW * 30000)) for _ in range(5)))
    assert verdict(form, packets, suspicious_sequence_length=0xFFFF) is None
    assert verdict(form, packets, suspicious_sequence_length=0xFFFE) == (4, "data-smuggling")


@pytest.mark.parametrize(
    "parameters", [{"ports": ()}, {"ports": range(1, 10)}, {"ports": (0,)}, {"ports": (65536,)}]
)
def test_bad_ports(form, parameters):
    with pytest.raises(ValueError, match="1 to 8 ports"):
        form.Profile(**parameters)


@pytest.mark.parametrize("length", [-1, 65536])
def test_bad_run_limit(form, length):
    with pytest.raises(ValueError, match="suspicious_sequence_length"):
        form.Profile(suspicious_sequence_length=length)


def test_only_connections_to_a_watched_port(form):
    junk = {"direction": ORIGINATOR, "payload": b"\x00"}
    packets = [
        junk | {"flow": 0, "begins": 1, "dport": 8443},  # not watched
        junk | {"flow": 1, "begins": 1, "dport": 4433},
        junk | {"flow": 2, "begins": 1, "dport": 993},
        junk | {"flow": -1},  # not TCP
        junk | {"flow": 4, "dport": 993},  # its beginning was never seen
    ]
    result = form.Profile(ports=(993, 4433)).feed(*block(packets))
    assert result.packet.tolist() == [2, 3]
    assert result.flow.tolist() == [1, 2]
    assert result.row.tolist() == [1, 2]


def test_port_is_the_originators_destination(form):
    """The reply's packets have another destination port; the sender of the first packet decides."""
    packets = [
        {"direction": ORIGINATOR, "payload": b"", "begins": 1, "dport": 50000},
        {"direction": REPLY, "payload": b"\x00", "dport": 443},
    ]
    assert verdict(form, packets) is None


def test_state_survives_blocks_and_grows(form):
    profile = form.Profile()
    record = tls(23, LOW * 129)
    opened = [{"direction": 0, "payload": record[:100], "flow": flow, "begins": 1} for flow in range(3000)]
    for start in range(0, 3000, 500):
        assert not len(profile.feed(*block(opened[start : start + 500])).packet)
    rest = [{"direction": 0, "payload": record[100:], "flow": flow} for flow in (0, 1500, 2999)]
    result = profile.feed(*block(rest, first=3001))
    assert result.packet.tolist() == [3001, 3002, 3003]
    assert result.flow.tolist() == [0, 1500, 2999]


def test_a_reused_slot_starts_afresh(form):
    packets = [
        {"direction": ORIGINATOR, "payload": b"\x17\x03\x03\x00\xff", "begins": 1},
        {"direction": ORIGINATOR, "payload": tls(23, LOW * 129), "begins": 1},
        {"direction": ORIGINATOR, "payload": b"\x00", "begins": 1},
    ]
    result = form.Profile().feed(*block(packets))
    assert [form.REASONS[reason] for reason in result.reason] == ["data-smuggling", "invalid-record-type"]
    assert result.packet.tolist() == [2, 3]


def test_empty_block(form):
    assert not len(form.Profile().feed(*block([])).packet)


def test_a_cut_packet_makes_the_verdict_unknown(form):
    packets = conversation((ORIGINATOR, tls(23, HIGH * 50)), (REPLY, b"\x00"))
    packets[1]["length"] = 1000
    result = form.Profile().feed(*block(packets))
    assert not len(result.packet)
    assert result.unknown_packet.tolist() == [2]
    assert result.unknown_flow.tolist() == [0]


def test_the_captured_part_of_a_cut_packet_is_judged(form):
    packets = conversation((ORIGINATOR, tls(23, LOW * 129)))
    packets[1]["length"] = 1000
    result = form.Profile().feed(*block(packets))
    assert result.packet.tolist() == [2]
    assert not len(result.unknown_packet)


class Reference:
    """The module, one byte at a time, for one connection."""

    def __init__(self, run_limit=128):
        self.run_limit = run_limit
        self.half = [Half(), Half()]

    def feed(self, direction, payload):
        for byte in payload:
            reason = self.byte(direction, byte)
            if reason is not None:
                return reason
        return None

    def byte(self, direction, byte):
        half = self.half[direction]
        if half.body_left > 0:
            half.body_left -= 1
            if half.scanned and self.run_limit:
                half.run = 0 if byte >= 0x80 else half.run + 1
                if half.run > self.run_limit:
                    return "data-smuggling"
            return None
        if not half.header and byte < 0x40 and byte not in (20, 21, 22, 23, 24):
            return "invalid-record-type"
        half.header.append(byte)
        first = half.header[0]
        if first & 0x80:
            if len(half.header) == 3:
                return self.ssl2(direction, (first & 0x7F) * 256 + half.header[1], half.header[2])
        elif first & 0x40:
            if len(half.header) == 4:
                length = (first & 0x3F) * 256 + half.header[1] + half.header[2]
                return self.ssl2(direction, length, None)
        elif len(half.header) == 5:
            return self.tls(direction, first, half.header[3] * 256 + half.header[4])
        return None

    def ssl2(self, direction, length, message):
        if length == 0:
            return "zero-length-ssl2-record"
        self.half[direction].body(length - 1, scanned=message not in (1, 2, 4))
        wrong = {
            (1, REPLY): "ssl2-client-hello-wrong-direction",
            (4, ORIGINATOR): "ssl2-server-hello-wrong-direction",
            (2, REPLY): "ssl2-client-master-key-wrong-direction",
        }
        return wrong.get((message, direction))

    def tls(self, direction, content_type, length):
        self.half[direction].body(length, scanned=content_type in (20, 21, 23))
        if content_type != 24:
            return None
        if length < 19:
            return "heartbeat-too-short"
        pending = self.half[direction].pending
        if pending == 0:
            self.half[1 - direction].pending = length
        elif pending != length:
            return "heartbleed-response"
        else:
            self.half[direction].pending = 0
        return None


class Half:
    def __init__(self):
        self.header = []
        self.body_left = 0
        self.scanned = False
        self.run = 0
        self.pending = 0

    def body(self, length, scanned):
        self.header = []
        self.body_left = length
        self.scanned = scanned


bodies = st.one_of(
    st.binary(max_size=40),
    st.lists(
        st.tuples(st.sampled_from([LOW, b"\x7f", HIGH, b"\x80"]), st.integers(1, 140)), min_size=1, max_size=6
    ).map(lambda runs: b"".join(byte * count for byte, count in runs)),
)
records = st.one_of(
    st.builds(tls, st.sampled_from([20, 21, 22, 23, 23, 24]), bodies),
    st.builds(tls, st.just(24), st.sampled_from([19, 19, 19, 20, 40]).map(bytes)),
    st.builds(ssl2, st.integers(0, 8), bodies),
    st.builds(ssl2_padded, st.integers(0, 8), bodies, st.integers(0, 255)),
    st.binary(min_size=1, max_size=3),
)
# Mostly records that pass, so that streams become long enough for the carried state to matter.
calm = st.one_of(
    st.builds(tls, st.sampled_from([20, 21, 22, 23]), st.binary(max_size=200)),
    st.just(tls(24, bytes(19))),
    st.integers(1, 127).map(lambda count: tls(23, LOW * count + HIGH + LOW * count)),
)
streams = st.lists(st.one_of(calm, calm, calm, records), max_size=12).map(b"".join)


@st.composite
def cut_conversations(draw):
    """Two streams, cut at random places, interleaved at random."""
    halves = []
    for direction in (ORIGINATOR, REPLY):
        stream = draw(streams)
        cuts = sorted({0, len(stream), *draw(st.lists(st.integers(0, len(stream)), max_size=12))})
        halves.append([(direction, stream[a:b]) for a, b in itertools.pairwise(cuts)])
    packets = []
    while halves[0] or halves[1]:
        side = draw(st.integers(0, 1)) if halves[0] and halves[1] else int(not halves[0])
        packets.append(halves[side].pop(0))
    return packets


@given(
    packets=cut_conversations(),
    run_limit=st.sampled_from([0, 1, 5, 127, 128, 129, 300]),
    blocks=st.integers(1, 9),
)
def test_kernel_and_reference_agree(packets, run_limit, blocks):
    expected = None
    reference = Reference(run_limit)
    for number, (direction, payload) in enumerate(packets, start=2):
        reason = reference.feed(direction, payload)
        if reason is not None:
            expected = (number, reason)
            break
    rows = conversation(*packets)
    for form in (nf_conntrack_tls, UNCOMPILED):
        profile = form.Profile(suspicious_sequence_length=run_limit)
        size = max(1, len(rows) // blocks)
        found = []
        for start in range(0, len(rows), size):
            result = profile.feed(*block(rows[start : start + size], first=1 + start))
            found += zip(result.packet.tolist(), result.reason.tolist(), strict=True)
        assert [(packet, form.REASONS[reason]) for packet, reason in found] == (
            [expected] if expected else []
        )


def sample_packets(path):
    """TCP packets of a capture, their connections numbered in order of appearance."""
    from scapy.layers.inet import IP, TCP
    from scapy.layers.inet6 import IPv6
    from scapy.packet import Padding
    from scapy.utils import PcapReader

    slots = {}
    packets = []
    with PcapReader(str(path)) as reader:
        for packet in reader:
            if TCP not in packet:
                packets.append({"direction": 0, "payload": b"", "flow": -1})
                continue
            ip, tcp = packet[IP] if IP in packet else packet[IPv6], packet[TCP]
            if Padding in packet:
                packet[Padding].underlayer.remove_payload()
            source, destination = (ip.src, tcp.sport), (ip.dst, tcp.dport)
            begins = (source, destination) not in slots
            if begins:
                slot = len(slots) // 2
                slots |= {(source, destination): (slot, ORIGINATOR), (destination, source): (slot, REPLY)}
            slot, direction = slots[source, destination]
            packets.append(
                {
                    "flow": slot,
                    "direction": direction,
                    "payload": bytes(tcp.payload),
                    "begins": int(begins),
                    "dport": tcp.dport,
                }
            )
    return packets


VERDICTS = json.loads((SAMPLES / "profile_verdicts.json").read_text())


@pytest.mark.parametrize("name", VERDICTS)
def test_samples(form, name):
    """What the module's own parser said of each capture."""
    packets = sample_packets(SAMPLES / name)
    expected = [(drop["packet"], drop["reason"]) for drop in VERDICTS[name]["first_drops"]]
    result = form.Profile().feed(*block(packets))
    assert [
        (int(packet), form.REASONS[reason])
        for packet, reason in zip(result.packet, result.reason, strict=True)
    ] == expected
    watched = sum(packet.get("begins", 0) and packet["dport"] == 443 for packet in packets)
    assert watched == VERDICTS[name]["connections_on_port_443"]
