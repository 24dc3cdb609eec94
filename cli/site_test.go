package cli

import (
	"errors"
	"testing"

	"github.com/ambit-mesh/ambit/cli/internal/kube"
)

func TestWhichClusterIsMeant(t *testing.T) {
	prod := &kube.Config{Context: "prod", From: "~/.kube/config"}
	gate := &kube.Config{Context: "ambit", LocalState: "/elsewhere"}
	none := func(string, string) (*kube.Config, error) { return nil, kube.ErrNone }
	is := func(c *kube.Config) func(string, string) (*kube.Config, error) {
		return func(string, string) (*kube.Config, error) { return c, nil }
	}
	for _, c := range []struct {
		name  string
		wish  wish
		env   string
		runs  bool
		load  func(string, string) (*kube.Config, error)
		want  string // "kubernetes", or the state directory
		note  string
		usage bool
	}{
		{name: "a local cluster alone", runs: true, load: none, want: "/st"},
		{name: "a kubeconfig alone", load: is(prod), want: "kubernetes"},
		{name: "$KUBECONFIG alone", env: "f", load: is(prod), want: "kubernetes"},
		{
			name: "a local cluster that runs comes before a kubeconfig that is always there", runs: true, load: is(prod), want: "/st",
			note: "Looking at the local cluster. ~/.kube/config names one too: --context prod looks at that.",
		},
		{
			name: "$KUBECONFIG comes before a local cluster", env: "f", runs: true, load: is(prod), want: "kubernetes",
			note: "Looking at cluster prod, of $KUBECONFIG. A local cluster runs too: --local looks at that.",
		},
		{name: "--local comes before all", wish: wish{local: true}, env: "f", runs: true, load: is(prod), want: "/st"},
		{name: "--state comes before all, also if nothing runs there", wish: wish{stated: true}, env: "f", load: is(prod), want: "/st"},
		{name: "--context comes before a local cluster, and needs no words", wish: wish{context: "prod"}, runs: true, load: is(prod), want: "kubernetes"},
		{name: "--kubeconfig too", wish: wish{kubeconfig: "f"}, env: "g", runs: true, load: is(prod), want: "kubernetes"},
		{name: "the kubeconfig of ambit local proxy is the local cluster", env: "f", runs: true, load: is(gate), want: "/elsewhere"},
		{name: "also as the user's own", load: is(gate), want: "/elsewhere"},
		{name: "both named", wish: wish{local: true, context: "prod"}, load: is(prod), usage: true},
		{name: "nothing anywhere", load: none},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.wish.state = "/st"
			conf, state, note, err := c.wish.choose(surroundings{env: c.env, runs: func(string) bool { return c.runs }, load: c.load})
			got := state
			if conf != nil {
				got = "kubernetes"
			}
			if got != c.want || note != c.note || (err != nil) != (c.want == "") || errors.As(err, new(usageError)) != c.usage {
				t.Errorf("%q, note %q, %v", got, note, err)
			}
		})
	}
}
