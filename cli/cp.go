package cli

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ambit-mesh/ambit/local/client"
)

func newCopy(s *scope) *cobra.Command {
	var container string
	c := &cobra.Command{
		Use: "cp [POD:]FROM [POD:]TO", Short: "Copy files into a pod and out of it", Args: cobra.ExactArgs(2),
		Long:    "Copy a file or a directory between this machine and a pod ([NAMESPACE/]POD, or KIND/NAME with -n). Links are left out.",
		Example: "  ambit local cp sleep-7d9c:/tmp/trace.pcap trace.pcap\n  ambit local cp config/ shop/web-0:/tmp/config",
		RunE: func(c *cobra.Command, args []string) error {
			from, to := remotePath(args[0]), remotePath(args[1])
			switch {
			case (from.pod == "") == (to.pod == ""):
				return usage("one of the two is in a pod, as POD:PATH")
			case from.pod != "":
				return s.copyOut(c.Context(), from, to.path, container)
			}
			return s.copyIn(c.Context(), from.path, to, container)
		},
	}
	c.Flags().StringVarP(&container, "container", "c", "", "container of the pod")
	return c
}

// place is a path, in a pod if it has one.
type place struct{ pod, path string }

func remotePath(text string) place {
	pod, p, ok := strings.Cut(text, ":")
	if !ok || strings.HasPrefix(text, "/") || strings.HasPrefix(text, ".") {
		return place{path: text}
	}
	return place{pod, p}
}

// request is an exec in the pod of a place.
func (s *scope) request(ctx context.Context, at place, container string, argv ...string) (client.ExecRequest, error) {
	in := *s
	args := []string{at.pod}
	if ns, pod, ok := strings.Cut(at.pod, "/"); ok {
		if _, err := targets(args); err != nil { // no kind: a namespace
			in.namespace, args = ns, []string{pod}
		}
	}
	pods, err := in.podsFor(ctx, args, "")
	if err != nil {
		return client.ExecRequest{}, err
	}
	return client.ExecRequest{Namespace: pods[0].Namespace, Pod: pods[0].Name, Container: container, Argv: argv}, nil
}

// stream runs a program in a pod with one of its streams in f's hands: its output, or with input, its input.
func (s *scope) stream(ctx context.Context, req client.ExecRequest, input bool, f func(*os.File) error) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return errors.Join(err, r.Close(), w.Close())
	}
	defer null.Close()
	diag, ok := s.env.Err.(*os.File)
	if !ok {
		diag = null
	}
	ours, theirs, in, out := r, w, null, w
	if input {
		ours, theirs, in, out = w, r, r, null
	}
	done := make(chan error, 1)
	go func() {
		err := f(ours)
		done <- errors.Join(err, ours.Close())
	}()
	code, err := s.client().Exec(ctx, req, in, out, diag)
	err = errors.Join(err, theirs.Close())
	err = errors.Join(err, <-done)
	if err == nil && code != 0 {
		err = fmt.Errorf("%s in pod %s ended with %d", req.Argv[0], req.Pod, code)
	}
	return err
}

func (s *scope) copyOut(ctx context.Context, from place, to, container string) error {
	clean := path.Clean("/" + from.path)
	req, err := s.request(ctx, from, container, "tar", "cf", "-", "-C", path.Dir(clean), "--", path.Base(clean))
	if err != nil {
		return err
	}
	if st, err := os.Stat(to); err == nil && st.IsDir() {
		to = filepath.Join(to, path.Base(clean))
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	root, err := os.OpenRoot(filepath.Dir(to))
	if err != nil {
		return err
	}
	defer root.Close()
	return s.stream(ctx, req, false, func(r *os.File) error {
		left, err := unpack(r, root, path.Base(clean), filepath.Base(to))
		if left > 0 {
			fmt.Fprintf(s.env.Err, "%d links and special files were left out\n", left)
		}
		_, drain := io.Copy(io.Discard, r) // so that tar ends by itself
		return errors.Join(err, drain)
	})
}

// unpack writes an archive's files below a directory, those below the name from as ones below the name to. Whatever an
// archive says, nothing is written elsewhere; links and special files are left out and counted.
func unpack(r io.Reader, root *os.Root, from, to string) (left int, err error) {
	in := tar.NewReader(r)
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return left, nil
		}
		if err != nil {
			return left, fmt.Errorf("the pod's archive: %w", err)
		}
		name := path.Clean(h.Name)
		rest, ok := strings.CutPrefix(name, from)
		if !ok || rest != "" && rest[0] != '/' {
			return left, fmt.Errorf("the pod's archive has %q, which was not asked for", h.Name)
		}
		name = to + rest
		switch h.Typeflag {
		case tar.TypeDir:
			err = root.MkdirAll(name, 0o755)
		case tar.TypeReg:
			err = unpackFile(in, root, name, fs.FileMode(h.Mode)&0o755|0o600)
		default:
			left++
		}
		if err != nil {
			return left, err
		}
	}
}

func unpackFile(r io.Reader, root *os.Root, name string, mode fs.FileMode) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

func (s *scope) copyIn(ctx context.Context, from string, to place, container string) error {
	if _, err := os.Stat(from); err != nil {
		return fmt.Errorf("the path %q does not exist", from)
	}
	probe, err := s.request(ctx, to, container, "test", "-d", to.path)
	if err != nil {
		return err
	}
	target := path.Clean("/" + to.path)
	into := true
	if err := s.stream(ctx, probe, false, func(*os.File) error { return nil }); err != nil {
		into = strings.HasSuffix(to.path, "/")
	}
	if into {
		target = path.Join(target, filepath.Base(filepath.Clean(from)))
	}
	probe.Argv = []string{"tar", "xf", "-", "--no-same-owner", "-C", path.Dir(target)}
	return s.stream(ctx, probe, true, func(w *os.File) error { return pack(w, from, path.Base(target)) })
}

// pack writes an archive of a file or a directory, under a name.
func pack(w io.Writer, from, name string) error {
	out := tar.NewWriter(w)
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		st, err := d.Info()
		if err != nil || !st.IsDir() && !st.Mode().IsRegular() {
			return err
		}
		h, err := tar.FileInfoHeader(st, "")
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		h.Name, h.Uid, h.Gid, h.Uname, h.Gname = path.Join(name, filepath.ToSlash(rel)), 0, 0, "", ""
		h.ModTime = st.ModTime().Truncate(time.Second) // the format rounds up, into the future
		if err := out.WriteHeader(h); err != nil || st.IsDir() {
			return err
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = io.Copy(out, f)
		return err
	})
	return errors.Join(err, out.Close())
}
