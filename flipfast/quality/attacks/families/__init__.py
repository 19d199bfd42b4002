"""The attacks of the suite: one file a family, each with its tuple ATTACKS."""
