"""Firewall rules from findings and policies, and what they would do.

findings -> ir -> backends -> evaluate (on the same columns) -> testbed verdicts
"""
