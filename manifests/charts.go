package manifests

import (
	"embed"
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

//go:embed all:charts profiles
var onKubernetes embed.FS

// Charts are the Helm charts of an installation on Kubernetes, each a directory.
func Charts() fs.FS { return sub("charts") }

// Profile is the IstioOperator of a profile, such as ambient.
func Profile(name string) ([]byte, error) {
	b, err := fs.ReadFile(sub("profiles"), name+".yaml")
	if err != nil {
		return nil, fmt.Errorf("there is no profile %q; there are %s", name, strings.Join(Profiles(), ", "))
	}
	return b, nil
}

// Profiles lists the names of the profiles.
func Profiles() []string {
	entries, err := fs.ReadDir(sub("profiles"), ".")
	if err != nil {
		panic(err) // it is embedded
	}
	var names []string
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), ".yaml"); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func sub(dir string) fs.FS {
	f, err := fs.Sub(onKubernetes, dir)
	if err != nil {
		panic(err) // it is embedded
	}
	return f
}
