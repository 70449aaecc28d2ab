"""Reward callables for RL trainers: one thin file each, over `connecting`."""
