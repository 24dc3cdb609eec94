package kinds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	kjson "sigs.k8s.io/json"
)

// Located is an object and the line of the file where it begins.
type Located struct {
	Object Object
	File   string
	Line   int

	tree *node
}

// Problems validates the object's meaning, as Validate does, and says where in the file each problem stands.
func (l Located) Problems() Problems {
	ps := Validate(l.Object)
	for i := range ps {
		ps[i].File, ps[i].Line = l.File, l.Line
		if l.tree != nil {
			ps[i].Line = l.tree.at(ps[i].Path).line
		}
	}
	slices.SortStableFunc(ps, func(a, b Problem) int { return a.Line - b.Line })
	return ps
}

// LineOf is the line of the file where the value at a path stands, such as spec.http[0].route; where there is none, that
// of what should hold it. It is 0 for an object that came from no file.
func (l Located) LineOf(path string) int {
	if l.tree == nil {
		return l.Line
	}
	return l.tree.at(path).line
}

// DecodeKnown is Decode for files that also hold what is not of this mesh, such as a chart's output: objects of unknown
// kinds are left out and told in skipped.
func DecodeKnown(file string, data []byte) (found []Located, skipped Problems, err error) {
	found, err = decode(file, data, &skipped)
	return found, skipped, err
}

// Decode reads every document of a YAML or JSON file, or of a List in it. It is strict: an unknown kind, an unknown or
// ill-typed field or a missing name is an error of type Problems or Problem, and then nothing is returned.
func Decode(file string, data []byte) ([]Located, error) { return decode(file, data, nil) }

func decode(file string, data []byte, skipped *Problems) ([]Located, error) {
	if len(data) > MaxBytes {
		return nil, Problem{File: file, What: fmt.Sprintf("has %d bytes, more than %d", len(data), MaxBytes), Hint: "split the file"}
	}
	secret := bytes.Contains(data, []byte("Secret"))
	d := decoder{file: file, grow: grower{file: file, secret: secret}, check: checker{file: file}, skipped: skipped}
	stream := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		err := stream.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, d.syntax(err)
		}
		if len(doc.Content) == 0 {
			continue
		}
		tree, err := d.grow.grow(doc.Content[0], 0, false)
		if err != nil {
			return nil, err
		}
		if tree.kind == null {
			continue
		}
		d.document(tree)
	}
	if ps := d.check.problems; len(ps) > 0 {
		slices.SortStableFunc(ps, func(a, b Problem) int { return a.Line - b.Line })
		return nil, ps
	}
	return d.found, nil
}

type decoder struct {
	file  string
	grow  grower
	check checker
	found []Located
	// skipped takes unknown kinds; nil makes them errors.
	skipped *Problems
}

// syntax gives the parser's complaint the form of all others.
func (d *decoder) syntax(err error) error {
	what := strings.TrimPrefix(err.Error(), "yaml: ")
	p := Problem{File: d.file, Line: 1} // the parser leaves out the first line
	if rest, ok := strings.CutPrefix(what, "line "); ok {
		if number, after, ok := strings.Cut(rest, ": "); ok {
			if line, err := strconv.Atoi(number); err == nil {
				p.Line, what = line, after
			}
		}
	}
	p.What = "is not YAML: " + what
	if strings.Contains(p.What, "cannot start any token") || strings.Contains(p.What, "found a tab") {
		p.Hint = "indent with spaces, not tabs"
	}
	return p
}

func (d *decoder) document(tree *node) {
	if tree.kind != mapping {
		d.check.fail(tree.line, "", "is "+tree.kind.String()+", not a Kubernetes object", "start it with apiVersion and kind")
		return
	}
	kindNode := tree.get("kind")
	if kindNode != nil && kindNode.kind == scalar && strings.HasSuffix(kindNode.text, "List") && tree.get("items") != nil {
		items := tree.get("items")
		if items.kind != list && items.kind != null {
			d.check.fail(items.line, "items", "is "+items.kind.String()+", not a list", "")
			return
		}
		for _, item := range items.items {
			d.inherit(tree, item)
			d.document(item)
		}
		return
	}
	api, kind := d.word(tree, "apiVersion"), d.word(tree, "kind")
	if api == "" || kind == "" {
		return
	}
	k, ok := FindGVK(api, kind)
	if !ok && d.skipped != nil {
		*d.skipped = append(*d.skipped, Problem{File: d.file, Line: tree.line, What: fmt.Sprintf("kind %s (apiVersion %s) is not of the mesh", kind, api)})
		return
	}
	if !ok {
		d.unknownKind(tree, api, kind)
		return
	}
	before := len(d.check.problems)
	o := k.New()
	d.check.secret = k.Kind == "Secret"
	d.check.value(tree, k.typ.Elem(), "")
	d.check.secret = false
	d.metadata(tree, k)
	if len(d.check.problems) > before {
		return
	}
	if err := fill(o, tree, k); err != nil {
		d.check.fail(tree.line, "", err.Error(), "")
		return
	}
	d.found = append(d.found, Located{Object: o, File: d.file, Line: tree.line, tree: tree})
}

