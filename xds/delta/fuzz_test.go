package delta

import (
	"fmt"
	"maps"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/ambit-mesh/ambit/api/discovery"
)

// due is what a subscriber must hold: what it has subscribed to, of what there is.
func (w world) due(all bool, named func(string) bool) map[string]string {
	want := map[string]string{}
	for _, r := range w {
		ok := all || named(r.Name)
		for _, a := range r.Aliases {
			ok = ok || named(a)
		}
		if ok {
			want[r.Name] = r.Version
		}
	}
	return want
}

// Whatever is subscribed, refused, lost and resumed, both ends agree once everything is answered.
func FuzzConvergence(f *testing.F) {
	f.Add([]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 200, 100}, false)
	f.Add([]byte{9, 9, 1, 7, 7, 3, 2, 0x12, 0x22, 0x10, 0x13, 0x24, 0x15, 0x16, 0x33}, true)
	f.Fuzz(func(t *testing.T, ops []byte, onDemand bool) {
		w, s, c := world{}, NewServer("T"), NewClient("T", onDemand)
		held := map[string]string{}
		names := []string{"a", "b", "c", "d"}
		exchange := func(refuse bool) {
			for range 50 {
				moved := false
				for r := c.Next(); r != nil; r = c.Next() {
					if err := s.Receive(r); err != nil {
						t.Fatal(err)
					}
					moved = true
				}
				if resp := s.Next(w); resp != nil {
					moved = true
					if s.Next(w) != nil {
						t.Fatal("two responses outstanding")
					}
					up, down := c.Receive(resp)
					var refused []string
					for _, r := range up {
						if refuse {
							refused = append(refused, r.Name)
						} else {
							held[r.Name] = r.Version
						}
					}
					for _, n := range down {
						delete(held, n)
					}
					if refuse {
						c.Nack(resp.Nonce, "no", refused...)
					} else {
						c.Ack(resp.Nonce)
					}
				}
				if !moved {
					return
				}
			}
			t.Fatal("the two ends never come to rest")
		}
		lose := func() { c.Reset(); s = NewServer("T") }
		for i, op := range ops[:min(len(ops), 200)] {
			n := names[int(op>>4)%4]
			switch op % 8 {
			case 0:
				w[n] = Resource{Name: n, Version: fmt.Sprint(i), Aliases: []string{"alias/" + n, "shared"}}
				s.Changed(n)
			case 1:
				w[n] = Resource{Name: n, Version: fmt.Sprint(i), Aliases: []string{"alias/" + names[i%4]}}
				s.Changed(n)
			case 2:
				delete(w, n)
				s.Changed(n)
			case 3:
				c.Subscribe("alias/"+n, "shared")
			case 4:
				c.Unsubscribe("alias/" + n)
			case 5:
				exchange(false)
			case 6:
				exchange(true)
			case 7:
				lose()
			}
		}
		exchange(false)
		lose() // what was refused comes again with the next stream
		exchange(false)
		want := w.due(!onDemand, func(n string) bool { _, ok := c.named[n]; return ok })
		if !maps.Equal(want, held) {
			t.Fatalf("client holds %v, want %v", held, want)
		}
		for n, v := range want {
			if got, ok := s.Holding(n); got != v || !ok {
				t.Fatalf("server thinks that the client holds %s@%s (accepted %v), want @%s", n, got, ok, v)
			}
		}
		if st := s.Status(); st.Outstanding || st.Nack != "" || st.Held != len(want) || s.refused != 0 {
			t.Fatalf("status at rest: %+v", st)
		}
	})
}

// messages splits foreign bytes into messages, each with its length in one byte.
func messages[M proto.Message](b []byte, make func() M) (all []M) {
	for len(b) > 0 {
		n := min(len(b), int(b[0])+1)
		m := make()
		if proto.Unmarshal(b[1:n], m) == nil {
			all = append(all, m)
		}
		b = b[n:]
	}
	return all
}

func wire(ms ...proto.Message) (all []byte) {
	for _, m := range ms {
		b, err := proto.Marshal(m)
		if err != nil || len(b) > 255 {
			panic(fmt.Sprintf("seed of %d bytes: %v", len(b), err))
		}
		all = append(append(all, byte(len(b))), b...)
	}
	return all
}

// Whatever a client says, the server comes to rest holding what the client has subscribed to.
func FuzzServer(f *testing.F) {
	f.Add(wire(request(nil), request([]string{"ack=1", "+a", "-x"})))
	f.Add(wire(request([]string{"+*", "-*", "have=a@0", "have=gone@1"}), request([]string{"+x", "+x", "nack=1,no"}), request([]string{"-*"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, w := NewServer("T"), world{"a": resource("a@1:x"), "b": resource("b@1:x,y")}
		for _, r := range messages(b, func() *Request { return &Request{} }) {
			r.TypeUrl = "T"
			if err := s.Receive(r); err != nil {
				return
			}
			if s.Next(w) != nil && s.Next(w) != nil {
				t.Fatal("two responses outstanding")
			}
		}
		if !s.began {
			return
		}
		for range 3 {
			if s.awaiting {
				if err := s.Receive(&Request{TypeUrl: "T", ResponseNonce: s.nonceText()}); err != nil {
					t.Fatal(err)
				}
			}
			s.Next(w)
		}
		want := w.due(s.all, s.named.has)
		if len(s.held) != len(want) {
			t.Fatalf("held %v, want %v", s.held, want)
		}
		bytes := 0
		for n := range s.named {
			bytes += len(n)
		}
		if bytes != s.names {
			t.Fatalf("%d bytes of names are counted as %d", bytes, s.names)
		}
	})
}

// Whatever a server says, the client resumes with what it was told last.
func FuzzClient(f *testing.F) {
	f.Add(wire(&Response{Nonce: "1", Resources: []*discovery.Resource{{Name: "a", Version: "1"}}}, &Response{Nonce: "2", RemovedResources: []string{"a", "b"}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		c := NewClient("T", false)
		held := map[string]string{}
		for _, r := range messages(b, func() *Response { return &Response{} }) {
			up, down := c.Receive(r)
			for _, x := range up {
				held[x.Name] = x.Version
			}
			for _, n := range down {
				delete(held, n)
			}
			c.Ack(r.GetNonce())
		}
		c.Reset()
		if got := c.Next().GetInitialResourceVersions(); !maps.Equal(got, held) {
			t.Fatalf("resumes with %v, was told %v", got, held)
		}
	})
}
