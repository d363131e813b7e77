# Shared by check-arm and check-runtimes; sourced with the working directory at the project's root. An aarch64 Debian with the packages of
# requirements.lock, executed by qemu-user on a machine of another kind. Nothing is installed and nothing needs root: packages are
# unpacked into the cache, outside the checkout.

ARM_CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/odp-task/arm
# What Python and the wheels need of Debian.
ARM_DEBS="python3.11 python3.11-minimal libpython3.11-minimal libpython3.11-stdlib libpython3.11 libc6 libstdc++6 libgcc-s1 zlib1g libexpat1 libssl3 libffi8
  python3-distutils python3-lib2to3 libbz2-1.0 liblzma5 libsqlite3-0 libreadline8 libtinfo6 libncursesw6 libdb5.3 libuuid1 libcrypt1 libnsl2 libtirpc3 libgssapi-krb5-2
  libkrb5-3 libk5crypto3 libkrb5support0 libcom-err2 libkeyutils1 libgomp1 coreutils dash libacl1 libattr1 libselinux1 libpcre2-8-0 libgmp10"

# Makes the environment, or finds it finished for this very lock. Sets ARM_ROOT, ARM_PACKAGES and ARM_QEMU.
arm_environment() {
  ARM_ROOT=$ARM_CACHE/root
  ARM_PACKAGES=$ARM_CACHE/packages
  mkdir -p "$ARM_CACHE"
  arm_find_qemu
  arm_write_launcher
  if [ ! -e "$ARM_ROOT/finished" ]; then
    rm -rf "$ARM_ROOT" && mkdir -p "$ARM_ROOT"
    echo "unpacking Debian's arm64 packages into $ARM_ROOT" >&2
    arm_download arm64 $ARM_DEBS
    for deb in "$ARM_CACHE"/debs-arm64/*.deb; do
      dpkg-deb --extract "$deb" "$ARM_ROOT"
    done
    # On Debian /lib is a link; packages unpacked by hand make it a directory.
    for directory in bin lib sbin; do
      if [ -d "$ARM_ROOT/$directory" ] && [ ! -L "$ARM_ROOT/$directory" ]; then
        mkdir -p "$ARM_ROOT/usr/$directory"
        cp -a "$ARM_ROOT/$directory/." "$ARM_ROOT/usr/$directory/"
        rm -rf "${ARM_ROOT:?}/$directory"
        ln -s "usr/$directory" "$ARM_ROOT/$directory"
      fi
    done
    : >"$ARM_ROOT/finished"
  fi
  if ! cmp -s requirements.lock "$ARM_PACKAGES/installed.lock"; then
    rm -rf "$ARM_PACKAGES"
    echo "installing the packages of requirements.lock for aarch64 into $ARM_PACKAGES" >&2
    arm_install "$ARM_PACKAGES" --no-deps --require-hashes -r requirements.lock
    arm_unpack_tff "$ARM_PACKAGES"
    cp requirements.lock "$ARM_PACKAGES/installed.lock"
  fi
  # The source is used where it lies; what Python asks is whether the project is installed, and as which version.
  for info in .venv/lib/python3*/site-packages/odp_task-*.dist-info; do
    # Not while another process reads it: checks run several at once.
    if ! cmp -s "$info/METADATA" "$ARM_PACKAGES/${info##*/}/METADATA"; then
      cp -R "$info" "$ARM_PACKAGES"
    fi
  done
}

# arm_python ARGUMENTS: becomes the emulated Python, with the project's source and the packages. ARM_MORE_PACKAGES comes first on the path.
# What ends it with a signal then ends no shell around it.
arm_python() {
  exec env PYTHONHOME="$ARM_ROOT/usr" PYTHONPATH="${ARM_MORE_PACKAGES:+$ARM_MORE_PACKAGES:}$PWD/src:$ARM_PACKAGES" \
    PYTHONDONTWRITEBYTECODE='' PYTHONPYCACHEPREFIX="$ARM_CACHE/bytecode" TF_CPP_MIN_LOG_LEVEL=3 "$ARM_CACHE/bin/python3.11" "$@"
}

