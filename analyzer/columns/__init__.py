"""RawPackets -> packet columns.

    schema.py     PACKETS: what each column is
    packets.py    Columns: one array per row of the schema
    decode.py     (kernel) link header, tunnels, IP, transport of every packet of a block
    fragments.py  datagrams that came in fragments, decoded in the packet that completes them

A row per packet, also where there is nothing to decode in it: rows are never dropped here.
"""
