"""Faults at random moments of a fan-out, judged by the simulators' own count."""
