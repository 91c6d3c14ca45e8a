"""The two dialects of convjit: `mlx` (what MLX traced) and `conv` (what this compiler is about)."""
