"""Trainers' own code against a live service: `make test-trainers` runs each in an environment of its own."""
