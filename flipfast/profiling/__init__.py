"""Measures where the time of a run goes, against the best that the device could do."""
