package dns

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"golang.org/x/net/dns/dnsmessage"
)

const (
	ttl        = 30      // seconds, as Istio's
	headerSize = 12      // RFC 1035, 4.1.1
	plainSize  = 512     // of an answer over UDP to a client that says nothing, RFC 1035 4.2.1
	mostSize   = 4 << 10 // of a packet over UDP
)

// query is a message of a client. What we do not understand of it we pass on as it is.
type query struct {
	raw      []byte
	header   dnsmessage.Header
	question dnsmessage.Question
	// ours tells that it asks for one name's addresses, which we may know.
	ours bool
	// size is the largest answer over UDP; edns tells that the client has said it.
	size int
	edns bool
}

var errNoQuery = errors.New("no query")

// parse reads a message; the error is of one that deserves no answer.
func parse(raw []byte) (query, error) {
	q := query{raw: raw, size: plainSize}
	var p dnsmessage.Parser
	var err error
	if q.header, err = p.Start(raw); err != nil {
		return q, fmt.Errorf("header: %w", err)
	}
	if q.header.Response {
		return q, errNoQuery // never answered: two servers would answer each other for ever
	}
	questions, err := p.AllQuestions()
	if err != nil || len(questions) != 1 {
		return q, nil
	}
	q.question = questions[0]
	q.readOPT(&p)
	switch q.question.Type {
	case dnsmessage.TypeA, dnsmessage.TypeAAAA:
		q.ours = q.header.OpCode == 0 && q.question.Class == dnsmessage.ClassINET
	}
	return q, nil
}

// readOPT reads the size that the client takes, RFC 6891.
func (q *query) readOPT(p *dnsmessage.Parser) {
	if p.SkipAllAnswers() != nil || p.SkipAllAuthorities() != nil {
		return
	}
	for {
		h, err := p.AdditionalHeader()
		if err != nil {
			return
		}
		if h.Type == dnsmessage.TypeOPT {
			q.edns = true
			q.size = min(max(int(h.Class), plainSize), mostSize)
			return
		}
		if p.SkipAdditional() != nil {
			return
		}
	}
}

// protocol is the transport of a query.
type protocol string

const (
	udp protocol = "udp"
	tcp protocol = "tcp"
)

// answer is the message that gives a name's addresses of the family asked for; of the other, it says that the name
// exists and has none.
func (q *query) answer(f found, via protocol) ([]byte, error) {
	var addrs []netip.Addr
	for _, a := range f.Addrs {
		if a.Is4() == (q.question.Type == dnsmessage.TypeA) {
			addrs = append(addrs, a)
		}
	}
	alias := f.Alias
	if len(addrs) == 0 {
		alias = "" // the name exists, and that is all
	}
	rand.Shuffle(len(addrs), func(i, j int) { addrs[i], addrs[j] = addrs[j], addrs[i] })
	out, err := q.build(dnsmessage.RCodeSuccess, false, func(b *dnsmessage.Builder) error { return q.records(b, alias, addrs) })
	if err == nil && (via == udp && len(out) > q.size || len(out) > 1<<16-1) {
		return q.build(dnsmessage.RCodeSuccess, true, nil) // the client asks again over TCP
	}
	return out, err
}

// failed is the message that says that an answer could not be had.
func (q *query) failed(code dnsmessage.RCode) ([]byte, error) { return q.build(code, false, nil) }

func (q *query) build(code dnsmessage.RCode, cut bool, answers func(*dnsmessage.Builder) error) ([]byte, error) {
	b := dnsmessage.NewBuilder(make([]byte, 0, plainSize), dnsmessage.Header{
		ID: q.header.ID, Response: true, OpCode: q.header.OpCode, Authoritative: answers != nil, Truncated: cut,
		RecursionDesired: q.header.RecursionDesired, RecursionAvailable: true, RCode: code,
	})
	b.EnableCompression()
	if q.question.Name.Length > 0 {
		if err := errors.Join(b.StartQuestions(), b.Question(q.question)); err != nil {
			return nil, fmt.Errorf("repeat the question: %w", err)
		}
	}
	if answers != nil {
		if err := answers(&b); err != nil {
			return nil, fmt.Errorf("write the answers: %w", err)
		}
	}
	if q.edns {
		var h dnsmessage.ResourceHeader
		if err := errors.Join(b.StartAdditionals(), h.SetEDNS0(mostSize, dnsmessage.RCodeSuccess, false), b.OPTResource(h, dnsmessage.OPTResource{})); err != nil {
			return nil, fmt.Errorf("write our size: %w", err)
		}
	}
	return b.Finish()
}

func (q *query) records(b *dnsmessage.Builder, alias string, addrs []netip.Addr) error {
	if err := b.StartAnswers(); err != nil {
		return err
	}
	h := dnsmessage.ResourceHeader{Name: q.question.Name, Class: dnsmessage.ClassINET, TTL: ttl}
	if alias != "" {
		name, err := dnsmessage.NewName(alias + ".")
		if err != nil {
			return err
		}
		if err := b.CNAMEResource(h, dnsmessage.CNAMEResource{CNAME: name}); err != nil {
			return err
		}
		h.Name = name
	}
	for _, a := range addrs {
		var err error
		if a.Is4() {
			err = b.AResource(h, dnsmessage.AResource{A: a.As4()})
		} else {
			err = b.AAAAResource(h, dnsmessage.AAAAResource{AAAA: a.As16()})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// answers reports whether a message is an answer to a query that we sent with an id.
func (q *query) answers(id uint16, message []byte) bool {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || !h.Response || h.ID != id {
		return false
	}
	mine := question(q.raw)
	if theirs := question(message); theirs != nil && mine != nil {
		return bytes.EqualFold(mine, theirs)
	}
	return h.RCode != dnsmessage.RCodeSuccess || mine == nil // one that refuses may leave out the question
}

// question is the part of a message that holds its only question; nil if it has not one that can be read.
func question(message []byte) []byte {
	if len(message) < headerSize || message[4] != 0 || message[5] != 1 {
		return nil
	}
	for at := headerSize; at < len(message); at += int(message[at]) + 1 {
		if message[at] > 63 {
			return nil
		}
		if message[at] == 0 {
			if end := at + 5; end <= len(message) {
				return message[headerSize:end]
			}
			return nil
		}
	}
	return nil
}
