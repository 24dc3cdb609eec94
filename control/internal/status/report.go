package status

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"
)

// Bounds of a report, which is part of an object of the API server: 256 KiB are what it takes.
const (
	mostMarks   = 16_000
	mostLags    = 300
	longestLag  = 200
	mostProxies = 5_000
)

// Mark is a need as it is, the same for every control plane that has read the same object.
type Mark [8]byte

// Mark of a need.
func (n Need) Mark() Mark {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %d %q", n.Key(), n.Of.GetUID(), n.Of.GetGeneration(), n.Names)
	for _, name := range slices.Sorted(maps.Keys(n.Of.GetAnnotations())) { // a dry run changes no generation
		fmt.Fprintf(h, " %q=%q", name, n.Of.GetAnnotations()[name])
	}
	return Mark(h.Sum(nil)[:8])
}

// Report is what a control plane tells the others of the node proxies that are connected to it.
type Report struct {
	// Proxies are the names of the proxies.
	Proxies []string `json:"proxies,omitempty"`
	// Have are the needs that all of these proxies have, one mark after the other.
	Have []byte `json:"have,omitempty"`
	// Lags are what of other needs which proxy does not have.
	Lags []Lags `json:"lags,omitempty"`
	// Cut tells that there is more than can be told.
	Cut bool `json:"cut,omitempty"`

	have map[Mark]bool
	lags map[Mark]map[string]Lagging
}

// Lags are the proxies that do not have what one need calls for.
type Lags struct {
	Need  []byte    `json:"need"`
	Those []Lagging `json:"those"`
}

// NewReport makes the report of proxies, all our own, from what was found of each need.
func NewReport(proxies []Proxy, found map[Mark]Verdict) Report {
	var r Report
	for _, p := range proxies {
		r.Proxies = append(r.Proxies, p.Name)
	}
	slices.Sort(r.Proxies)
	if len(r.Proxies) > mostProxies {
		r.Proxies, r.Cut = r.Proxies[:mostProxies], true
	}
	marks := slices.SortedFunc(maps.Keys(found), func(a, b Mark) int { return slices.Compare(a[:], b[:]) })
	lags := 0
	for _, m := range marks {
		v := found[m]
		switch {
		case v.Have == v.Of && len(r.Have) < mostMarks*len(m):
			r.Have = append(r.Have, m[:]...)
		case v.Have == v.Of, lags+len(v.Lag) > mostLags:
			r.Cut = true
		default:
			lags += len(v.Lag)
			those := slices.Clone(v.Lag)
			for i := range those {
				those[i].Why = shortened(those[i].Why)
			}
			slices.SortFunc(those, func(a, b Lagging) int { return strings.Compare(a.Proxy, b.Proxy) })
			r.Lags = append(r.Lags, Lags{m[:], those})
		}
	}
	return r
}

func shortened(s string) string {
	if len(s) <= longestLag {
		return s
	}
	return strings.ToValidUTF8(s[:longestLag], "") + "…"
}

// Encode writes a report.
func (r Report) Encode() ([]byte, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("write a report: %w", err)
	}
	return data, nil
}

// DecodeReport reads what another control plane has written.
func DecodeReport(data []byte) (*Report, error) {
	r := &Report{have: map[Mark]bool{}, lags: map[Mark]map[string]Lagging{}}
	if err := json.Unmarshal(data, r); err != nil {
		return nil, fmt.Errorf("read a report: %w", err)
	}
	const size = len(Mark{})
	if len(r.Have)%size != 0 {
		return nil, errors.New("read a report: half a mark")
	}
	for m := range slices.Chunk(r.Have, size) {
		r.have[Mark(m)] = true
	}
	for _, l := range r.Lags {
		if len(l.Need) != size {
			return nil, errors.New("read a report: half a mark")
		}
		those := map[string]Lagging{}
		for _, p := range l.Those {
			if p.Why = shortened(p.Why); p.Why == "" || !utf8.ValidString(p.Why) {
				p.Why = unanswered
			}
			those[p.Proxy] = p
		}
		r.lags[Mark(l.Need)] = those
	}
	return r, nil
}

// lag is why one of the report's proxies does not have what a need calls for; "" if it has. What is not told is not so.
func (r *Report) lag(m Mark, proxy string) (why string, refused bool) {
	if r.have[m] {
		return "", false
	}
	those, told := r.lags[m]
	l, lags := those[proxy]
	switch {
	case lags:
		return l.Why, l.Refused
	case told && len(those) > 0:
		return "", false
	case r.Cut:
		return "its control plane has more to tell of than fits", false
	}
	return "its control plane has not told of it yet", false
}
