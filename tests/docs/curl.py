"""As much of curl as the README uses, for machines without it: python curl.py ARGUMENTS."""

import argparse
import sys
import urllib.error
import urllib.request
from pathlib import Path


def main() -> int:
    """Make the call, print the answer; 22 if it is an error, as curl's --fail-with-body does."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("-s", action="store_true")
    parser.add_argument("-S", action="store_true")
    parser.add_argument("--fail-with-body", action="store_true")
    parser.add_argument("-w", default="")
    parser.add_argument("-X", default=None)
    parser.add_argument("-H", action="append", default=[])
    parser.add_argument("-d", "--data-binary", dest="data", default=None)
    parser.add_argument("url")
    asked = parser.parse_args()
    body = asked.data.encode() if asked.data is not None else None
    if asked.data == "@-":
        body = sys.stdin.buffer.read()
    elif asked.data is not None and asked.data.startswith("@"):
        body = Path(asked.data[1:]).read_bytes()
    headers = dict(line.split(": ", 1) for line in asked.H)
    request = urllib.request.Request(asked.url, data=body, headers=headers, method=asked.X)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=30) as answer:
            failed, text = False, answer.read()
    except urllib.error.HTTPError as error:
        failed, text = True, error.read()
    sys.stdout.write(text.decode() + asked.w.replace("\\n", "\n"))
    return 22 if failed and asked.fail_with_body else 0


if __name__ == "__main__":
    raise SystemExit(main())
