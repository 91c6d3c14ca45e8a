"""Measurements beside plain MLX."""
