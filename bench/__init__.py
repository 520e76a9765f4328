"""Figures: what the dispatcher does on this machine, beside the bare wire and the usual ways."""
