"""The attacks of the suite: one file per family, each with a tuple ATTACKS."""
