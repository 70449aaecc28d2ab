"""The maths of rewards: pure NumPy, vectorised over the n conversations of a request; no I/O, no state."""
