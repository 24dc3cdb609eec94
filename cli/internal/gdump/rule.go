package gdump

import (
	"fmt"
	"strings"

	"github.com/ambit-mesh/ambit/api/l7"
)

// matches says what a rule takes, its alternatives joined by "or".
func matches(r *l7.Rule) string {
	var all []string
	for _, m := range r.GetMatches() {
		all = append(all, match(m))
	}
	if len(all) == 0 {
		return "everything"
	}
	return strings.Join(all, " or ")
}

func match(m *l7.Match) string {
	var parts []string
	add := func(what string, s *l7.StringMatch) {
		if s != nil {
			parts = append(parts, strings.TrimSpace(what+" "+value(s)))
		}
	}
	add("", m.GetPath())
	add("method", m.GetMethod())
	add("scheme", m.GetScheme())
	add("authority", m.GetAuthority())
	for _, h := range m.GetHeaders() {
		add("header "+h.GetName(), h.GetValue())
	}
	for _, h := range m.GetWithoutHeaders() {
		add("without header "+h.GetName(), h.GetValue())
	}
	for _, q := range m.GetQuery() {
		add("query "+q.GetName(), q.GetValue())
	}
	if m.GetPort() != 0 {
		parts = append(parts, fmt.Sprintf("port %d", m.GetPort()))
	}
	if len(parts) == 0 {
		return "everything"
	}
	return strings.Join(parts, ", ")
}

func value(s *l7.StringMatch) string {
	switch k := s.GetKind().(type) {
	case *l7.StringMatch_Exact:
		return k.Exact
	case *l7.StringMatch_Prefix:
		return k.Prefix + "*"
	case *l7.StringMatch_PathPrefix:
		return strings.TrimSuffix(k.PathPrefix, "/") + "/*"
	case *l7.StringMatch_Suffix:
		return "*" + k.Suffix
	case *l7.StringMatch_Regex:
		return "~" + k.Regex
	case *l7.StringMatch_Present:
		return "present"
	}
	return "?"
}

// leads says where a rule's requests go.
func leads(r *l7.Rule) string {
	switch a := r.GetAction().(type) {
	case *l7.Rule_Forward:
		total := uint32(0)
		for _, d := range a.Forward.GetDestinations() {
			total += d.GetWeight()
		}
		var all []string
		for _, d := range a.Forward.GetDestinations() {
			to := backend(d.GetBackend())
			if len(a.Forward.GetDestinations()) > 1 && total > 0 {
				to += fmt.Sprintf(" (%d%%)", (d.GetWeight()*100+total/2)/total)
			}
			all = append(all, to)
		}
		return strings.Join(all, ", ")
	case *l7.Rule_Redirect:
		x := a.Redirect
		return strings.TrimSpace(fmt.Sprintf("redirect %d %s%s%s", x.GetCode(), scheme(x.GetScheme()), x.GetHost(), x.GetPath()+x.GetPrefix()))
	case *l7.Rule_DirectResponse:
		return fmt.Sprintf("answer %d", a.DirectResponse.GetStatus())
	}
	return "nowhere"
}

// backend is a backend's name without its proxy's and namespace's, as users know services.
func backend(name string) string { return name[strings.LastIndexByte(name, '/')+1:] }

func scheme(s string) string {
	if s == "" {
		return ""
	}
	return s + "://"
}
