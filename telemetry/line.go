package telemetry

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ambit-mesh/ambit/identity"
)

const timeLayout = "2006-01-02T15:04:05.000000Z"

// unscoped is the scope of lines that name none.
const unscoped = "ambit"

func (l *line) put(s string) { l.b = append(l.b, s...) }

func (l *line) time(t time.Time) { l.b = t.UTC().AppendFormat(l.b, timeLayout) }

// text writes the line as Istio's ztunnel does: tabs between its parts.
func (l *line) text(r slog.Record) {
	l.time(r.Time)
	l.put("\t")
	l.put(levelName(r.Level))
	l.put("\t")
	l.put(oneLine(cmp.Or(l.scope, unscoped)))
	for _, s := range l.spans {
		l.put(":")
		l.span(s)
	}
	l.put("\t")
	l.put(oneLine(r.Message))
	for i, a := range l.attrs {
		l.b = append(l.b, "\t "[min(i, 1)])
		l.attr(a)
	}
	l.put("\n")
}

func (l *line) walkthrough(r slog.Record) {
	l.time(r.Time)
	name := levelName(r.Level)
	l.put("      "[:6-len(name)]) // the longest has five letters
	l.put(strings.ToUpper(name))
	l.put(" ")
	for i, s := range l.spans {
		if i > 0 {
			l.put(":")
		}
		l.span(s)
	}
	if len(l.spans) > 0 {
		l.put(": ")
	}
	if l.scope != "" {
		l.put("ztunnel::")
		l.put(oneLine(l.scope))
		l.put(": ")
	}
	l.put(oneLine(r.Message))
	for _, a := range l.attrs {
		l.put(" ")
		l.attr(a)
	}
	l.put("\n")
}

func (l *line) span(s slog.Attr) {
	l.put(oneLine(s.Key))
	l.put("{")
	for i, a := range s.Value.Group() {
		if i > 0 {
			l.put(" ")
		}
		l.attr(a)
	}
	l.put("}")
}

func (l *line) attr(a slog.Attr) {
	l.put(oneLine(a.Key))
	l.put("=")
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		l.quote(v.String())
	case slog.KindInt64:
		l.b = strconv.AppendInt(l.b, v.Int64(), 10)
	case slog.KindUint64:
		l.b = strconv.AppendUint(l.b, v.Uint64(), 10)
	case slog.KindDuration:
		l.put(v.Duration().Round(time.Microsecond).String())
	case slog.KindAny:
		switch x := v.Any().(type) {
		case netip.AddrPort:
			l.b = x.AppendTo(l.b)
		case netip.Addr:
			l.b = x.AppendTo(l.b)
		case bare:
			l.put(oneLine(string(x)))
		case identity.ID:
			l.quote(x.String())
		default:
			l.quote(fmt.Sprint(x))
		}
	default:
		l.put(oneLine(v.String()))
	}
}

// quote writes a string as Go would.
func (l *line) quote(s string) {
	if !plainText(s) {
		l.b = strconv.AppendQuote(l.b, s)
		return
	}
	l.put(`"`)
	l.put(s)
	l.put(`"`)
}

// plainText reports whether a string means itself in every format.
func plainText(s string) bool {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}

// bare is text of our own making that is written without quotes.
type bare string

// oneLine keeps what a terminal would obey out of a line's fixed parts.
func oneLine(s string) string {
	for i := range len(s) {
		if s[i] < ' ' || s[i] >= 0x7f {
			q := strconv.Quote(s)
			return q[1 : len(q)-1]
		}
	}
	return s
}

// json writes the line as an object, its keys in the order of Istio's.
func (l *line) json(r slog.Record) {
	l.put(`{"level":"`)
	l.put(levelName(r.Level))
	l.put(`","time":"`)
	l.time(r.Time)
	l.put(`","scope":`)
	l.quoteJSON(cmp.Or(l.scope, unscoped))
	l.put(`,"message":`)
	l.quoteJSON(r.Message)
	for _, a := range l.attrs {
		l.put(",")
		l.fieldJSON(a)
	}
	for _, s := range l.spans {
		l.put(",")
		l.quoteJSON(s.Key)
		l.put(":{")
		for i, a := range s.Value.Group() {
			if i > 0 {
				l.put(",")
			}
			l.fieldJSON(a)
		}
		l.put("}")
	}
	l.put("}\n")
}

func (l *line) fieldJSON(a slog.Attr) {
	l.quoteJSON(a.Key)
	l.put(":")
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		l.quoteJSON(v.String())
	case slog.KindInt64:
		l.b = strconv.AppendInt(l.b, v.Int64(), 10)
	case slog.KindUint64:
		l.b = strconv.AppendUint(l.b, v.Uint64(), 10)
	case slog.KindBool:
		l.b = strconv.AppendBool(l.b, v.Bool())
	default:
		if a, ok := v.Any().(netip.AddrPort); ok {
			l.b = append(a.AppendTo(append(l.b, '"')), '"')
			return
		}
		l.quoteJSON(v.String())
	}
}

// quoteJSON writes a string of JSON in which nothing is left that a terminal would obey.
func (l *line) quoteJSON(s string) {
	const hex = "0123456789abcdef"
	l.b = append(l.b, '"')
	if plainText(s) {
		l.b = append(append(l.b, s...), '"')
		return
	}
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case c == '"' || c == '\\':
			l.b = append(l.b, '\\', c)
			i++
		case c == '\n':
			l.b = append(l.b, '\\', 'n')
			i++
		case c == '\t':
			l.b = append(l.b, '\\', 't')
			i++
		case c < ' ' || c == 0x7f:
			l.b = append(l.b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			l.b = append(l.b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			switch {
			case r == utf8.RuneError && n == 1:
				l.put(`\ufffd`)
			case !strconv.IsPrint(r) && r < 1<<16:
				l.b = append(l.b, '\\', 'u', hex[r>>12&15], hex[r>>8&15], hex[r>>4&15], hex[r&15])
			case !strconv.IsPrint(r):
				l.put(`\ufffd`) // beyond the first plane there is nothing unprintable that a name needs
			default:
				l.put(s[i : i+n])
			}
			i += n
		}
	}
	l.b = append(l.b, '"')
}
