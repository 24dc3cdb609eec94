package api

import (
	"slices"
	"strings"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// groupPath is where a version of a group is served, as OpenAPI's index names it.
func groupPath(group, version string) string {
	if group == "" {
		return "api/" + version
	}
	return "apis/" + group + "/" + version
}

type openAPIIndex struct {
	Paths map[string]openAPILink `json:"paths"`
}

type openAPILink struct {
	URL string `json:"serverRelativeURL"`
}

// openAPIs lists the documents that openAPI gives.
func openAPIs() openAPIIndex {
	index := openAPIIndex{map[string]openAPILink{}}
	for _, k := range kinds.All() {
		for _, v := range k.Versions {
			index.Paths[groupPath(k.Group, v)] = openAPILink{"/openapi/v3/" + groupPath(k.Group, v)}
		}
	}
	return index
}

type openAPIDocument struct {
	OpenAPI string                 `json:"openapi"`
	Info    map[string]string      `json:"info"`
	Paths   map[string]openAPIPath `json:"paths"`
}

type openAPIPath struct {
	Patch openAPIOperation `json:"patch"`
}

type openAPIOperation struct {
	Kind       map[string]string   `json:"x-kubernetes-group-version-kind"`
	Parameters []map[string]string `json:"parameters"`
	Responses  map[string]any      `json:"responses"`
}

// openAPI says of each kind of a group only what clients must know before they write: that the server itself checks
// fields strictly, so that they need no schema.
func openAPI(path string) (openAPIDocument, bool) {
	doc := openAPIDocument{OpenAPI: "3.0.0", Info: map[string]string{"title": "ambit", "version": "v1"}, Paths: map[string]openAPIPath{}}
	for _, k := range kinds.All() {
		at := slices.IndexFunc(k.Versions, func(v string) bool { return groupPath(k.Group, v) == path })
		if at < 0 {
			continue
		}
		space := ""
		if k.Namespaced {
			space = "namespaces/{namespace}/"
		}
		doc.Paths[strings.Join([]string{"", path, space + k.Plural, "{name}"}, "/")] = openAPIPath{openAPIOperation{
			Kind:       map[string]string{"group": k.Group, "version": k.Versions[at], "kind": k.Kind},
			Parameters: []map[string]string{{"name": "fieldValidation", "in": "query"}},
			Responses:  map[string]any{},
		}}
	}
	return doc, len(doc.Paths) > 0
}