# The kernel cannot start the emulated Python by itself: what Python takes for its own executable is a script that calls qemu.
arm_write_launcher() {
  mkdir -p "$ARM_CACHE/bin"
  cat >"$ARM_CACHE/bin/python3.11.$$" <<LAUNCHER
#!/bin/sh
exec "$ARM_QEMU" -cpu max -L "$ARM_ROOT" -0 "$ARM_CACHE/bin/python3.11" "$ARM_ROOT/usr/bin/python3.11" "\$@"
LAUNCHER
  # Beside it, as in every environment, the command that is installed with the project.
  cat >"$ARM_CACHE/bin/odp-task.$$" <<LAUNCHER
#!/bin/sh
exec "$ARM_CACHE/bin/python3.11" -c 'from odp_taskbuilder.cli.main import main; main()' "\$@"
LAUNCHER
  for program in python3.11 odp-task; do
    chmod +x "$ARM_CACHE/bin/$program.$$"
    mv "$ARM_CACHE/bin/$program.$$" "$ARM_CACHE/bin/$program"
  done
}

# arm_install DIRECTORY ARGUMENTS: installs aarch64 wheels with uv, which evaluates markers for the target.
arm_install() {
  arm_find_uv
  directory=$1
  shift
  "$ARM_UV" pip install --quiet --python-platform aarch64-manylinux_2_28 --python-version 3.11 --target "$directory" --only-binary :all: "$@"
}

# TFF is published for x86-64, but only its worker, which no build starts, is no Python: it stays out, and a file is in its place.
arm_unpack_tff() {
  version=$(sed -n 's/^tensorflow-federated==\([0-9.]*\).*/\1/p' requirements.lock)
  wheels=$(mktemp -d)
  .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --platform manylinux_2_31_x86_64 \
    --dest "$wheels" "tensorflow-federated==$version"
  PYTHONPATH=src .venv/bin/python - "$wheels" "$1" <<'PROGRAM'
import pathlib, re, sys, zipfile
from odp_taskbuilder.installation.packages import WORKER
from odp_taskbuilder.installation.setup import PLACEHOLDER
(wheel,) = pathlib.Path(sys.argv[1]).glob("*.whl")
packages = pathlib.Path(sys.argv[2])
with zipfile.ZipFile(wheel) as archive:
    archive.extractall(packages, [name for name in archive.namelist() if name != WORKER])
    (record,) = (packages / name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
(packages / WORKER).parent.mkdir(exist_ok=True)
(packages / WORKER).write_text(PLACEHOLDER)
lines = re.sub(rf"^{re.escape(WORKER)},.*$", f"{WORKER},,{len(PLACEHOLDER)}", record.read_text(), flags=re.MULTILINE)
record.write_text(lines)
PROGRAM
  rm -rf "$wheels"
}

arm_find_qemu() {
  ARM_QEMU=$(command -v qemu-aarch64-static || true)
  if [ -z "$ARM_QEMU" ]; then
    ARM_QEMU=$ARM_CACHE/qemu/usr/bin/qemu-aarch64-static
    if [ ! -x "$ARM_QEMU" ]; then
      arm_download "$(dpkg --print-architecture)" qemu-user-static
      dpkg-deb --extract "$ARM_CACHE"/debs-"$(dpkg --print-architecture)"/qemu-user-static_*.deb "$ARM_CACHE/qemu"
    fi
  fi
}

arm_find_uv() {
  ARM_UV=$(command -v uv || true)
  if [ -z "$ARM_UV" ]; then
    ARM_UV=$ARM_CACHE/uv/bin/uv
    if [ ! -x "$ARM_UV" ]; then
      find_python
      "$PYTHON" -m venv "$ARM_CACHE/uv"
      "$ARM_CACHE/uv/bin/python" -m pip install --quiet --disable-pip-version-check uv
    fi
  fi
}

# arm_download ARCHITECTURE PACKAGES: Debian packages of an architecture into $ARM_CACHE/debs-ARCHITECTURE, by the machine's apt sources but
# with lists and state of their own.
arm_download() {
  architecture=$1
  shift
  state=$ARM_CACHE/apt-$architecture
  target=$ARM_CACHE/debs-$architecture
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$target"
  : >"$state/status"
  set -- -o "APT::Architecture=$architecture" -o "APT::Architectures=$architecture" -o "Dir::State=$state" -o "Dir::State::status=$state/status" \
    -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache" -o "APT::Sandbox::User=root" -o "Acquire::Languages=none" -- "$@"
  options=""
  while [ "$1" != -- ]; do
    options="$options $1"
    shift
  done
  shift
  # shellcheck disable=SC2086 - options without spaces, made above
  apt-get $options -qq update >&2
  # shellcheck disable=SC2086
  (cd "$target" && apt-get $options -qq download "$@" >&2)
}
