# Sourced by every script: where things are, and how to speak.
# shellcheck shell=bash

set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$project/.venv
tools=$project/.cache/tools

# The project's own programs first; unpacked servers last, so that installed ones win.
export PATH=$venv/bin:$PATH:/usr/local/sbin:/usr/sbin:/sbin:$tools/usr/bin:$tools/usr/sbin
export PYTHONPATH=  # nothing from outside the virtual environment

say() { printf '%s\n' "$*" >&2; }
step() { if [ -t 2 ]; then printf '\033[1m── %s\033[0m\n' "$*" >&2; else printf '── %s\n' "$*" >&2; fi; }
die() {
  printf '%s: %s\n' "$(basename "$0")" "$1" >&2
  exit "${2:-1}"
}

# packages HOW…  prints "package program" of each line of packages.txt with one of these ways
packages() {
  local package how program _
  while read -r package how program _; do
    case " $* " in *" $how "*) printf '%s %s\n' "$package" "$program" ;; esac
  done < <(grep -v '^#' "$project/scripts/packages.txt")
}

# missing HOW…  prints the packages of packages.txt that are not there
missing() {
  local package program
  while read -r package program; do
    if [ "$program" != - ]; then
      command -v "$program" >/dev/null || printf '%s\n' "$package"
    else
      dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || printf '%s\n' "$package"
    fi
  done < <(packages "$@")
}

# install_packages HOW…  installs what is missing when we may, else says what is missing and goes on
install_packages() {
  local absent
  mapfile -t absent < <(missing "$@")
  [ ${#absent[@]} -eq 0 ] && return
  if ! command -v apt-get >/dev/null; then
    say "No apt-get here. Please install what gives: ${absent[*]} (scripts/packages.txt says why)"
  elif [ "$(id -u)" -ne 0 ]; then
    say "Not root, so these packages were not installed: sudo apt-get install ${absent[*]}"
  else
    step "Installing packages: ${absent[*]}"
    apt_update
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "${absent[@]}" >/dev/null
  fi
}

apt_update() { [ "$(id -u)" -ne 0 ] || apt-get update -qq; }

# find_python  prints the interpreter to use: the distribution's when it is new enough, else the first of PATH that is
find_python() {
  local candidate
  for candidate in /usr/bin/python3 python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "Python 3.11 or newer with venv is needed (Debian 12, Ubuntu 24.04 and later have it)" 8
}
