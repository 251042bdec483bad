"""A cursor keeps what is not complete yet apart from what never will be."""

import pytest

from analyzer.tls.cursor import Cursor, Malformed, NeedMore


def test_pulls_in_network_byte_order():
    cursor = Cursor(bytes.fromhex("01 0203 040506 ff"))
    assert [cursor.pull_uint(size, "x") for size in (1, 2, 3)] == [0x01, 0x0203, 0x040506]
    assert (cursor.at, cursor.left) == (6, 1)
    assert cursor.pull_bytes(1, "x") == b"\xff"
    cursor.expect_end("x")


def test_vectors():
    cursor = Cursor(b"\x02ab\x00\x04\x00\x01\x00\x02\x03xyz")
    assert cursor.pull_opaque(1, "opaque") == b"ab"
    assert cursor.pull_uints(2, 2, "uints") == (1, 2)
    block = cursor.pull_block(1, "block")
    assert block.pull_bytes(3, "content") == b"xyz"
    assert cursor.left == block.left == 0


@pytest.mark.parametrize(("complete", "error"), [(True, Malformed), (False, NeedMore)])
def test_the_end_of_the_data(complete, error):
    cursor = Cursor(b"\x05abc", complete=complete)
    with pytest.raises(error, match="name: 5 bytes needed, 3 there"):
        cursor.pull_opaque(1, "name")


def test_a_block_never_grows():
    """What is missing inside a block is malformed, even while more of the stream may come."""
    block = Cursor(b"\x02\x05a", complete=False).pull_block(1, "block")
    with pytest.raises(Malformed):
        block.pull_opaque(1, "content")


def test_an_item_across_the_end_of_its_list():
    with pytest.raises(Malformed):
        Cursor(b"\x03\x00\x01\x00\x02").pull_uints(1, 2, "numbers")


def test_left_over_bytes():
    with pytest.raises(Malformed, match="message: 2 bytes left over"):
        Cursor(b"ab").expect_end("message")


def test_a_failed_pull_of_bytes_moves_nothing():
    cursor = Cursor(b"abc", complete=False)
    with pytest.raises(NeedMore):
        cursor.pull_bytes(4, "x")
    assert cursor.pull_bytes(3, "x") == b"abc"
