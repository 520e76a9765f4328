"""`python -m channels.sandbox`: one sandbox process until it is told to stop.

Owns the command line.
"""

import argparse
import logging
import sys
from pathlib import Path

from channels.sandbox.config import SandboxConfig
from channels.sandbox.server import serve


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m channels.sandbox",
        description="Simulates Twilio, SendGrid, X and FCM on one port.",
    )
    parser.add_argument("--port", type=int, default=8025, help="0 takes a free one")
    parser.add_argument(
        "--host",
        help="listen here instead of 127.0.0.1; whoever reaches it controls the sandbox",
    )
    parser.add_argument("--announce", type=Path, help="file that gets the URL when it is ready")
    parser.add_argument(
        "--state-dir",
        type=Path,
        default=Path(".dispatcher/sandbox"),
        help="where the push service account's key is shared with its clients",
    )
    parser.add_argument("--seed", type=int, default=1, help="of faults with a probability")
    return parser


def main() -> None:
    """Parses the command line and serves; exits with 2 when it cannot listen."""
    asked = _parser().parse_args()
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    config = SandboxConfig(
        host=asked.host or "127.0.0.1",
        exposed=asked.host is not None,
        port=asked.port,
        announce=asked.announce,
        state_dir=asked.state_dir,
        seed=asked.seed,
    )
    try:
        serve(config)
    except OSError as error:
        sys.stderr.write(f"The sandbox cannot listen: {error}\n")
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
