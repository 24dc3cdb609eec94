// Package analyze finds what is valid in objects and still most likely a mistake, under the codes of Istio's analyzers
// where they have one (IST…), and under codes of its own for what only an ambient mesh can get wrong (AMB…).
package analyze

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ambit-mesh/ambit/control/source/kinds"
)

// Level is how bad a finding is.
type Level int

// The levels, mildest first.
const (
	Info Level = iota
	Warning
	Error
)

func (l Level) String() string { return [...]string{"Info", "Warning", "Error"}[l] }

// MarshalText writes the level's word.
func (l Level) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// ParseLevel reads a level's word.
func ParseLevel(word string) (Level, error) {
	for _, l := range []Level{Info, Warning, Error} {
		if strings.EqualFold(word, l.String()) {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is no level: want Info, Warning or Error", word)
}

// Message is one finding.
type Message struct {
	Code  string `json:"code"`
	Level Level  `json:"level"`
	// Origin is "Kind name.namespace", Reference "file:line" where the object came from a file.
	Origin    string `json:"origin,omitempty"`
	Reference string `json:"reference,omitempty"`
	Text      string `json:"message"`
	// Hint says how to mend it.
	Hint string `json:"hint,omitempty"`

	namespace string
	file      string
	line      int
}

// Line is the finding without its remedy.
func (m Message) Line() string {
	m.Hint = ""
	return m.String()
}

func (m Message) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s [%s] ", m.Level, m.Code)
	if at := strings.TrimSpace(m.Origin + " " + m.Reference); at != "" {
		fmt.Fprintf(&b, "(%s) ", at)
	}
	b.WriteString(m.Text)
	if m.Hint != "" {
		b.WriteString(" → " + m.Hint)
	}
	return b.String()
}

// Namespace of the object that the finding is about; "" for one of the whole cluster.
func (m Message) Namespace() string { return m.namespace }

// FromFile tells whether the object came from a file.
func (m Message) FromFile() bool { return m.file != "" }

// Input is what is analyzed together.
type Input struct {
	Objects []kinds.Located
	// Live says that the objects are a whole cluster, or files on top of one: then what is not among them does not exist.
	Live bool
	// Unseen are kinds of which a cluster did not tell: nothing is said of what is not there of them.
	Unseen []string
	// TrustDomain is the mesh's; "" is the one that it has if nobody says.
	TrustDomain string
}

// Reads tells whether objects of a kind of a live cluster have a say in any finding.
func Reads(k kinds.Kind) bool {
	switch k.Group {
	case "":
		return slices.Contains([]string{"Namespace", "Pod", "Service", "ServiceAccount", "Secret"}, k.Kind)
	case "apps", "batch", "gateway.networking.k8s.io":
		return true
	}
	return strings.HasSuffix(k.Group, ".istio.io")
}

// Matters tells whether an object of a live cluster is to be looked at: what a controller made for another that is here,
// and pods that have ended, are not.
func Matters(o kinds.Object) bool {
	switch o := o.(type) {
	case *corev1.Pod:
		return o.Status.Phase != corev1.PodSucceeded && o.Status.Phase != corev1.PodFailed
	case *appsv1.ReplicaSet, *batchv1.Job:
		return metav1.GetControllerOf(o) == nil
	}
	return true
}

// Check is one search for mistakes.
type Check struct {
	Name  string
	Codes []string
	About string
	run   func(*analysis)
}

// Checks lists every search.
func Checks() []Check {
	return []Check{
		{"schema", []string{"IST0106"}, "what the control plane would refuse", schema},
		{"meta", []string{"IST0107", "IST0108", "IST0123", "IST0125"}, "annotations and labels of Istio that are unknown, misplaced or have no such value", meta},
		{"service", []string{"IST0118", "IST0116", "IST0137"}, "names of ports, and services that contradict each other about a workload", services},
		{"gateway", []string{"IST0101", "IST0145", "IST0161", "IST0162"}, "gateways: their workload, its ports, their certificates, others like them", gateways},
		{"virtualservice", []string{"IST0101", "IST0109", "IST0112", "IST0130", "IST0131", "IST0132"}, "where VirtualServices lead, and rules that nothing reaches", virtualServices},
		{"destinationrule", []string{"IST0173", "IST0174"}, "hosts and subsets that stand for nothing", destinationRules},
		{"serviceentry", []string{"IST0177"}, "entries that contradict each other", serviceEntries},
		{"policy", []string{"IST0101", "IST0127", "IST0166", "IST0167", "AMB0001", "AMB0003", "AMB0007"}, "policies that select nobody, name nobody, or cannot be enforced where they are", policies},
		{"enrolment", []string{"AMB0002", "AMB0004", "AMB0006", "AMB0009", "AMB0010"}, "who is in the mesh, where policies and callers expect it", enrolment},
		{"waypoint", []string{"IST0101", "AMB0005", "AMB0008"}, "waypoints that are named and do not exist, and configuration that only a waypoint would heed", waypoints},
		{"parts", []string{"AMB0011", "AMB0012", "AMB0013"}, "parts of the mesh itself that do not run where they are needed", parts},
		{"status", []string{"IST0171"}, "conditions that the control plane reports as not met", conditions},
	}
}

// Codes lists every code, once.
func Codes() []string {
	var all []string
	for _, c := range Checks() {
		all = append(all, c.Codes...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// analysis is one run.
type analysis struct {
	world
	found []Message
}

// Run analyzes objects together; templates of workloads stand for their pods.
func Run(in Input) []Message {
	a := &analysis{world: know(in)}
	for _, c := range Checks() {
		c.run(a)
	}
	slices.SortStableFunc(a.found, func(x, y Message) int {
		return cmp.Or(cmp.Compare(y.Level, x.Level), cmp.Compare(x.Code, y.Code), cmp.Compare(x.file, y.file), cmp.Compare(x.line, y.line),
			cmp.Compare(x.Origin, y.Origin), cmp.Compare(x.Text, y.Text))
	})
	return slices.Compact(a.found)
}

// finding is what a check says about a place of an object.
type finding struct {
	level      Level
	code, path string
	text, hint string
}

func (a *analysis) add(l kinds.Located, f finding) {
	if suppressed(l.Object, f.code) {
		return
	}
	m := Message{Level: f.level, Code: f.code, Text: f.text, Hint: f.hint, namespace: l.Object.GetNamespace()}
	m.Origin = kinds.Of(l.Object).Kind + " " + l.Object.GetName()
	if m.namespace != "" {
		m.Origin += "." + m.namespace
	}
	if l.File != "" {
		m.file, m.line = l.File, l.LineOf(f.path)
		m.Reference = fmt.Sprintf("%s:%d", m.file, m.line)
	}
	a.found = append(a.found, m)
}

// suppressed tells whether an object asks to be left alone about a code, by the annotation that Istio has for it.
func suppressed(o kinds.Object, code string) bool {
	const annotation = "galley.istio.io/analyze-suppress"
	for _, word := range strings.Split(o.GetAnnotations()[annotation], ",") {
		if word = strings.TrimSpace(word); word == code || word == "*" {
			return true
		}
	}
	return false
}

// FromProblem is the finding of a file that cannot be read.
func FromProblem(p kinds.Problem) Message {
	m := Message{Level: Error, Code: "IST0106", Text: "Schema validation error: " + about(p), Hint: p.Hint, file: p.File, line: p.Line}
	m.Reference = fmt.Sprintf("%s:%d", p.File, p.Line)
	return m
}

// about is what is wrong, without file, line and hint.
func about(p kinds.Problem) string {
	p.File, p.Line, p.Hint = "", 0, ""
	return p.Error()
}

func schema(a *analysis) {
	for _, l := range a.all {
		for _, p := range kinds.Validate(l.Object) {
			a.add(l, finding{Error, "IST0106", p.Path, "Schema validation error: " + about(p), p.Hint})
		}
	}
}
