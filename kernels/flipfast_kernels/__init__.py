"""GPU kernels of flipfast and their torch references; needs torch, never imports flipfast.

Each operation is a module of its own, imported by name: `flipfast_kernels.overlap_f1`.
"""
