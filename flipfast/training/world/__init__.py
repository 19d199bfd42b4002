"""A closed world of everyday tasks: instructions, good responses and the typical failures."""

from flipfast.training.world.generator import Group, Sample, World

__all__ = ["Group", "Sample", "World"]
