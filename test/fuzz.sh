#!/bin/sh
# Runs every fuzz target of the module for the given time each, and fails at the first that finds something.
set -eu
time=${1:-30s}
GO=${GO:-go}
grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u | while read -r dir; do
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$dir"/*_test.go | sort -u | while read -r target; do
		echo "fuzz $dir $target for $time"
		"$GO" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$dir"
	done
done
