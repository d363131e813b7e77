"""Prints the entries of a lock that an installation report of pip names: `locked_requirements.py REPORT LOCK`."""

import json
import pathlib
import re
import sys

report = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
wanted = {re.sub(r"[-_.]+", "-", entry["metadata"]["name"]).lower() for entry in report["install"]} - {"odp-task"}
# One entry per package and set of markers: its hashes are on indented lines.
entries = re.split(r"\n(?! )", pathlib.Path(sys.argv[2]).read_text(encoding="utf-8").strip())
locked = [entry for entry in entries if entry.partition("==")[0] in wanted]
missing = wanted - {entry.partition("==")[0] for entry in locked}
if missing:
    sys.exit(f"not in the lock: {', '.join(sorted(missing))}")
print("\n".join(locked))
