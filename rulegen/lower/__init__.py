"""Shared by the backends: a match as alternatives of plain loads and ranges.

ranges.py is interval arithmetic, borrow.py does away with sums, normal.py brings a match to its normal form.
"""
