#!/usr/bin/env bash
# Installs what the tests of formats use beyond Python packages of this interpreter: CBC, GLPK's
# program, KaTeX, a grammar of GMPL, what reads extensions and grammars of VS Code, and BLVPY in a
# Python 3.12 of its own. Tests skip what is not there.
#
#   tests/exporters/setup_consumers.sh [FOLDER]        (default: .consumers)
#   tests/exporters/setup_consumers.sh FOLDER gams     (also GAMS, under its demonstration licence)
#
# Then: BILEVELPY_CONSUMERS=FOLDER make test
set -euo pipefail
folder="$(mkdir -p "${1:-.consumers}" && cd "${1:-.consumers}" && pwd)"

packages() {
  command -v apt-get >/dev/null && [ "$(id -u)" = 0 ] || return 1
  apt-get install -qq -y --no-install-recommends "$@" >/dev/null 2>&1 ||
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends "$@" >/dev/null; }
}

command -v cbc >/dev/null && command -v glpsol >/dev/null ||
  packages coinor-cbc glpk-utils || echo "CBC and glpsol: install them by hand" >&2

if command -v npm >/dev/null; then
  missing=()
  for package in katex vscode-textmate vscode-oniguruma @vscode/vsce; do
    [ -d "$folder/node_modules/$package" ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] || npm install --silent --prefix "$folder" "${missing[@]}"
else
  echo "KaTeX and the tools of VS Code need Node.js with npm" >&2
fi

# A grammar of GMPL that is not GLPK's; what it needs beside it is here already.
[ -d "$folder/gmpl/gmpltex" ] ||
  python3 -m pip install --quiet --no-deps --target "$folder/gmpl" gmpl-tex ||
  echo "gmpl-tex: cannot be installed" >&2

python=""
for candidate in python3.12 python3.13 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.1[23]*/bin/python; do
  if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then
    python="$candidate"
    break
  fi
done
if [ -x "$folder/py312/bin/python" ] && "$folder/py312/bin/python" -c 'import blvpy' 2>/dev/null; then
  :
elif [ -n "$python" ]; then
  # cyipopt has no wheel for every platform: it is built against Debian's Ipopt then.
  packages coinor-libipopt-dev libmumps-seq-dev liblapack-dev libblas-dev pkg-config gcc g++ gfortran ||
    echo "BLVPY may need Ipopt's headers" >&2
  "$python" -m venv "$folder/py312"
  "$folder/py312/bin/python" -m pip install --quiet blvpy || echo "BLVPY: cannot be installed" >&2
else
  echo "BLVPY needs Python 3.12" >&2
fi

if [ "${2:-}" = gams ] && [ ! -x "$folder/gams/bin/python" ]; then
  python3 -m venv "$folder/gams"
  "$folder/gams/bin/python" -m pip install --quiet gamspy
  "$folder/gams/bin/gamspy" install solver reshop
fi
