"""Calls that steer the rehearsal itself: faults on purpose, and how fast time passes."""

PREFIX = "/_embedded_aws/"
FAULTS_PATH, CLOCK_PATH = f"{PREFIX}faults", f"{PREFIX}clock"
