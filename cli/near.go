package cli

import (
	"context"
	"fmt"
	"slices"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/client"
)

// suggest ends an error with the known word that was probably meant, if one is close.
func suggest(word string, known []string) string {
	if near, ok := kinds.Nearest(word, known); ok && near != word {
		return fmt.Sprintf("; did you mean %s?", near)
	}
	return ""
}

// namesOf lists the objects of a kind; none where they cannot be had: it is for hints only.
func namesOf(ctx context.Context, r lister, k kinds.Kind, namespace string) []string {
	objects, err := r.List(ctx, k, namespace, "")
	if err != nil {
		return nil
	}
	var all []string
	for _, o := range objects {
		all = append(all, o.GetName())
	}
	return all
}

// lister lists objects.
type lister interface {
	List(ctx context.Context, k kinds.Kind, namespace, selector string) ([]kinds.Object, error)
}

// unknownKind is the error for a word that names no kind.
func unknownKind(word string) error {
	var known []string
	for _, k := range kinds.All() {
		known = append(known, k.Plural)
		known = append(known, k.Short...)
	}
	hint := suggest(word, known)
	if hint == "" {
		hint = "; `ambit local api-resources` lists them"
	}
	return fmt.Errorf("the server doesn't have a resource type %q%s", word, hint)
}

// hinted adds to an answer "not found" what is there instead: a name that is close, the namespace that has it, or that
// there is no such namespace.
func hinted(ctx context.Context, r lister, err error, k kinds.Kind, namespace, name string) error {
	if err == nil || !client.NotFound(err) {
		return err
	}
	more := func(format string, args ...any) error {
		return fmt.Errorf("%w; "+format, append([]any{err}, args...)...)
	}
	if k.Namespaced {
		spaces, _ := kinds.Find("namespaces")
		known := namesOf(ctx, r, spaces, "")
		if len(known) > 0 && !slices.Contains(known, namespace) {
			return more("there is no namespace %q%s", namespace, suggest(namespace, known))
		}
	}
	if near, ok := kinds.Nearest(name, namesOf(ctx, r, k, namespace)); ok && near != name {
		return more("did you mean %s?", near)
	}
	if !k.Namespaced {
		return err
	}
	objects, lerr := r.List(ctx, k, "", "")
	if lerr != nil {
		return err
	}
	for _, o := range objects {
		if o.GetName() == name {
			return more("namespace %s has one: add -n %s", o.GetNamespace(), o.GetNamespace())
		}
	}
	return err
}

// namespaceExists refuses a namespace that is not there, with the one that was probably meant.
func (l *look) namespaceExists(ctx context.Context, name string) error {
	k, _ := kinds.Find("namespaces")
	if known := namesOf(ctx, l.mesh(), k, ""); len(known) > 0 && !slices.Contains(known, name) {
		return fmt.Errorf("there is no namespace %q%s", name, suggest(name, known))
	}
	return nil
}

// kindNamed is a kind of our own vocabulary.
func kindNamed(word string) kinds.Kind {
	k, ok := kinds.Find(word)
	if !ok {
		panic("cli: no kind " + word)
	}
	return k
}
