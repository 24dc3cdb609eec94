package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
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
	mu    sync.Mutex // guards w
	w     io.Writer
	lines sync.Pool // of *line
}

// line is one line while it is written.
type line struct {
	b            []byte
	scope        string
	spans, attrs []slog.Attr
}

// NewHandler makes a handler for slog.New.
func NewHandler(w io.Writer, format Format, levels *Levels) *Handler {
	return &Handler{out: &output{w: w, lines: sync.Pool{New: func() any { return &line{b: make([]byte, 0, 1<<10)} }}}, format: format, levels: levels}
}

// Enabled reports whether the handler's scope logs this level.
func (h *Handler) Enabled(_ context.Context, level slog.Level) bool {
	return h.levels.Enabled(h.scope, level)
}

// WithAttrs adds attributes; a Scope or a Span takes its own place in the line.
func (h *Handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	next := *h
	l := line{scope: h.scope, spans: slices.Clip(h.spans), attrs: slices.Clip(h.attrs)}
	for _, a := range attrs {
		l.add(h.group, a)
	}
	next.scope, next.spans, next.attrs = l.scope, l.spans, l.attrs
	return &next
}

func (l *line) add(group string, a slog.Attr) {
	a.Value = a.Value.Resolve()
	switch {
	case a.Key == scopeKey && group == "":
		l.scope = a.Value.String()
	case strings.HasPrefix(a.Key, spanPrefix):
		l.spans = append(l.spans, slog.Attr{Key: a.Key[len(spanPrefix):], Value: a.Value})
	case a.Value.Kind() == slog.KindGroup:
		if a.Key != "" {
			group += a.Key + "."
		}
		for _, inner := range a.Value.Group() {
			l.add(group, inner)
		}
	default:
		if group != "" {
			a.Key = group + a.Key
		}
		l.attrs = append(l.attrs, a)
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
	l, ok := h.out.lines.Get().(*line)
	if !ok {
		l = &line{}
	}
	defer h.out.lines.Put(l)
	l.b, l.scope = l.b[:0], h.scope
	l.spans, l.attrs = append(l.spans[:0], h.spans...), append(l.attrs[:0], h.attrs...)
	r.Attrs(func(a slog.Attr) bool {
		l.add(h.group, a)
		return true
	})
	if l.scope != h.scope && !h.levels.Enabled(l.scope, r.Level) {
		return nil
	}
	switch h.format {
	case JSON:
		l.json(r)
	case Walkthrough:
		l.walkthrough(r)
	default:
		l.text(r)
	}
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	_, err := h.out.w.Write(l.b)
	return err
}
