"""convjit's dialects and passes for xDSL's commands."""
