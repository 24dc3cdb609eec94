package delta

import (
	"fmt"
	"iter"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/ambit-mesh/ambit/api/discovery"
)

type view map[string]Resource

func (v view) Names() iter.Seq[string] { return maps.Keys(v) }

func (v view) Lookup(name string) (Resource, bool) {
	if r, ok := v[name]; ok {
		return r, true
	}
	for _, r := range v {
		for _, a := range r.Aliases {
			if a == name {
				return r, true
			}
		}
	}
	return Resource{}, false
}

func (v view) set(name, version string, aliases ...string) {
	v[name] = Resource{Name: name, Version: version, Aliases: aliases}
}

// said is a response in short: nonce, resources with versions, removals.
func said(r *Response) string {
	if r == nil {
		return "-"
	}
	s := r.Nonce + ":"
	for _, x := range r.Resources {
		s += fmt.Sprintf(" %s@%s", x.Name, x.Version)
	}
	for _, n := range r.RemovedResources {
		s += " -" + n
	}
	return s
}

func expect(t *testing.T, what string, got *Response, want string) {
	t.Helper()
	if s := said(got); s != want {
		t.Errorf("%s: %q, want %q", what, s, want)
	}
}

func ack(nonce string) *Request { return &Request{ResponseNonce: nonce} }

