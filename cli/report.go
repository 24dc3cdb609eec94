package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/cli/internal/redact"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
)

// maxLog bounds one log in a report.
const maxLog = 8 << 20

// reporter collects a report. What cannot be had is told and does not keep the rest away; only writing must not fail.
type reporter struct {
	*look
	flags   reportFlags
	archive *archive
	api     *client.Client
	pods    []*corev1.Pod
	missing []string
}

func (r *reporter) miss(what string, err error) {
	r.missing = append(r.missing, fmt.Sprintf("%s: %v", what, err))
}

func (r *reporter) collect(ctx context.Context) error {
	objects, err := r.mesh().List(ctx, kindNamed("pods"), "", "")
	if err != nil {
		return err // there is no mesh to report of
	}
	for _, o := range objects {
		if p, ok := o.(*corev1.Pod); ok && r.flags.namespaces(p.Namespace) {
			r.pods = append(r.pods, p)
		}
	}
	parts := map[string]func(context.Context) error{"objects": r.objects, "logs": r.logs, "dumps": r.dumps, "analyze": r.findings, "machine": r.machine}
	if err := r.summary(ctx); err != nil {
		return err
	}
	for _, name := range skippable() {
		if *r.flags.skip[name] {
			continue
		}
		if err := parts[name](ctx); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("the report was not finished in %v: %w", r.flags.timeout, err)
	}
	return r.archive.add("missing.txt", []byte(strings.Join(r.missing, "\n")+"\n"))
}

// summary is what one looks at first.
func (r *reporter) summary(ctx context.Context) error {
	v := versions{Client: r.env.Version}
	if err := r.versions(ctx, &v); err != nil {
		r.miss("some versions", err)
	}
	var b bytes.Buffer
	if err := encode(&b, "yaml", v); err != nil {
		return err
	}
	if err := r.archive.add("versions.yaml", b.Bytes()); err != nil {
		return err
	}
	b.Reset()
	var all []kinds.Object
	for _, p := range r.pods {
		all = append(all, p)
	}
	if err := table.Write(&b, kindNamed("pods"), all, table.Options{Now: r.archive.now, Wide: true, Namespaces: true}); err != nil {
		return err
	}
	return r.archive.add("pods.txt", b.Bytes())
}

// objects are all of them, by namespace and kind.
func (r *reporter) objects(ctx context.Context) error {
	for _, k := range kinds.All() {
		objects, err := r.mesh().List(ctx, k, "", "")
		if err != nil {
			r.miss(k.Plural, err)
			continue
		}
		byNamespace := map[string]*bytes.Buffer{}
		for _, o := range objects {
			ns := o.GetNamespace()
			if !r.flags.namespaces(ns) {
				continue
			}
			text, err := kinds.Encode(redact.Object(o))
			if err != nil {
				return err
			}
			if byNamespace[ns] == nil {
				byNamespace[ns] = &bytes.Buffer{}
			}
			byNamespace[ns].WriteString("---\n")
			byNamespace[ns].Write(text)
		}
		for ns, b := range byNamespace {
			if ns == "" {
				ns = "cluster"
			}
			if err := r.archive.add("objects/"+ns+"/"+k.Resource()+".yaml", b.Bytes()); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reporter) logs(ctx context.Context) error {
	for _, p := range r.pods {
		for _, c := range containersOf(p) {
			for _, previous := range []bool{false, true} {
				text, err := r.log(ctx, p, client.LogOptions{Container: c, Previous: previous, Tail: r.flags.tail, Stamps: true})
				name := p.Namespace + "/" + p.Name + "/" + c
				if previous {
					name += ".previous"
				}
				if err != nil {
					if !previous { // most have none
						r.miss("log of "+name, err)
					}
					continue
				}
				if len(text) == 0 && previous {
					continue
				}
				if err := r.archive.add("logs/"+name+".log", text); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (r *reporter) log(ctx context.Context, p *corev1.Pod, o client.LogOptions) ([]byte, error) {
	body, err := r.api.Logs(ctx, p.Namespace, p.Name, o)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, maxLog))
}

// dumps are what the parts of the mesh say of themselves.
func (r *reporter) dumps(ctx context.Context) error {
	type page struct {
		port       int
		path, file string
	}
	for _, p := range r.pods {
		if p.Status.Phase != corev1.PodRunning {
			continue
		}
		var pages []page
		switch {
		case p.Labels["app"] == "istiod" && p.Namespace == systemNamespace:
			pages = []page{{debugPort, "/debug/syncz", "syncz.json"}, {debugPort, "/metrics", "metrics.txt"}}
		case p.Labels["app"] == "ztunnel" && p.Namespace == systemNamespace:
			pages = []page{{r.adminPort, "/config_dump", "config_dump.json"}, {r.adminPort, "/last?n=200", "last.json"}, {15020, "/stats/prometheus", "metrics.txt"}, {r.adminPort, "/debug/pprof/goroutine?debug=1", "goroutines.txt"}}
		case isGateway(p):
			pages = []page{{r.adminPort, "/config_dump", "config_dump.json"}, {15020, "/stats/prometheus", "metrics.txt"}}
		}
		for _, g := range pages {
			b, err := r.mesh().Pod(ctx, http.MethodGet, p.Namespace, p.Name, g.port, g.path)
			name := p.Name + "/" + g.file
			if err != nil {
				r.miss(name, err)
				continue
			}
			if err := r.archive.add("mesh/"+name, b); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *reporter) findings(ctx context.Context) error {
	in, _, err := r.gather(ctx, analyzeFlags{kube: true, all: true}, nil)
	if err != nil {
		r.miss("findings of analyze", err)
		return nil
	}
	var b strings.Builder
	for _, m := range analyze.Run(in) {
		b.WriteString(m.String() + "\n")
	}
	return r.archive.add("analyze.txt", []byte(b.String()))
}

// machine is what only the machine of a local cluster knows.
func (r *reporter) machine(ctx context.Context) error {
	for _, path := range []string{filepath.Join(r.state, "cluster.log"), r.state + ".log"} {
		b, err := tailOf(path, maxLog)
		switch {
		case os.IsNotExist(err):
			continue
		case err != nil:
			r.miss(path, err)
			continue
		}
		if err := r.archive.add("machine/"+filepath.Base(path), b); err != nil {
			return err
		}
	}
	var text strings.Builder
	if kernel, err := os.ReadFile("/proc/version"); err == nil {
		text.Write(kernel)
	}
	for _, p := range local.Preflight(ctx) {
		fmt.Fprintf(&text, "missing: %s\n", p)
	}
	if err := r.archive.add("machine/machine.txt", []byte(text.String())); err != nil {
		return err
	}
	if refused, err := r.api.Problems(ctx); err != nil {
		r.miss("refused files", err)
	} else if err := r.archive.add("machine/refused.txt", []byte(strings.Join(refused, "\n")+"\n")); err != nil {
		return err
	}
	processes, err := r.api.Processes(ctx)
	if err != nil {
		r.miss("memory of the processes", err)
		return nil
	}
	b, err := json.MarshalIndent(processes, "", "  ")
	if err != nil {
		return err
	}
	return r.archive.add("machine/processes.json", b)
}

// tailOf reads the end of a file.
func tailOf(path string, most int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > most {
		if _, err := f.Seek(-most, io.SeekEnd); err != nil {
			return nil, err
		}
	}
	return io.ReadAll(io.LimitReader(f, most))
}
