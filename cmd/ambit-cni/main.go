// Command ambit-cni is the CNI plugin of the mesh. A container runtime starts it for each pod.
package main

import "github.com/ambit-mesh/ambit/node/cniplugin"

// version is set when the binary is built.
var version = "dev"

func main() { cniplugin.Main("istio-cni of ambit " + version) }
