#!/bin/sh
# What `make check` adds to the tests. Every step runs; the exit status tells whether all held.
set -u
GO=${GO:-go}
failed=""
step() {
	name=$1
	shift
	echo "== $name"
	"$@" || failed="$failed $name"
}
formatted() {
	bad=$("$GO" tool -modfile=tools.mod gofumpt -l $(git ls-files '*.go' | grep -v '\.pb\.go$'))
	[ -z "$bad" ] || { echo "not formatted (gofumpt -w):"; echo "$bad"; return 1; }
}
tidy() { "$GO" mod tidy -diff && "$GO" mod verify; }
generated() {
	command -v protoc >/dev/null || { echo "skipped: protoc is not installed, so generated code was not compared"; return 0; }
	test/gen.sh && git diff --exit-code -- api manifests/charts/base/files
}
vulnerable() {
	out=$("$GO" tool -modfile=tools.mod govulncheck ./... 2>&1)
	case $? in
	0) ;;
	3) echo "$out"; ! echo "$out" | grep -q 'Module: ' ;; # the standard library's are fixed by a newer Go: print, do not fail
	*) echo "$out" | tail -3; echo "skipped: the vulnerability database could not be read" ;;
	esac
}
step formatting formatted
step vet "$GO" vet ./...
step modules tidy
step lint "$GO" tool -modfile=tools.mod golangci-lint run ./...
step race make race
step generated generated
step vulnerabilities vulnerable
[ -z "$failed" ] || { echo "failed:$failed"; exit 1; }
