"""Entry point: PYTHONPATH=src/sandbox /usr/bin/python3 -m gemel_sandbox COMMAND ..."""
import sys

from gemel_sandbox.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
