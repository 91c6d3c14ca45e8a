"""One signature of a compiled function: its program, and how a call runs it."""
