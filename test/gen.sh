#!/bin/sh
# Takes definitions from the modules, then generates Go from every .proto under api/: that needs protoc, whose plugin is pinned in tools.mod.
set -eu
GO=${GO:-go}
test/gen-crds.sh
command -v protoc >/dev/null || { echo "make gen needs protoc (Debian: apt-get install protobuf-compiler)"; exit 1; }
plugin=$(mktemp -d)
trap 'rm -rf "$plugin"' EXIT
"$GO" build -modfile=tools.mod -o "$plugin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
for proto in api/*/*.proto; do
	protoc --plugin="$plugin/protoc-gen-go" -I . --go_out=. --go_opt=module=github.com/ambit-mesh/ambit "$proto"
done
# What the charts' values.yaml and values.schema.json say follows from their defaults.
"$GO" test -count=1 ./manifests -run TestValuesAreDocumented -update
