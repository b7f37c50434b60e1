"""Rows of performance: each beside its floor program, and beside BuildKit where it is on PATH.

``python -m tests.bench [ROW...]``. A row is measured in turn with what it is compared to, in one run, median of
five; only the ratio means anything. A floor program makes the same system calls with no build tool around them.
"""
