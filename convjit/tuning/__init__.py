"""Which way of running a kernel is the fastest on this machine: candidates, measured; and what came of it, kept."""
