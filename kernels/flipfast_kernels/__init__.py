"""GPU kernels of flipfast and their torch references; needs torch, never imports flipfast.

Each operation lives in its own module; import it by name, as in `flipfast_kernels.overlap_f1`.
"""
