# Shared by the scripts beside it; sourced with the working directory at the project's root.

# Sets PYTHON to a Python 3.9, 3.10 or 3.11 that can make virtual environments. The PYTHON of the caller's environment wins.
find_python() {
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.10 python3.9 python3 python; do
    # Running it is the only test that holds: version managers leave shims behind for interpreters that are not installed.
    if "$candidate" -c 'import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' >/dev/null 2>&1; then
      PYTHON=$candidate
      return 0
    fi
  done
  echo "odp-task needs Python 3.9, 3.10 or 3.11 with venv (TensorFlow 2.14 has no wheels for later ones); none was found on PATH." >&2
  echo "Install one, or name it: PYTHON=/path/to/python3.11 $0" >&2
  return 1
}

# Makes .venv from requirements.lock unless a finished one for this very lock is there. The stamps are written last, so an
# environment whose installation was interrupted has none and is made again.
ensure_venv() {
  if venv_is_current; then
    return 0
  fi
  find_python
  # Nothing is downloaded where it cannot run.
  "$PYTHON" src/odp_taskbuilder/installation/support.py
  # Two first uses at once: the second waits for the first. The lock belongs to the open file, which this shell shares with the program that
  # takes it; macOS has no command for it.
  exec 9>.venv.lock
  "$PYTHON" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
  if ! venv_is_current; then
    make_venv
  fi
  exec 9>&-
}

venv_is_current() {
  .venv/bin/python -c '' 2>/dev/null && cmp -s requirements.lock .venv/installed.lock && cmp -s pyproject.toml .venv/installed.toml
}

make_venv() {
  if ! { .venv/bin/python -c '' 2>/dev/null && cmp -s requirements.lock .venv/installed.lock; }; then
    if [ -e .venv ]; then
      echo "odp-task: .venv is unfinished or made from another lock; making it again" >&2
      rm -rf .venv
    fi
    echo "odp-task: first use, installing $(grep -c '==' requirements.lock) locked packages into .venv (about three minutes)" >&2
    "$PYTHON" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock >&2
    cp requirements.lock .venv/installed.lock
  fi
  .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable . >&2
  # As an installation from the wheel does: where Python may not write bytecode, every command would compile the package's modules anew.
  .venv/bin/python -m compileall -q src >&2
  # The lock has TFF for the one platform that it is published for; its Python files serve on every other.
  if ! .venv/bin/python -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("tensorflow_federated") is None)'; then
    .venv/bin/odp-task setup >&2
  fi
  cp pyproject.toml .venv/installed.toml
}
