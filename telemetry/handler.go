package telemetry

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ambit-mesh/ambit/identity"
)

// Format is the shape of log lines.
type Format uint8

// The formats. Text is tab-separated; Walkthrough puts spans in braces before the message.
const (
	Text Format = iota
	JSON
	Walkthrough
)

// ParseFormat reads the value of LOG_FORMAT; empty means Text.
func ParseFormat(s string) (Format, error) {
	switch s {
	case "", "text", "plain":
		return Text, nil
	case "json":
		return JSON, nil
	case "walkthrough", "legacy":
		return Walkthrough, nil
	}
	return Text, fmt.Errorf("log format %q: want text, json or walkthrough", s)
}

const (
	scopeKey   = "scope"
	spanPrefix = "span:"
)

// Scope is the attribute that names the part of the program that logs.
func Scope(name string) slog.Attr { return slog.String(scopeKey, name) }

// Span is the attribute that puts a line into a span, such as the connection it belongs to.
func Span(name string, attrs ...slog.Attr) slog.Attr {
	return slog.Attr{Key: spanPrefix + name, Value: slog.GroupValue(attrs...)}
}

// Handler writes log lines in one of the formats. Foreign text cannot forge a line: strings are quoted.
type Handler struct {
	out    *output
	format Format
	levels *Levels
	scope  string
	spans  []slog.Attr
	attrs  []slog.Attr
	group  string
}

type output struct {
	mu sync.Mutex // guards w
	w  io.Writer
}

// NewHandler makes a handler for slog.New.
func NewHandler(w io.Writer, format Format, levels *Levels) *Handler {
	return &Handler{out: &output{w: w}, format: format, levels: levels}
}

// Enabled reports whether the handler's scope logs this level.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	return h.levels.Enabled(h.scope, level)
}

// WithAttrs adds attributes; a Scope or a Span takes its own place in the line.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	next.spans, next.attrs = h.spans[:len(h.spans):len(h.spans)], h.attrs[:len(h.attrs):len(h.attrs)]
	for _, a := range attrs {
		next.add(a)
	}
	return &next
}

func (h *Handler) add(a slog.Attr) {
	switch {
	case a.Key == scopeKey && h.group == "":
		h.scope = a.Value.String()
	case strings.HasPrefix(a.Key, spanPrefix):
		h.spans = append(h.spans, slog.Attr{Key: a.Key[len(spanPrefix):], Value: a.Value})
	default:
		if h.group != "" {
			a.Key = h.group + a.Key
		}
		h.attrs = append(h.attrs, a)
	}
}

// WithGroup prefixes the keys that follow.
func (h *Handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	next := *h
	next.group = h.group + name + "."
	return &next
}

