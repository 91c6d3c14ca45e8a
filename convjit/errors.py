"""What can stand between a function and its compiled program."""


class TraceError(ValueError):
    """A function that cannot be captured; the message says what stands in the way."""


class UnsettledError(TraceError):
    """A function that changes the structure of its state, or something in it that is no array."""


class RecordWritten(Exception):
    """A function writes into a data class among its arguments. It is followed from now on: look at the call again."""


class PipelineError(ValueError):
    """A `pipeline=` that cannot be read, names no pass or option of ours, or whose own passes fail."""


class CompileError(RuntimeError):
    """Raised with `fallback="error"` instead of running a function as plain MLX."""


class FallbackWarning(UserWarning):
    """A function, or some of its convolutions, runs as plain MLX; the message says which, why, and what would help."""


class RecaptureWarning(UserWarning):
    """A function is captured again and again; the message says what changes, and what would help."""
