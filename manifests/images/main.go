// Command images packs the mesh's programs, built before, into container images, without Docker and from nothing else.
//
// It writes images-ARCH.tar for each architecture and, of several, images.tar with all of them.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "images: %v\n", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	bin := f.String("bin", "dist/bin", "directory with linux-ARCH/PROGRAM")
	dir := f.String("out", "dist", "directory to write to")
	hub := f.String("hub", "localhost/ambit", "registry and repository of the mesh's images")
	tag := f.String("tag", "dev", "tag of the mesh's images")
	revision := f.String("revision", "", "commit, for the labels")
	created := f.Int64("created", 0, "when the source is from, in seconds since 1970")
	list := f.Bool("list", false, "print the names of the images and do nothing")
	f.Usage = func() {
		fmt.Fprintln(f.Output(), "usage: images [flags] ARCH...")
		f.PrintDefaults()
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	all := append(mesh(*hub, *tag), samples(*hub, *tag)...)
	if *list {
		for _, i := range all {
			fmt.Fprintln(out, i.name)
		}
		return nil
	}
	if f.NArg() == 0 {
		return errors.New("want an architecture, such as amd64")
	}
	from := source{
		version: *tag, revision: *revision, url: "https://github.com/ambit-mesh/ambit", created: time.Unix(*created, 0).UTC(),
	}
	base, err := base()
	if err != nil {
		return err
	}
	builds := make([][]built, len(all)) // by image, then architecture
	for _, arch := range f.Args() {
		m, err := newMaker(from, *bin, arch, base, needed(all))
		if err != nil {
			return fmt.Errorf("for %s: %w", arch, err)
		}
		for n, i := range all {
			b, err := m.make(i)
			if err != nil {
				return fmt.Errorf("make %s: %w", i.name, err)
			}
			builds[n] = append(builds[n], b)
		}
	}
	report(out, f.Args(), all, builds)
	if err := os.MkdirAll(*dir, 0o755); err != nil {
		return err
	}
	for n, arch := range f.Args() {
		if err := write(out, filepath.Join(*dir, "images-"+arch+".tar"), all, func(i int) []built { return builds[i][n : n+1] }); err != nil {
			return err
		}
	}
	if f.NArg() > 1 {
		return write(out, filepath.Join(*dir, "images.tar"), all, func(i int) []built { return builds[i] })
	}
	return nil
}

// report prints the size of each image, for every architecture.
func report(out io.Writer, archs []string, all []image, builds [][]built) {
	fmt.Fprintf(out, "%-58s%s\n", "image", "   size, packed: "+strings.Join(archs, ", "))
	for n, i := range all {
		fmt.Fprintf(out, "%-58s", i.name)
		for _, b := range builds[n] {
			files, packed := b.size()
			fmt.Fprintf(out, "  %5.1f MB %5.1f MB", float64(files)/1e6, float64(packed)/1e6)
		}
		fmt.Fprintln(out)
	}
}

// write makes an archive, whole or not at all.
func write(out io.Writer, path string, all []image, of func(int) []built) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name()) // gone once renamed
	buffered := bufio.NewWriter(file)
	a := newArchive(buffered)
	for n, i := range all {
		if err := a.add(i.name, of(n)); err != nil {
			return fmt.Errorf("write %s: %w", path, err)
		}
	}
	err = errors.Join(a.close(), buffered.Flush(), file.Chmod(0o644))
	size, at := file.Seek(0, io.SeekCurrent)
	if err := errors.Join(err, at, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return err
	}
	fmt.Fprintf(out, "%s: %d images, %.1f MB\n", path, len(all), float64(size)/1e6)
	return nil
}