// inherit gives an item of a typed list (PodList) its kind, which such lists leave out.
func (d *decoder) inherit(parent, item *node) {
	base := strings.TrimSuffix(parent.get("kind").text, "List")
	if base == "" || item.kind != mapping || item.get("kind") != nil {
		return
	}
	item.keys = append(item.keys, key{"kind", parent.line, &node{line: parent.line, kind: scalar, text: base, value: base}})
	if api := parent.get("apiVersion"); api != nil && item.get("apiVersion") == nil {
		item.keys = append(item.keys, key{"apiVersion", parent.line, api})
	}
}

func (d *decoder) word(tree *node, field string) string {
	n := tree.get(field)
	if n == nil || n.kind != scalar || n.text == "" {
		d.check.fail(tree.line, "", "has no "+field, "every object starts with apiVersion and kind")
		return ""
	}
	return n.text
}

func (d *decoder) unknownKind(tree *node, api, kind string) {
	line := tree.get("kind").line
	known := map[string]bool{}
	for _, k := range All() {
		if k.Kind == kind {
			d.check.fail(tree.get("apiVersion").line, "", fmt.Sprintf("ambit does not know kind %s (apiVersion %s)", kind, api),
				fmt.Sprintf("did you mean apiVersion %s?", k.APIVersion()))
			return
		}
		known[k.Kind] = true
	}
	words := slices.Sorted(maps.Keys(known))
	hint := "known: " + strings.Join(words, ", ")
	if near, ok := nearest(kind, words); ok {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	d.check.fail(line, "", fmt.Sprintf("ambit does not know kind %s (apiVersion %s)", kind, api), hint)
}

// metadata checks the names, which become file names and URLs.
func (d *decoder) metadata(tree *node, k Kind) {
	meta := tree.get("metadata")
	if meta == nil || meta.kind != mapping {
		d.check.fail(tree.line, "", k.Kind+" has no metadata", "give it metadata.name")
		return
	}
	name := meta.get("name")
	if name == nil || name.kind == null || name.text == "" {
		d.check.fail(meta.line, "metadata", k.Kind+" has no name", "give it metadata.name")
	} else if why := BadName(k, name.text); why != "" {
		d.check.fail(name.line, "metadata.name", why, "")
	}
	if ns := meta.get("namespace"); ns != nil && ns.kind == scalar && ns.text != "" && len(validation.IsDNS1123Label(ns.text)) > 0 {
		d.check.fail(ns.line, "metadata.namespace", fmt.Sprintf("%q is not the name of a namespace", ns.text), "use lower-case letters, digits and '-', at most 63")
	}
}

// BadName says why name cannot name an object of kind k, or "".
func BadName(k Kind, name string) string {
	switch {
	case len(name) > 253:
		return fmt.Sprintf("name of %d characters, more than 253", len(name))
	case k.Group == "rbac.authorization.k8s.io":
		if name == "." || name == ".." || strings.ContainsAny(name, "/%\x00\n\r") {
			return fmt.Sprintf("%q is not a name", name)
		}
	case k.Kind == "Namespace" || k.Kind == "Service":
		if len(validation.IsDNS1123Label(name)) > 0 {
			return fmt.Sprintf("%q is not a name: use lower-case letters, digits and '-', at most 63", name)
		}
	case len(validation.IsDNS1123Subdomain(name)) > 0:
		return fmt.Sprintf("%q is not a name: use lower-case letters, digits, '-' and '.'", name)
	}
	return ""
}

// fill makes the typed object of a tree that passed the checks.
func fill(o Object, tree *node, k Kind) (err error) {
	// A marshaller of a foreign package that panics on foreign bytes must not take the process with it.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("cannot be read as %s: %v", k.Kind, r)
		}
	}()
	data, err := json.Marshal(tree.plainValue())
	if err != nil {
		return fmt.Errorf("write %s as JSON: %w", k.Kind, err)
	}
	if err := kjson.UnmarshalCaseSensitivePreserveInts(data, o); err != nil {
		return fmt.Errorf("read %s: %w", k.Kind, err)
	}
	setType(o, k.APIVersion(), k.Kind)
	if !k.Namespaced {
		o.SetNamespace("")
	}
	if s, ok := o.(*corev1.Secret); ok && len(s.StringData) > 0 {
		// stringData is for writing only: the API folds it into data.
		if s.Data == nil {
			s.Data = map[string][]byte{}
		}
		for name, text := range s.StringData {
			s.Data[name] = []byte(text)
		}
		s.StringData = nil
	}
	return nil
}

func setType(o Object, api, kind string) {
	o.GetObjectKind().SetGroupVersionKind(schema.FromAPIVersionAndKind(api, kind))
}
