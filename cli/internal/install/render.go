// Package install puts the mesh on a Kubernetes cluster, keeps it as its values say, and takes it away.
package install

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	"helm.sh/helm/v4/pkg/chart/loader/archive"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

// Object is one object of an installation.
type Object = unstructured.Unstructured

// release says as what a chart is rendered.
type release struct {
	name, namespace, service, version string
}

// render renders a chart of a file system, as helm would, and reads the objects.
func render(charts fs.FS, name string, r release, values map[string]any) ([]*Object, error) {
	c, err := load(charts, name)
	if err != nil {
		return nil, err
	}
	if r.version != "" {
		c.Metadata.AppVersion = r.version
	}
	all, err := util.ToRenderValues(c, values, common.ReleaseOptions{Name: r.name, Namespace: r.namespace, Revision: 1, IsInstall: true}, common.DefaultCapabilities)
	if err != nil {
		return nil, fmt.Errorf("values of chart %s: %w", name, err)
	}
	if rel, ok := all["Release"].(map[string]any); ok && r.service != "" {
		rel["Service"] = r.service
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, fmt.Errorf("render chart %s: %w", name, plain(err))
	}
	var objects []*Object
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if !strings.HasSuffix(path, ".yaml") {
			continue
		}
		more, err := objectsOf([]byte(files[path]))
		if err != nil {
			return nil, fmt.Errorf("chart %s, %s: %w", name, path, err)
		}
		objects = append(objects, more...)
	}
	return objects, nil
}

// plain is what a template's own `fail` says, without the way there through the templates.
func plain(err error) error {
	_, said, ok := strings.Cut(err.Error(), "execution error at (")
	if !ok {
		return err
	}
	if _, after, ok := strings.Cut(said, "error calling fail: "); ok {
		return errors.New(after)
	}
	_, after, _ := strings.Cut(said, "): ")
	return errors.New(after)
}

func load(charts fs.FS, name string) (*chart.Chart, error) {
	var files []*archive.BufferedFile
	err := fs.WalkDir(charts, name, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(charts, path)
		if err != nil {
			return err
		}
		files = append(files, &archive.BufferedFile{Name: strings.TrimPrefix(path, name+"/"), Data: b})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read chart %s: %w", name, err)
	}
	c, err := loader.LoadFiles(files)
	if err != nil {
		return nil, fmt.Errorf("read chart %s: %w", name, err)
	}
	return c, nil
}

// objectsOf reads the documents of a YAML stream.
func objectsOf(stream []byte) ([]*Object, error) {
	var all []*Object
	r := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(stream)))
	for {
		doc, err := r.Read()
		if err == io.EOF {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if len(bytes.TrimSpace(doc)) == 0 {
			continue
		}
		o := &Object{}
		if err := yaml.Unmarshal(doc, &o.Object); err != nil {
			return nil, err
		}
		if len(o.Object) == 0 {
			continue
		}
		if o.GetKind() == "" || o.GetName() == "" {
			return nil, fmt.Errorf("an object without kind or name")
		}
		all = append(all, o)
	}
}

// Write writes objects as a YAML stream.
func Write(w io.Writer, objects []*Object) error {
	for _, o := range objects {
		b, err := yaml.Marshal(o.Object)
		if err != nil {
			return fmt.Errorf("write %s: %w", describe(o), err)
		}
		if _, err := fmt.Fprintf(w, "---\n%s", b); err != nil {
			return err
		}
	}
	return nil
}

func describe(o *Object) string {
	name := o.GetName()
	if ns := o.GetNamespace(); ns != "" {
		name = ns + "/" + name
	}
	return o.GetKind() + " " + name
}
