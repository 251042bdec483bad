"""A second opinion: the same facts from tshark (through pyshark) and from scapy."""