func TestWildcard(t *testing.T) {
	v, s := view{}, NewServer("T")
	v.set("a", "1")
	expect(t, "before any request", s.Next(v), "-")
	s.Receive(&Request{})
	expect(t, "first", s.Next(v), "1: a@1")
	v.set("b", "1")
	s.Changed("b")
	expect(t, "outstanding", s.Next(v), "-")
	v.set("b", "2")
	s.Changed("b")
	delete(v, "a")
	s.Changed("a")
	s.Receive(ack("0"))
	expect(t, "stale nonce", s.Next(v), "-")
	s.Receive(ack("1"))
	expect(t, "coalesced", s.Next(v), "2: b@2 -a")
	s.Receive(&Request{ResponseNonce: "2", ErrorDetail: &discovery.Status{Message: "no"}})
	if st := s.Status(); st.Nack != "no" || st.Acked != "1" || st.Sent != "2" {
		t.Errorf("status %+v", st)
	}
	s.Changed("b")
	expect(t, "refused and unchanged", s.Next(v), "-")
	v.set("b", "3")
	s.Changed("b")
	expect(t, "refused, then changed", s.Next(v), "3: b@3")
	s.Receive(ack("3"))
	if st := s.Status(); st.Nack != "" || st.Held != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestEmptyWildcardIsStillAnswered(t *testing.T) {
	s := NewServer("T")
	s.Receive(&Request{})
	expect(t, "empty", s.Next(view{}), "1:")
	s.Receive(ack("1"))
	expect(t, "only once", s.Next(view{}), "-")
}

func TestResumptionSendsOnlyWhatChanged(t *testing.T) {
	v, s := view{}, NewServer("T")
	v.set("same", "1")
	v.set("newer", "2")
	s.Receive(&Request{InitialResourceVersions: map[string]string{"same": "1", "newer": "1", "gone": "1"}})
	expect(t, "resumed", s.Next(v), "1: newer@2 -gone")
}

func TestOnDemand(t *testing.T) {
	v, s := view{}, NewServer("T")
	v.set("uid1", "1", "net/10.0.0.1")
	s.Receive(&Request{ResourceNamesSubscribe: []string{"*"}, ResourceNamesUnsubscribe: []string{"*"}})
	expect(t, "nothing asked", s.Next(v), "1:")
	s.Receive(ack("1"))
	s.Changed("uid1")
	expect(t, "not asked for", s.Next(v), "-")
	s.Receive(&Request{ResourceNamesSubscribe: []string{"net/10.0.0.1", "net/10.0.0.2"}})
	expect(t, "by alias and unknown", s.Next(v), "2: uid1@1 -net/10.0.0.2")
	s.Receive(ack("2"))
	v.set("uid2", "1", "net/10.0.0.2")
	s.Changed("uid2")
	expect(t, "the unknown appears", s.Next(v), "3: uid2@1")
	s.Receive(ack("3"))
	delete(v, "uid1")
	s.Changed("uid1")
	expect(t, "the known goes", s.Next(v), "4: -uid1")
	s.Receive(ack("4"))
	s.Receive(&Request{ResourceNamesUnsubscribe: []string{"net/10.0.0.2", "uid2"}})
	v.set("uid2", "2", "net/10.0.0.2")
	s.Changed("uid2")
	expect(t, "after unsubscribe", s.Next(v), "-")
}

func TestAskingAgainSendsAgain(t *testing.T) {
	v, s := view{}, NewServer("T")
	v.set("a", "1")
	s.Receive(&Request{ResourceNamesSubscribe: []string{"a"}})
	expect(t, "first", s.Next(v), "1: a@1")
	s.Receive(&Request{ResponseNonce: "1", ResourceNamesSubscribe: []string{"a"}})
	expect(t, "again", s.Next(v), "2: a@1")
}

func TestClientTranscript(t *testing.T) {
	c := NewClient("T", true)
	c.Subscribe("b", "a", "a")
	want := []*Request{{TypeUrl: "T", ResourceNamesSubscribe: []string{"*", "a", "b"}, ResourceNamesUnsubscribe: []string{"*"}}}
	got := drain(c)
	c.Receive(&Response{Resources: []*discovery.Resource{{Name: "a", Version: "1"}, {Name: "b", Version: "7"}}, Nonce: "1"})
	c.Ack("1")
	c.Unsubscribe("b")
	c.Subscribe("c")
	got = append(got, drain(c)...)
	want = append(want, &Request{TypeUrl: "T", ResponseNonce: "1"},
		&Request{TypeUrl: "T", ResourceNamesSubscribe: []string{"c"}, ResourceNamesUnsubscribe: []string{"b"}})
	c.Receive(&Response{Resources: []*discovery.Resource{{Name: "c", Version: "1"}}, Nonce: "2"})
	c.Nack("2", "bad c", "c")
	c.Reset()
	got = append(got, drain(c)...)
	want = append(want, &Request{
		TypeUrl: "T", ResourceNamesSubscribe: []string{"*", "a", "c"}, ResourceNamesUnsubscribe: []string{"*"},
		InitialResourceVersions: map[string]string{"a": "1"},
	})
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func drain(c *Client) (all []*Request) {
	for r := c.Next(); r != nil; r = c.Next() {
		all = append(all, r)
	}
	return all
}

// Whatever is subscribed, lost and resumed, both ends agree once everything is acknowledged.
func FuzzConvergence(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200, 100}, false)
	f.Add([]byte{9, 9, 1, 7, 7, 3, 2}, true)
	f.Fuzz(func(t *testing.T, ops []byte, onDemand bool) {
		v, s, c := view{}, NewServer("T"), NewClient("T", onDemand)
		held := map[string]string{}
		names := []string{"a", "b", "c", "d"}
		exchange := func() {
			for range 50 {
				moved := false
				for r := c.Next(); r != nil; r = c.Next() {
					s.Receive(r)
					moved = true
				}
				if resp := s.Next(v); resp != nil {
					moved = true
					up, down := c.Receive(resp)
					for _, r := range up {
						held[r.Name] = r.Version
					}
					for _, n := range down {
						delete(held, n)
					}
					c.Ack(resp.Nonce)
				}
				if !moved {
					return
				}
			}
			t.Fatal("the two ends never come to rest")
		}
		for i, op := range ops[:min(len(ops), 200)] {
			n := names[int(op>>4)%4]
			switch op % 5 {
			case 0:
				v.set(n, fmt.Sprint(i), "alias/"+n)
				s.Changed(n)
			case 1:
				delete(v, n)
				s.Changed(n)
			case 2:
				c.Subscribe("alias/" + n)
			case 3:
				exchange()
			case 4: // the stream breaks
				c.Reset()
				s = NewServer("T")
			}
		}
		exchange()
		for n, r := range v {
			_, asked := c.named["alias/"+n]
			if _, has := held[n]; (!onDemand || asked) && held[n] != r.Version {
				t.Fatalf("client has %s@%s (%v), server %s", n, held[n], has, r.Version)
			}
		}
		for n := range held {
			if _, ok := v[n]; !ok {
				t.Fatalf("client holds %s, which is gone", n)
			}
		}
	})
}

func FuzzServer(f *testing.F) {
	f.Add([]byte("\x0a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, v := NewServer("T"), view{}
		v.set("a", "1", "x")
		for len(b) > 3 {
			n := min(len(b), int(b[0])+1)
			word := string(b[1:n])
			b = b[n:]
			s.Receive(&Request{ResponseNonce: word, ResourceNamesSubscribe: []string{word}, ResourceNamesUnsubscribe: []string{word + "x"}})
			s.Next(v)
		}
	})
}
