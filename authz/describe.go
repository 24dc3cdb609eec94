package authz

import "net/netip"

// Match is one condition of a policy under the names of Istio's dumps, for people who read what is in force.
type Match struct {
	Namespaces          []Text         `json:"namespaces,omitempty"`
	NotNamespaces       []Text         `json:"notNamespaces,omitempty"`
	Principals          []Text         `json:"principals,omitempty"`
	NotPrincipals       []Text         `json:"notPrincipals,omitempty"`
	ServiceAccounts     []Account      `json:"serviceAccounts,omitempty"`
	NotServiceAccounts  []Account      `json:"notServiceAccounts,omitempty"`
	SourceIPs           []netip.Prefix `json:"sourceIps,omitempty"`
	NotSourceIPs        []netip.Prefix `json:"notSourceIps,omitempty"`
	DestinationIPs      []netip.Prefix `json:"destinationIps,omitempty"`
	NotDestinationIPs   []netip.Prefix `json:"notDestinationIps,omitempty"`
	DestinationPorts    []uint16       `json:"destinationPorts,omitempty"`
	NotDestinationPorts []uint16       `json:"notDestinationPorts,omitempty"`
}

// Text is a text to compare with; one field is set.
type Text struct {
	Exact    string  `json:"Exact,omitempty"`
	Prefix   string  `json:"Prefix,omitempty"`
	Suffix   string  `json:"Suffix,omitempty"`
	Presence *[0]int `json:"Presence,omitempty"` // [], as Istio's dumps have it
}

// Account is a service account to compare with.
type Account struct {
	Namespace      string `json:"namespace"`
	ServiceAccount string `json:"serviceAccount"`
}

// Rules are the policy's rules, each a list of clauses that must all match, each a list of alternatives.
func (p *Policy) Rules() [][][]Match {
	rules := make([][][]Match, 0, len(p.rules))
	for _, r := range p.rules {
		clauses := make([][]Match, 0, len(r))
		for _, c := range r {
			alternatives := make([]Match, 0, len(c))
			for _, m := range c {
				alternatives = append(alternatives, m.describe())
			}
			clauses = append(clauses, alternatives)
		}
		rules = append(rules, clauses)
	}
	return rules
}

func (m match) describe() Match {
	return Match{
		Namespaces: describeTexts(m.namespaces), NotNamespaces: describeTexts(m.notNamespaces),
		Principals: describeTexts(m.principals), NotPrincipals: describeTexts(m.notPrincipals),
		ServiceAccounts: describeAccounts(m.accounts), NotServiceAccounts: describeAccounts(m.notAccounts),
		SourceIPs: m.sources, NotSourceIPs: m.notSources, DestinationIPs: m.destinations, NotDestinationIPs: m.notDests,
		DestinationPorts: m.ports, NotDestinationPorts: m.notPorts,
	}
}

func describeTexts(in []text) []Text {
	out := make([]Text, len(in))
	for i, t := range in {
		switch t.kind {
		case exact:
			out[i].Exact = t.value
		case prefix:
			out[i].Prefix = t.value
		case suffix:
			out[i].Suffix = t.value
		case present:
			out[i].Presence = &[0]int{}
		}
	}
	return out
}

func describeAccounts(in []account) []Account {
	out := make([]Account, len(in))
	for i, a := range in {
		out[i] = Account{a.namespace, a.name}
	}
	return out
}
