#!/bin/bash
# Writes the manual pages and cli.md from the program's own command tree. generate.sh [path of gemel]
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
gemel=${1:-$here/../../build/dev/src/cli/gemel}
rm -f "$here"/*.1
"$gemel" help --markdown >"$here/cli.md"
"$gemel" help --commands | while read -r -a words; do
    "$gemel" help --man "${words[@]:1}" >"$here/$(IFS=-; echo "${words[*]}").1"
done
