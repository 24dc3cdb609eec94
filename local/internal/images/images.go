// Package images says which program a container image stands for on a local cluster.
package images

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Image is what a well-known image is here.
type Image struct {
	// Program is one of the mesh's own programs, by file name.
	Program string
	// Applet is the one meant, of a program that is several.
	Applet string
	// Default are the arguments of a container that gives none.
	Default []string
	// Env is what the image sets, before the container's own.
	Env []string
	// Entrypoint tells that a container's args go to the program; otherwise, without command, args name the program.
	Entrypoint bool
}

// Sample is the program that holds every sample application.
const Sample = "ambit-sample"

// Container is what a container asks to run.
type Container struct {
	Image         string
	Command, Args []string
}

// Program is what to run.
type Program struct {
	Argv []string
	Env  []string
}

// ErrNotAvailable is for an image that the local cluster has nothing for.
var ErrNotAvailable = errors.New("image is not available on a local cluster")

// Resolve says what a container runs. Programs of the mesh are in bin, as the container sees it.
func Resolve(c Container, bin string) (Program, error) {
	img, known := Find(c.Image)
	if len(c.Command) > 0 {
		argv := append(slices.Clone(c.Command), c.Args...)
		if applet := path.Base(argv[0]); known && img.Program == Sample && slices.Contains(applets(), applet) {
			argv = append([]string{path.Join(bin, Sample), applet}, argv[1:]...)
		} else if known && img.Program != Sample && slices.Contains(entrypoints(), applet) {
			argv[0] = path.Join(bin, img.Program)
		}
		return Program{Argv: argv, Env: img.Env}, nil
	}
	if !known {
		return Program{}, fmt.Errorf("%w: %s: give the container a command, which runs that program of this machine, or use one of the sample images (bookinfo, curl, httpbin, helloworld, echo)", ErrNotAvailable, c.Image)
	}
	if img.Program != Sample {
		return Program{Argv: append([]string{path.Join(bin, img.Program)}, c.Args...), Env: img.Env}, nil
	}
	args := c.Args
	if len(args) == 0 {
		args = img.Default
	}
	if len(args) > 0 && !img.Entrypoint && !strings.HasPrefix(args[0], "-") {
		// The image's entrypoint runs what it is given.
		if applet := path.Base(args[0]); slices.Contains(applets(), applet) {
			return Program{Argv: append([]string{path.Join(bin, Sample), applet}, args[1:]...), Env: img.Env}, nil
		}
		if img.Applet == "" || !strings.Contains(args[0], "/") {
			return Program{Argv: slices.Clone(args), Env: img.Env}, nil
		}
	}
	return Program{Argv: append([]string{path.Join(bin, Sample), img.Applet}, args...), Env: img.Env}, nil
}

// Find is the well-known image of that name, whatever its registry and tag.
func Find(ref string) (Image, bool) {
	name, tag := split(ref)
	base := path.Base(name)
	if app, ok := strings.CutPrefix(base, "examples-bookinfo-"); ok {
		return bookinfo(app)
	}
	if v, ok := strings.CutPrefix(base, "examples-helloworld-"); ok {
		return Image{Program: Sample, Applet: "helloworld", Entrypoint: true, Env: []string{"SERVICE_VERSION=" + v}}, true
	}
	owner := path.Base(path.Dir(name))
	for _, k := range known() {
		if k.name == base && (k.owner == "" || k.owner == owner) {
			img := k.image
			img.Env = slices.Clone(img.Env)
			if base == "examples-helloworld" && tag != "" {
				img.Env = append(img.Env, "SERVICE_VERSION="+tag)
			}
			return img, true
		}
	}
	return Image{}, false
}

// split takes the tag and the digest off an image's name.
func split(ref string) (name, tag string) {
	name, _, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i], name[i+1:]
	}
	return name, ""
}

// bookinfo is one of its services: productpage-v1, reviews-v2, and variants such as ratings-v2-mysql or
// productpage-v-flooding, which behave as the plain ones.
func bookinfo(name string) (Image, bool) {
	app, version, _ := strings.Cut(name, "-")
	if !slices.Contains([]string{"productpage", "details", "reviews", "ratings"}, app) {
		return Image{}, false
	}
	version, _, _ = strings.Cut(version, "-")
	if version == "" || version == "v" {
		version = "v1"
	}
	return Image{Program: Sample, Applet: app, Entrypoint: true, Env: []string{"SERVICE_VERSION=" + version}}, true
}
