"""Programs that use convjit, one idea a file."""
