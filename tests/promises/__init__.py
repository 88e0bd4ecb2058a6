"""Attempts to break what charrnn promises; `python tests/promises/run.py --full` makes all of them
and prints their table.
"""
