"""Whole networks on the CPU, beside other engines: `python -m benchmarks.networks`."""
