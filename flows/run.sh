#!/bin/sh
# Runs a stage, `sh flows/run.sh STAGE`, with the Python that has the project's packages, also when PATH has none.
# It is the first of: PBE_PYTHON, the Python that runs DVC, that of PATH, the active environment's, the checkout's .venv.

first_argument() { # of a process
    if [ -r "/proc/$1/cmdline" ]; then tr '\0' '\n' <"/proc/$1/cmdline" | head -n 1; else ps -o comm= -p "$1"; fi
}

parent() {
    if [ -r "/proc/$1/status" ]; then sed -n 's/^PPid:[[:space:]]*//p' "/proc/$1/status"; else ps -o ppid= -p "$1"; fi
}

candidates() {
    echo "$PBE_PYTHON"
    process=$PPID
    while [ "${process:-0}" -gt 1 ]; do
        found=$(first_argument "$process")
        case "$found" in
        /*python*) echo "$found" ;;
        */*python*) echo "$(readlink "/proc/$process/cwd")/$found" ;;
        esac
        process=$(parent "$process")
    done
    command -v python
    command -v python3
    echo "$VIRTUAL_ENV/bin/python"
    echo "$(dirname "$(readlink -f "$0")")/../.venv/bin/python"
}

has_packages() {
    [ -x "$1" ] && "$1" -c 'import importlib.util, sys; sys.exit(not importlib.util.find_spec("prefect"))' 2>/dev/null
}

while read -r python; do
    if has_packages "$python"; then exec "$python" -m "flows.$1" <&3 3<&-; fi
done 3<&0 <<END
$(candidates)
END
echo "error: no Python here has the project's packages; run make install, or set PBE_PYTHON to a Python that has" >&2
exit 2
