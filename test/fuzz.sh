#!/usr/bin/env bash
# Runs every fuzz target of the module for the given time each, several side by side, and fails if one finds something.
set -euo pipefail
time=${1:-30s}
export GO=${GO:-go}
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export dir time

# One program a package, built once, instrumented for coverage.
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u >"$dir/packages"
while read -r package; do
	"$GO" test -c -fuzz=. -o "$dir/$(echo "$package" | tr / _).test" "$package"
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$package"/*_test.go | sort -u | while read -r target; do echo "$package $target"; done
done <"$dir/packages" >"$dir/targets"

one() {
	log=$dir/$(echo "$1.$2" | tr / _).log
	start=$SECONDS
	if (cd "$1" && "$dir/$(echo "$1" | tr / _).test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" \
		-test.fuzzcachedir "$dir/cache" -test.parallel 1) >"$log" 2>&1; then
		echo "held   $1 $2: $(grep -o 'execs: [0-9]*' "$log" | tail -1), $((SECONDS - start))s"
	else
		echo "FAILED $1 $2"
		cat "$log"
		return 1
	fi
}
export -f one
echo "$(wc -l <"$dir/targets") fuzz targets, $time each"
xargs -P "$(($(nproc) * 4))" -L 1 bash -c 'one "$0" "$1"' <"$dir/targets"
