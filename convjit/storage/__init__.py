"""What is kept on disk, and for how long it holds."""
