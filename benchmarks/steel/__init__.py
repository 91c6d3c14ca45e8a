"""MLX's own convolution kernels, run in convjit's simulator: the peer of our kernels, and a test of the simulator.

MLX 0.32 ships the headers of its "steel" convolutions inside its wheel. They are compiled from there, as MLX compiles
them on a Mac. What MLX's host code does around them is restated here from its source, mlx/backend/metal/conv.cpp.
"""
