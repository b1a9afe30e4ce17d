"""Calls that steer the rehearsal itself: faults on purpose, and how fast time passes."""
