package telemetry

import (
	"bufio"
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
)

// maxScrapes bounds those at once.
const maxScrapes = 4

// Handler serves all families, as OpenMetrics to a client that accepts it and as text to others.
func (m *Metrics) Handler() http.Handler {
	slots := make(chan struct{}, maxScrapes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			http.Error(w, "too many scrapes at once", http.StatusServiceUnavailable)
			return
		}
		format := expfmt.NewFormat(expfmt.TypeTextPlain)
		if strings.Contains(strings.ToLower(strings.Join(r.Header.Values("Accept"), ",")), expfmt.OpenMetricsType) {
			format = expfmt.FmtOpenMetrics_1_0_0
		}
		w.Header().Set("Content-Type", string(format))
		out := io.Writer(w)
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			if z, err := gzip.NewWriterLevel(w, gzip.BestSpeed); err == nil {
				defer z.Close() // fails only if the client has gone away
				out = z
			}
		}
		b := bufio.NewWriterSize(out, 32<<10)
		defer func() { _ = b.Flush() }() // the same
		if err := m.write(b, format); err != nil {
			_, _ = b.WriteString("# incomplete: " + oneLine(err.Error()) + "\n") // the same
		}
	})
}

// write writes all families. Those of connections are many: they are written here, from labels that are text already.
func (m *Metrics) write(b *bufio.Writer, format expfmt.Format) error {
	all, err := m.registry.Gather()
	if err != nil {
		return err
	}
	e := expfmt.NewEncoder(b, format)
	for _, f := range all {
		if err := e.Encode(f); err != nil {
			return err
		}
	}
	m.TCP.write(b, format.FormatType() == expfmt.TypeOpenMetrics)
	if c, ok := e.(expfmt.Closer); ok {
		return c.Close()
	}
	return nil
}

// Gather is the registry for other readers; the families of connections are not in it.
func (m *Metrics) Gather() prometheus.Gatherer { return m.registry }

// text is the labels as they stand in an exposition.
func (l *labels) text() string {
	var b strings.Builder
	b.Grow(labelCount * 40)
	sep := byte('{')
	for i, name := range labelNames() {
		if l[i] == "" {
			continue
		}
		b.WriteByte(sep)
		sep = ','
		b.WriteString(name)
		b.WriteString(`="`)
		escape(&b, l[i])
		b.WriteByte('"')
	}
	b.WriteByte('}')
	return b.String()
}

// escape writes a label's value; what is no UTF-8 would make the whole scrape invalid.
func escape(b *strings.Builder, s string) {
	for _, r := range s { // an invalid byte is U+FFFD here
		switch r {
		case '\\':
			b.WriteString(`\\`)
		case '"':
			b.WriteString(`\"`)
		case '\n':
			b.WriteString(`\n`)
		default:
			b.WriteRune(r)
		}
	}
}

// writeFamily writes a counter's or a gauge's head and values.
func writeFamily(b *bufio.Writer, name, kind, help string, open bool, values func(yield func(labels string, value uint64) bool)) {
	suffix := ""
	if kind == "counter" {
		suffix = "_total"
	}
	head := name + suffix
	if open {
		head = name // OpenMetrics names a counter without its suffix
	}
	_, _ = b.WriteString("# HELP " + head + " " + help + "\n# TYPE " + head + " " + kind + "\n") // Flush would tell an error
	var number []byte
	for labels, value := range values {
		_, _ = b.WriteString(name)
		_, _ = b.WriteString(suffix)
		_, _ = b.WriteString(labels)
		number = strconv.AppendUint(append(number[:0], ' '), value, 10)
		if open {
			number = append(number, '.', '0')
		}
		_, _ = b.Write(append(number, '\n'))
	}
}