// Handle writes one line.
func (h *Handler) Handle(_ context.Context, r slog.Record) error {
	line := *h
	line.attrs, line.spans = h.attrs[:len(h.attrs):len(h.attrs)], h.spans[:len(h.spans):len(h.spans)]
	r.Attrs(func(a slog.Attr) bool {
		if a.Value.Kind() == slog.KindGroup && !strings.HasPrefix(a.Key, spanPrefix) {
			for _, inner := range a.Value.Group() {
				line.add(slog.Attr{Key: a.Key + "." + inner.Key, Value: inner.Value})
			}
			return true
		}
		line.add(a)
		return true
	})
	if line.scope != h.scope && !h.levels.Enabled(line.scope, r.Level) {
		return nil
	}
	var b bytes.Buffer
	switch h.format {
	case JSON:
		line.json(&b, r)
	case Walkthrough:
		line.walkthrough(&b, r)
	default:
		line.text(&b, r)
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(b.Bytes())
	return err
}

const timeLayout = "2006-01-02T15:04:05.000000Z"

func (h *Handler) text(b *bytes.Buffer, r slog.Record) {
	scope := h.scope
	if scope == "" {
		scope = "ambit"
	}
	fmt.Fprintf(b, "%s\t%s\t%s", r.Time.UTC().Format(timeLayout), levelName(r.Level), scope)
	for _, s := range h.spans {
		b.WriteByte(':')
		writeSpan(b, s)
	}
	b.WriteByte('\t')
	b.WriteString(oneLine(r.Message))
	for i, a := range h.attrs {
		b.WriteByte("\t "[min(i, 1)])
		writeAttr(b, a)
	}
	b.WriteByte('\n')
}

func (h *Handler) walkthrough(b *bytes.Buffer, r slog.Record) {
	fmt.Fprintf(b, "%s %5s ", r.Time.UTC().Format(timeLayout), strings.ToUpper(levelName(r.Level)))
	for i, s := range h.spans {
		if i > 0 {
			b.WriteByte(':')
		}
		writeSpan(b, s)
	}
	if len(h.spans) > 0 {
		b.WriteString(": ")
	}
	if h.scope != "" {
		b.WriteString("ztunnel::" + h.scope + ": ")
	}
	b.WriteString(oneLine(r.Message))
	for _, a := range h.attrs {
		b.WriteByte(' ')
		writeAttr(b, a)
	}
	b.WriteByte('\n')
}

func writeSpan(b *bytes.Buffer, s slog.Attr) {
	b.WriteString(s.Key)
	b.WriteByte('{')
	for i, a := range s.Value.Group() {
		if i > 0 {
			b.WriteByte(' ')
		}
		writeAttr(b, a)
	}
	b.WriteByte('}')
}

func writeAttr(b *bytes.Buffer, a slog.Attr) {
	b.WriteString(oneLine(a.Key))
	b.WriteByte('=')
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		b.WriteString(strconv.Quote(v.String()))
	case slog.KindDuration:
		b.WriteString(v.Duration().Round(time.Microsecond).String())
	case slog.KindAny:
		switch x := v.Any().(type) {
		case netip.AddrPort, netip.Addr, bare:
			fmt.Fprint(b, x)
		case identity.ID:
			b.WriteString(strconv.Quote(x.String()))
		default:
			b.WriteString(strconv.Quote(fmt.Sprint(x)))
		}
	default:
		b.WriteString(v.String())
	}
}

// bare is text of our own making that is written without quotes.
type bare string

// oneLine keeps control characters out of a line's fixed parts.
func oneLine(s string) string {
	if strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' || r == '\u0085' }) < 0 {
		return s
	}
	q := strconv.Quote(s)
	return q[1 : len(q)-1]
}

func (h *Handler) json(b *bytes.Buffer, r slog.Record) {
	b.WriteByte('{')
	field := func(key string, value any) {
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		k, kerr := json.Marshal(key)
		v, verr := json.Marshal(value)
		if kerr != nil || verr != nil {
			k, v = []byte(`"unprintable"`), []byte("true")
		}
		b.Write(k)
		b.WriteByte(':')
		b.Write(v)
	}
	field("level", levelName(r.Level))
	field("time", r.Time.UTC().Format(timeLayout))
	field("scope", h.scope)
	field("message", r.Message)
	for _, s := range h.spans {
		for _, a := range s.Value.Group() {
			field(s.Key+"."+a.Key, jsonValue(a.Value))
		}
	}
	for _, a := range h.attrs {
		field(a.Key, jsonValue(a.Value))
	}
	b.WriteString("}\n")
}

func jsonValue(v slog.Value) any {
	v = v.Resolve()
	switch v.Kind() {
	case slog.KindDuration:
		return v.Duration().String()
	case slog.KindInt64, slog.KindUint64, slog.KindBool, slog.KindFloat64, slog.KindString:
		return v.Any()
	}
	switch x := v.Any().(type) {
	case netip.AddrPort, netip.Addr, identity.ID, []string:
		return x
	}
	return fmt.Sprint(v.Any())
}
