package main

import (
	"slices"
	"strings"
)

// programs is where a program is in an image.
const programs = "/usr/local/bin/"

// image is what one is made of.
type image struct {
	name       string // registry, repository and tag, as pods name it
	about      string
	programs   []string          // of the directory of built programs
	links      map[string]string // names of programs, and the program that they are
	entrypoint []string
	cmd        []string
	env        []string
	user       string // numeric, with the group
}

// mesh are the images of the components; each is named for its program.
func mesh(hub, tag string) []image {
	one := func(program, user, about string, more ...string) image {
		return image{
			name: hub + "/" + program + ":" + tag, about: about,
			programs: append([]string{program}, more...), entrypoint: []string{programs + program}, user: user,
		}
	}
	return []image{
		one("ambitd", "1337:1337", "control plane of the ambit mesh"),
		one("ztunnel", "0:1337", "node proxy of the ambit mesh"),
		one("ambit-node", "0:0", "node agent of the ambit mesh, with its CNI plugin", "ambit-cni"),
		one("waypoint", "1337:1337", "waypoint and gateway proxy of the ambit mesh"),
		one("ambit", "1337:1337", "command line of the ambit mesh"),
	}
}

// samples are the images that the objects in samples/ name, so that those run without a registry.
func samples(hub, tag string) []image {
	const program = "ambit-sample"
	one := func(name, applet, user string, env ...string) image {
		return image{
			name: name, about: "sample of the ambit mesh: " + applet,
			programs: []string{program}, entrypoint: []string{programs + program, applet}, env: env, user: user,
		}
	}
	bookinfo := func(app, version string) image {
		return one("docker.io/istio/examples-bookinfo-"+app+"-"+version+":1.20.3", app, "1000:1000", "SERVICE_VERSION="+version)
	}
	// It runs what it is told to, by the paths that those programs have in the original.
	curl := image{
		name: "docker.io/curlimages/curl:latest", about: "sample of the ambit mesh: curl, nc, sleep",
		programs: []string{program}, entrypoint: []string{programs + program}, cmd: []string{"curl"}, user: "100:101",
		links: map[string]string{
			"/usr/bin/curl": program, "/usr/bin/nc": program, "/usr/bin/sleep": program, "/bin/curl": program, "/bin/nc": program, "/bin/sleep": program,
		},
	}
	every := curl
	every.name, every.about, every.cmd = hub+"/"+program+":"+tag, "samples of the ambit mesh", nil
	return []image{
		bookinfo("productpage", "v1"), bookinfo("details", "v1"), bookinfo("ratings", "v1"),
		bookinfo("reviews", "v1"), bookinfo("reviews", "v2"), bookinfo("reviews", "v3"),
		one("docker.io/istio/examples-helloworld-v1:1.0", "helloworld", "1000:1000", "SERVICE_VERSION=v1"),
		one("docker.io/istio/examples-helloworld-v2:1.0", "helloworld", "1000:1000", "SERVICE_VERSION=v2"),
		one("docker.io/mccutchen/go-httpbin:v2.15.0", "httpbin", "65532:65532", "PORT=8080"),
		curl, every,
	}
}

// needed are the programs that images hold, each once.
func needed(images []image) []string {
	var all []string
	for _, i := range images {
		all = append(all, i.programs...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// short is a name as docker says it: without the registry that it takes for granted.
func short(name string) string {
	return strings.TrimPrefix(name, "docker.io/")
}
