"""Trainers' own wire forms: each is read into conversations, scored by the one path, and answered in that form.

A dialect is one small class in one file; `dialect.py` does what they share, `route.py` makes routes of them.
"""
