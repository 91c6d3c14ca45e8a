"""Single convolutions and short chains of them on the CPU, beside other engines: `python -m benchmarks.layers`."""
