"""Classic BPF programs for iptables' `-m bpf`, which see a packet from its network header on.

    match -> formula -> questions -> blocks -> instructions -> verified program -> text

Read `formula.py` for what is asked of a packet, `compile.py` for the order in which it is asked.
"""
