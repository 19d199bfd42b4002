"""A closed world of everyday tasks: instructions, good responses and typical failures."""

from flipfast.training.world.generator import Group, Sample, World

__all__ = ["Group", "Sample", "World"]
