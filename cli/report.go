package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/cli/internal/analyze"
	"github.com/ambit-mesh/ambit/cli/internal/redact"
	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local"
	"github.com/ambit-mesh/ambit/local/client"
	"github.com/ambit-mesh/ambit/local/table"
	"github.com/ambit-mesh/ambit/mesh"
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
	if r.at.state == "" && len(r.flags.include) == 0 {
		r.onlyMesh(objects)
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
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err() // the person does not want it
	}
	if ctx.Err() != nil {
		r.missing = append(r.missing, fmt.Sprintf("all that could not be had in %v: --timeout gives it longer", r.flags.timeout))
	}
	return r.archive.add("missing.txt", []byte(strings.Join(r.missing, "\n")+"\n"))
}

// onlyMesh leaves out the namespaces of a Kubernetes that have nothing of the mesh: they are others'.
func (r *reporter) onlyMesh(pods []kinds.Object) {
	in := map[string]bool{}
	for _, o := range pods {
		if p, ok := o.(*corev1.Pod); ok && (captured(p) || isGateway(p) || p.Labels[mesh.LabelDataplaneMode] == mesh.DataplaneModeAmbient) {
			in[p.Namespace] = true
		}
	}
	wanted := r.flags.namespaces
	r.flags.namespaces = func(ns string) bool { return wanted(ns) && (ns == "" || ns == systemNamespace || in[ns]) }
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

// text is one file of a report, or why it is not there.
type text struct {
	name string
	body []byte
	err  error
}

// eachPod puts the texts of pods into the archive, which are read of some pods at a time.
func (r *reporter) eachPod(ctx context.Context, pods []*corev1.Pod, texts func(context.Context, *corev1.Pod) []text) error {
	for some := range slices.Chunk(pods, askedAtOnce) {
		for _, a := range askEach(some, func(p *corev1.Pod) ([]text, error) { return texts(ctx, p), nil }) {
			for _, t := range a.value {
				if t.err != nil {
					r.miss(t.name, t.err)
				} else if err := r.archive.add(t.name, t.body); err != nil {
					return err
				}
			}
		}
		if ctx.Err() != nil {
			return nil // told at the end
		}
	}
	return nil
}

func (r *reporter) logs(ctx context.Context) error {
	return r.eachPod(ctx, r.pods, func(ctx context.Context, p *corev1.Pod) []text {
		var all []text
		for _, c := range containersOf(p) {
			for _, previous := range []bool{false, true} {
				if previous && !restarted(p, c) {
					continue
				}
				name := "logs/" + p.Namespace + "/" + p.Name + "/" + c
				if previous {
					name += ".previous"
				}
				b, err := r.log(ctx, p, client.LogOptions{Container: c, Previous: previous, Tail: r.flags.tail, Stamps: true})
				all = append(all, text{name + ".log", b, err})
			}
		}
		return all
	})
}

// restarted tells whether there was a run of a container before the present one.
func restarted(p *corev1.Pod, container string) bool {
	return slices.ContainsFunc(slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses), func(s corev1.ContainerStatus) bool {
		return s.Name == container && s.RestartCount > 0
	})
}

func (r *reporter) log(ctx context.Context, p *corev1.Pod, o client.LogOptions) ([]byte, error) {
	body, err := r.mesh().Logs(ctx, p.Namespace, p.Name, o)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(io.LimitReader(body, maxLog))
}

// dumps are what the parts of the mesh say of themselves.
func (r *reporter) dumps(ctx context.Context) error {
	var running []*corev1.Pod
	for _, p := range r.pods {
		if p.Status.Phase == corev1.PodRunning && len(r.pages(p)) > 0 {
			running = append(running, p)
		}
	}
	return r.eachPod(ctx, running, func(ctx context.Context, p *corev1.Pod) []text {
		var all []text
		for _, g := range r.pages(p) {
			b, err := r.page(ctx, p, g.port, g.path)
			all = append(all, text{"mesh/" + p.Name + "/" + g.file, b, err})
			if err != nil && !errors.As(err, new(*client.StatusError)) {
				break // it does not answer, and would not for the next either
			}
		}
		return all
	})
}

// debugPage is one that a part of the mesh has of itself.
type debugPage struct {
	port       int
	path, file string
}

func (r *reporter) pages(p *corev1.Pod) []debugPage {
	switch {
	case p.Labels["app"] == "istiod" && p.Namespace == systemNamespace:
		return []debugPage{{debugPort, "/debug/syncz", "syncz.json"}, {debugPort, "/metrics", "metrics.txt"}}
	case p.Labels["app"] == "ztunnel" && p.Namespace == systemNamespace:
		return []debugPage{{r.adminPort, "/config_dump", "config_dump.json"}, {r.adminPort, "/last?n=200", "last.json"}, {15020, "/stats/prometheus", "metrics.txt"}, {r.adminPort, "/debug/pprof/goroutine?debug=1", "goroutines.txt"}}
	case isGateway(p):
		return []debugPage{{r.adminPort, "/config_dump", "config_dump.json"}, {15020, "/stats/prometheus", "metrics.txt"}}
	case p.Labels["k8s-app"] == "istio-cni-node" && p.Namespace == systemNamespace:
		return []debugPage{{debugPort, "/metrics", "metrics.txt"}}
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
	if r.at.state == "" {
		return nil // its nodes are objects
	}
	for _, path := range []string{filepath.Join(r.at.state, "cluster.log"), r.at.state + ".log"} {
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
