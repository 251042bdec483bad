"""The real kernel's word: packets through a firewall in network namespaces of our own.

netns.py builds client, firewall and server; worker.py is the process that lives in them; replay.py is how
others talk to it; tools.py loads and counts rules there; packets.py writes TCP packets. live.py and
live_worker.py run real TLS endpoints there instead.
"""
