"""The system tests' library: sandboxes as context managers, hosts to run things in, waiting with deadlines."""
from lib.sandbox import Host, Sandbox, TestFailure, long_test, time_limit, wait_for

__all__ = ["Host", "Sandbox", "TestFailure", "long_test", "time_limit", "wait_for"]
