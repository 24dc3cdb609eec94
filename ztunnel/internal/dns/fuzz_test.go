package dns

import (
	"errors"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// A packet of foreign bytes is answered with a message that can be read, or not at all.
func FuzzQuery(f *testing.F) {
	m := dnsmessage.Message{Header: dnsmessage.Header{ID: 7, RecursionDesired: true}, Questions: []dnsmessage.Question{{
		Name: dnsmessage.MustNewName("a.b.default.svc.cluster.local."), Type: dnsmessage.TypeA, Class: dnsmessage.ClassINET,
	}}}
	ok, err := m.Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ok)
	f.Add(ok[:20])
	names := known{"*.cluster.local": "10.0.0.1 fd00::1", "a.b": "10.0.0.2"}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := parse(raw)
		if err != nil {
			return
		}
		if q.answers(q.header.ID, raw) {
			t.Error("a query passes for an answer")
		}
		found, ok := found{}, false
		if q.ours {
			found, ok = lookup(names, client{Namespace: "default", Domain: "cluster.local"}, q.question.Name.String())
		}
		out, err := q.failed(dnsmessage.RCodeServerFailure)
		if ok {
			out, err = q.answer(found, udp)
		}
		if err != nil {
			return
		}
		var back dnsmessage.Message
		if err := back.Unpack(out); err != nil || back.ID != q.header.ID || !back.Response || len(out) > q.size {
			t.Errorf("%d bytes of %d, %v: %+v", len(out), q.size, err, back.Header)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{0, 7, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1})
	q := query{raw: []byte{0, 9, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1}}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if q.answers(7, raw) && (len(raw) < headerSize || raw[1] != 7 || raw[2]&0x80 == 0) {
			t.Errorf("taken for an answer: %x", raw)
		}
	})
}

// What a resolver answers for an endpoint's host name is foreign, too.
func FuzzAddresses(f *testing.F) {
	b := dnsmessage.NewBuilder(nil, dnsmessage.Header{Response: true})
	name := dnsmessage.MustNewName("a.")
	if err := errors.Join(b.StartAnswers(), b.AResource(dnsmessage.ResourceHeader{Name: name, Class: dnsmessage.ClassINET, TTL: 1 << 31}, dnsmessage.AResource{A: [4]byte{1, 2, 3, 4}})); err != nil {
		f.Fatal(err)
	}
	raw, err := b.Finish()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		addrs, ttl, cut, err := readAddresses(raw)
		if err != nil && len(addrs) > 0 || cut && len(addrs) > 0 || ttl > maxTTL || ttl < 0 {
			t.Errorf("%v for %s, cut %v, %v", addrs, ttl, cut, err)
		}
	})
}
