// Package samples embeds the sample objects, so that a demo needs nothing but the binaries.
package samples

import "embed"

// FS holds the YAML of this directory.
//
//go:embed bookinfo sleep curl httpbin helloworld
var FS embed.FS
