#!/bin/sh
# Takes the custom resource definitions of the base chart from the modules that go.mod pins: one file each, unchanged, beside
# the licence they are under.
set -eu
GO=${GO:-go}
to=manifests/charts/base/files
istio=$("$GO" list -m -f '{{.Dir}}' istio.io/api)
gateway=$("$GO" list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
[ -n "$istio" ] && [ -n "$gateway" ] || { echo "the modules are not here: run '$GO mod download istio.io/api sigs.k8s.io/gateway-api'"; exit 1; }
rm -rf "$to/crds" "$to/gateway-api"
mkdir -p "$to/crds" "$to/gateway-api"
# The notice in front of the first definition is that of each.
awk -v to="$to/crds" '
	function flush() { if (name != "") { printf "%s%s", notice, text > (to "/" name ".yaml"); close(to "/" name ".yaml") }; name = text = "" }
	NR == 1 && /^#/ { notice = $0 "\n"; next }
	/^---/ { flush(); next }
	/^  name: / && name == "" { name = $2 }
	{ text = text $0 "\n" }
	END { flush() }
' "$istio/kubernetes/customresourcedefinitions.gen.yaml"
for f in "$gateway"/config/crd/standard/*.yaml; do
	cp "$f" "$to/gateway-api/"
done
cp "$istio/LICENSE" "$to/crds/LICENSE"
cp "$gateway/LICENSE" "$to/gateway-api/LICENSE"
chmod 644 "$to"/crds/* "$to"/gateway-api/*
