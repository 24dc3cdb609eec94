package images

type knownImage struct {
	owner string // "": any
	name  string
	image Image
}

// known are the images beside bookinfo and helloworld. The first that fits is meant.
func known() []knownImage {
	applet := func(name string, env ...string) Image {
		return Image{Program: Sample, Applet: name, Entrypoint: true, Env: env}
	}
	shell := Image{Program: Sample, Applet: "curl"} // runs what its arguments name, curl if they name nothing
	mesh := func(program string) Image { return Image{Program: program, Entrypoint: true} }
	return []knownImage{
		{"curlimages", "curl", shell},
		{"", "curl", shell},
		{"governmentpaas", "curl-ssl", shell},
		{"", "curl-ssl", shell},
		{"kennethreitz", "httpbin", applet("httpbin", "PORT=80")},
		{"mccutchen", "go-httpbin", applet("httpbin", "PORT=8080")},
		{"mccutchen", "httpbin", applet("httpbin", "PORT=8080")},
		{"", "go-httpbin", applet("httpbin", "PORT=8080")},
		{"", "httpbin", applet("httpbin", "PORT=80")},
		{"", "examples-helloworld", applet("helloworld")},
		{"", "tcp-echo-server", applet("tcp-echo")},
		{"hashicorp", "http-echo", applet("http-echo")},
		{"", "http-echo", applet("http-echo")},
		{"istio-testing", "app", applet("echo")},
		{"ealen", "echo-server", applet("echo", "PORT=80")},
		{"", "echo-server", applet("echo", "PORT=80")},
		{"", "http-echo-server", applet("echo")},
		{"", "echoserver", applet("echo")},
		{"", "echo-basic", applet("echo", "PORT=3000")},
		{"", "echo", applet("echo")},
		{"", "whoami", applet("echo", "PORT=80")},
		{"", "ambit-sample", Image{Program: Sample}},
		// The mesh itself, also under the names of what it replaces.
		{"", "ambitd", mesh("ambitd")},
		{"istio", "pilot", mesh("ambitd")},
		{"", "pilot", mesh("ambitd")},
		{"", "ambit-node", mesh("ambit-node")},
		{"", "install-cni", mesh("ambit-node")},
		{"", "ztunnel", mesh("ztunnel")},
		{"", "waypoint", mesh("waypoint")},
		{"", "proxyv2", mesh("waypoint")},
	}
}

// applets are the programs in Sample that a container may name in its command.
func applets() []string {
	return []string{"sleep", "curl", "httpbin", "helloworld", "http-echo", "tcp-echo", "productpage", "details", "reviews", "ratings"}
}

// entrypoints are the names by which images of the mesh call their own program.
func entrypoints() []string {
	return []string{"pilot-discovery", "pilot-agent", "install-cni", "ztunnel", "ambitd", "ambit-node", "waypoint"}
}
