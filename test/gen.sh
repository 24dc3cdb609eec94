#!/bin/sh
# Generates Go from every .proto under api/. Needs protoc; the plugin is pinned in tools.mod.
set -eu
GO=${GO:-go}
command -v protoc >/dev/null || { echo "make gen needs protoc (Debian: apt-get install protobuf-compiler)"; exit 1; }
plugin=$(mktemp -d)
trap 'rm -rf "$plugin"' EXIT
"$GO" build -modfile=tools.mod -o "$plugin/protoc-gen-go" google.golang.org/protobuf/cmd/protoc-gen-go
for proto in api/*/*.proto; do
	protoc --plugin="$plugin/protoc-gen-go" -I . --go_out=. --go_opt=module=github.com/ambit-mesh/ambit "$proto"
done
