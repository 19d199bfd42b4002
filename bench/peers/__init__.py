"""Engines that answer the same requests as ours, each in a process of its own."""
