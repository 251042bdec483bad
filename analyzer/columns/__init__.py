"""RawPackets -> packet columns."""
