"""What a loaded rule would do with a packet, computed without a kernel.

cbpf.py runs classic BPF programs.
"""
