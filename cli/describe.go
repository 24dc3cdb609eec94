package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
	"github.com/ambit-mesh/ambit/local/table"
)

func newDescribe(s *scope) *cobra.Command {
	var selector string
	c := &cobra.Command{
		Use: "describe (KIND [NAME...] | KIND/NAME...)", Short: "Tell everything known of an object, with its events", Args: cobra.MinimumNArgs(1),
		Example: "  ambit local describe pod -l app=details\n  ambit local describe virtualservice bookinfo",
		RunE: func(c *cobra.Command, args []string) error {
			given, err := targets(args)
			if err != nil {
				return err
			}
			ts, err := s.expand(c.Context(), given, selector, true)
			if err != nil {
				return err
			}
			if len(ts) == 0 {
				fmt.Fprintf(s.env.Err, "No resources found in %s namespace.\n", s.namespace)
			}
			for i, t := range ts {
				if i > 0 {
					fmt.Fprintln(s.env.Out)
				}
				o, err := s.client().Get(c.Context(), t.kind, t.namespace, t.name)
				if err != nil {
					return hinted(c.Context(), s.client(), err, t.kind, t.namespace, t.name)
				}
				events, err := s.eventsOf(c.Context(), t.kind, o)
				if err != nil {
					return err
				}
				extra, err := s.endpoints(c.Context(), o)
				if err != nil {
					return err
				}
				if err := describe(s.env.Out, t.kind, o, extra, events, time.Now()); err != nil {
					return err
				}
			}
			return nil
		},
	}
	c.Flags().StringVarP(&selector, "selector", "l", "", "objects with these labels")
	return c
}

func (s *scope) eventsOf(ctx context.Context, k kinds.Kind, o kinds.Object) ([]*corev1.Event, error) {
	kind, _ := kinds.Find("events")
	all, err := s.client().List(ctx, kind, o.GetNamespace(), "")
	if err != nil {
		return nil, err
	}
	var events []*corev1.Event
	for _, e := range all {
		if e, ok := e.(*corev1.Event); ok && e.InvolvedObject.Kind == k.Kind && e.InvolvedObject.Name == o.GetName() {
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b *corev1.Event) int { return a.LastTimestamp.Compare(b.LastTimestamp.Time) })
	return events, nil
}

// endpoints are the rows of a service's ready addresses, by port.
func (s *scope) endpoints(ctx context.Context, o kinds.Object) ([][]string, error) {
	svc, ok := o.(*corev1.Service)
	if !ok {
		return nil, nil
	}
	kind, _ := kinds.Find("endpointslices")
	found, err := s.client().List(ctx, kind, o.GetNamespace(), "kubernetes.io/service-name="+o.GetName())
	if err != nil {
		return nil, err
	}
	return serviceRows(svc, found), nil
}

func describe(w io.Writer, k kinds.Kind, o kinds.Object, extra [][]string, events []*corev1.Event, now time.Time) error {
	rows := [][]string{{"Name:", o.GetName()}}
	if k.Namespaced {
		rows = append(rows, []string{"Namespace:", o.GetNamespace()})
	}
	rows = append(rows, pairs("Labels:", o.GetLabels())...)
	annotations := maps.Clone(o.GetAnnotations())
	delete(annotations, corev1.LastAppliedConfigAnnotation) // it repeats the object
	rows = append(rows, pairs("Annotations:", annotations)...)
	rows = append(rows, []string{"Kind:", k.Kind + " (" + k.APIVersion() + ")"})
	switch x := o.(type) {
	case *corev1.Pod:
		rows = append(rows, podRows(x)...)
	case *appsv1.Deployment:
		rows = append(rows, []string{"Replicas:", fmt.Sprintf("%d desired, %d updated, %d available, %d unavailable", *cmp.Or(x.Spec.Replicas, new(int32(1))), x.Status.UpdatedReplicas, x.Status.AvailableReplicas, x.Status.UnavailableReplicas)})
	case *corev1.Secret:
		rows = append(rows, []string{"Type:", string(x.Type)})
		for _, k := range slices.Sorted(maps.Keys(x.Data)) {
			rows = append(rows, []string{k + ":", fmt.Sprintf("%d bytes", len(x.Data[k]))})
		}
	}
	rows = append(rows, extra...)
	if err := table.Align(w, rows); err != nil {
		return err
	}
	_, pod := o.(*corev1.Pod)
	_, secret := o.(*corev1.Secret) // its values are not for every screen
	if !pod && !secret && len(extra) == 0 {
		text, err := specOf(o)
		if err != nil {
			return err
		}
		fmt.Fprint(w, text)
	}
	if cs := conditionsOf(o); len(cs) > 0 {
		fmt.Fprintln(w, "Conditions:")
		rows := [][]string{{"  Type", "Status", "Reason", "Message"}}
		for _, c := range cs {
			rows = append(rows, []string{"  " + c.name, c.status, c.reason, c.message})
		}
		if err := table.Align(w, rows); err != nil {
			return err
		}
	}
	if len(events) == 0 {
		fmt.Fprintln(w, "Events:  <none>")
		return nil
	}
	fmt.Fprintln(w, "Events:")
	rows = [][]string{{"  Type", "Reason", "Age", "From", "Message"}}
	for _, e := range events {
		rows = append(rows, []string{"  " + e.Type, e.Reason, table.Age(e.LastTimestamp.Time, now), e.Source.Component, e.Message})
	}
	return table.Align(w, rows)
}

func pairs(title string, m map[string]string) [][]string {
	if len(m) == 0 {
		return [][]string{{title, "<none>"}}
	}
	var rows [][]string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		rows = append(rows, []string{title, k + "=" + m[k]})
		title = ""
	}
	return rows
}

// specOf is the object's YAML from its spec on, without its metadata and status.
func specOf(o kinds.Object) (string, error) {
	raw, err := kinds.Encode(o)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	keep := false
	for line := range strings.Lines(string(raw)) {
		if line[0] != ' ' && line[0] != '-' {
			word, _, _ := strings.Cut(line, ":")
			keep = !slices.Contains([]string{"apiVersion", "kind", "metadata", "status"}, word)
			if keep {
				line = strings.ToUpper(line[:1]) + line[1:]
			}
		}
		if keep {
			b.WriteString(line)
		}
	}
	return b.String(), nil
}
