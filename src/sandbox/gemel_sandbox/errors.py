"""The one error a user may see: one line that says what was expected and what to do next."""
import os

COMMAND = os.environ.get("GEMEL_SANDBOX_COMMAND", "gemel sandbox")   # as the user called it, for what to type next


class SandboxError(Exception):
    """Its text is printed as it is, without a traceback; the exit code is 1."""
