"""Faults are for other processes: nothing here imports them."""

collect_ignore = ["planted"]
