"""Gradients of compiled functions, and MLX's other transformations of what stays plain."""
