package delta

import (
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/ambit-mesh/ambit/api/discovery"
	"github.com/ambit-mesh/ambit/internal/testkit/script"
)

// world is the resources that there are.
type world map[string]Resource

func (w world) Names() iter.Seq[string] { return maps.Keys(w) }

func (w world) Lookup(name string) (Resource, bool) {
	r, ok := w[name]
	return r, ok
}

func (w world) Aliased(alias string) (names []string) {
	for _, r := range w {
		if slices.Contains(r.Aliases, alias) || slices.Contains(r.With, alias) {
			names = append(names, r.Name)
		}
	}
	slices.Sort(names)
	return names
}

// resource reads name@version:alias,alias+with,with.
func resource(word string) Resource {
	word, with, _ := strings.Cut(word, "+")
	word, aliases, _ := strings.Cut(word, ":")
	name, version, _ := strings.Cut(word, "@")
	r := Resource{Name: name, Version: version}
	if aliases != "" {
		r.Aliases = strings.Split(aliases, ",")
	}
	if with != "" {
		r.With = strings.Split(with, ",")
	}
	return r
}

// A transcript has a section "server" or "client". Its lines that begin with > or < are what the machine said after
// the line above: the test plays the others and compares. `go test -update` rewrites them.
//
//	set a@1:alias,alias+b  a resource is there now         drop a        a resource is gone
//	request WORDS         the server receives: +sub -unsub have=a@1 ack=nonce nack=nonce,why
//	subscribe a…          of the client                    unsubscribe a…
//	response WORDS        the client receives: nonce a@1 -b
//	ack nonce             of the client                    nack nonce why refused…
//	reset                 the stream ends                  status, holding a
func TestTranscripts(t *testing.T) {
	script.Run(t, "testdata/*.txtar", func(t *testing.T, f *script.File) {
		for _, section := range f.Sections() {
			var play func(verb string, words []string) []string
			switch section {
			case "server":
				play = server(t)
			case "client":
				play = client(t, false)
			case "client on demand":
				play = client(t, true)
			default:
				t.Fatalf("section %q is neither a server nor a client", section)
			}
			var out strings.Builder
			for line := range strings.Lines(f.Text(section)) {
				words := strings.Fields(line)
				if len(words) > 0 && (words[0] == "<" || words[0] == ">" || words[0] == "=") {
					continue
				}
				out.WriteString(line)
				if len(words) == 0 || words[0] == "#" {
					continue
				}
				for _, said := range play(words[0], words[1:]) {
					out.WriteString(said + "\n")
				}
			}
			f.Want(section, out.String())
		}
	})
}

func server(t *testing.T) func(string, []string) []string {
	w, s := world{}, NewServer("T")
	return func(verb string, words []string) []string {
		switch verb {
		case "set":
			for _, word := range words {
				r := resource(word)
				w[r.Name] = r
				s.Changed(r.Name)
			}
		case "drop":
			for _, name := range words {
				delete(w, name)
				s.Changed(name)
			}
		case "request":
			if err := s.Receive(request(words)); err != nil {
				return []string{"= error: " + err.Error()}
			}
		case "reset":
			s = NewServer("T")
			return nil
		case "status":
			st := s.Status()
			return []string{fmt.Sprintf("= sent %q acked %q nack %q outstanding %v held %d", st.Sent, st.Acked, st.Nack, st.Outstanding, st.Held)}
		case "holding":
			version, accepted := s.Holding(words[0])
			return []string{fmt.Sprintf("= version %q accepted %v", version, accepted)}
		default:
			t.Fatalf("unknown verb %q", verb)
		}
		if r := s.Next(w); r != nil {
			return []string{"< " + saidResponse(r)}
		}
		return nil
	}
}

func request(words []string) *Request {
	r := &Request{TypeUrl: "T"}
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch {
		case word[0] == '+':
			r.ResourceNamesSubscribe = append(r.ResourceNamesSubscribe, word[1:])
		case word[0] == '-':
			r.ResourceNamesUnsubscribe = append(r.ResourceNamesUnsubscribe, word[1:])
		case key == "type":
			r.TypeUrl = value
		case key == "have":
			if r.InitialResourceVersions == nil {
				r.InitialResourceVersions = map[string]string{}
			}
			x := resource(value)
			r.InitialResourceVersions[x.Name] = x.Version
		case key == "ack":
			r.ResponseNonce = value
		case key == "nack":
			nonce, why, _ := strings.Cut(value, ",")
			r.ResponseNonce, r.ErrorDetail = nonce, &discovery.Status{Code: 3, Message: why}
		}
	}
	return r
}

func saidResponse(r *Response) string {
	s := r.Nonce
	for _, x := range r.Resources {
		s += fmt.Sprintf(" %s@%s", x.Name, x.Version)
	}
	for _, n := range r.RemovedResources {
		s += " -" + n
	}
	return s
}

func client(t *testing.T, onDemand bool) func(string, []string) []string {
	c := NewClient("T", onDemand)
	return func(verb string, words []string) (said []string) {
		switch verb {
		case "subscribe":
			c.Subscribe(words...)
		case "unsubscribe":
			c.Unsubscribe(words...)
		case "response":
			r := &Response{TypeUrl: "T", Nonce: words[0]}
			for _, word := range words[1:] {
				if word[0] == '-' {
					r.RemovedResources = append(r.RemovedResources, word[1:])
					continue
				}
				x := resource(word)
				r.Resources = append(r.Resources, &discovery.Resource{Name: x.Name, Version: x.Version, Aliases: x.Aliases})
			}
			upsert, remove := c.Receive(r)
			line := "= told"
			for _, u := range upsert {
				line += fmt.Sprintf(" %s@%s", u.Name, u.Version)
			}
			for _, n := range remove {
				line += " -" + n
			}
			said = append(said, line)
		case "ack":
			c.Ack(words[0])
		case "nack":
			c.Nack(words[0], words[1], words[2:]...)
		case "reset":
			c.Reset()
			return nil
		case "start":
		default:
			t.Fatalf("unknown verb %q", verb)
		}
		for r := c.Next(); r != nil; r = c.Next() {
			said = append(said, "> "+saidRequest(r))
		}
		return said
	}
}

func saidRequest(r *Request) string {
	var words []string
	for _, n := range r.ResourceNamesSubscribe {
		words = append(words, "+"+n)
	}
	for _, n := range r.ResourceNamesUnsubscribe {
		words = append(words, "-"+n)
	}
	for _, n := range slices.Sorted(maps.Keys(r.InitialResourceVersions)) {
		words = append(words, "have="+n+"@"+r.InitialResourceVersions[n])
	}
	switch {
	case r.ErrorDetail != nil:
		words = append(words, "nack="+r.ResponseNonce+","+r.ErrorDetail.Message)
	case r.ResponseNonce != "":
		words = append(words, "ack="+r.ResponseNonce)
	}
	if len(words) == 0 {
		return "(everything)"
	}
	return strings.Join(words, " ")
}
