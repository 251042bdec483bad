"""Offline analysis of TLS in packet captures.

    capture -> columns -> flows -> streams -> tls records -> tls events -> findings
"""
