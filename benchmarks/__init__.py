"""Timing, ceilings and gates; the suite's own costs; mutation runs."""
