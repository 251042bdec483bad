"""What loaded rules would do with packets, computed without a kernel.

    captured.py     the packets of a capture as a firewall meets them
    firewall.py     hooks, priorities, reassembly (defrag.py) and connection tracking (conntrack.py)
        nft.py, xtables.py    chains that judge a packet; cbpf.py, u32.py, text_search.py run what rules carry
    judge.py        all packets of a capture; questions.py tells which of them rules can't tell apart
    predict.py      what became of packets, by rule, connection and finding; traffic.py knows whose they are
    ruleset.py      a firewall of all files that are loaded together

Start with base.py, then firewall.py.
"""
