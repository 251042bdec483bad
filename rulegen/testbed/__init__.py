"""The real kernel's word: packets through a firewall in network namespaces of our own.

netns.py builds client, firewall and server; worker.py is the process that lives in them; replay.py is how
others talk to it; packets.py writes TCP packets. live.py and live_worker.py run real TLS endpoints there
instead.

    for number, one in enumerate(prove([("nft", text)], packets)):      # replay.py
        print(number, one.fate, one.by, one.hits)                       # verdicts.py

captured.py gives the packets of a capture; observer.py sends them one by one (ends.py) and reads every rule
that each matched (trace.py, legacy_trace.py, both over netlink.py).
"""
