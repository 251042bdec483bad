"""The one language in which policies speak and from which every backend translates.

match.py says what a rule looks at, rule.py what it does and why it exists, check.py what makes no sense.
"""
