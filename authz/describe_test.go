package authz_test

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/ambit-mesh/ambit/api/authorization"
	"github.com/ambit-mesh/ambit/authz"
)

func TestRulesReadAsIstiosDump(t *testing.T) {
	p := authz.Compile(&authorization.Authorization{
		Name: "p", Namespace: "a", Action: authorization.Action_DENY,
		Rules: []*authorization.Rule{{Clauses: []*authorization.Clause{{Matches: []*authorization.Match{{
			Principals: []*authorization.StringMatch{
				{MatchType: &authorization.StringMatch_Exact{Exact: "td/ns/a/sa/b"}}, {MatchType: &authorization.StringMatch_Presence{Presence: &emptypb.Empty{}}},
			},
			NotNamespaces:    []*authorization.StringMatch{{MatchType: &authorization.StringMatch_Prefix{Prefix: "x-"}}, {MatchType: &authorization.StringMatch_Suffix{Suffix: "-y"}}},
			SourceIps:        []*authorization.Address{{Address: []byte{10, 0, 0, 0}, Length: 8}},
			DestinationPorts: []uint32{80},
		}}}}}},
	})
	got, err := json.Marshal(p.Rules())
	if err != nil {
		t.Fatal(err)
	}
	const want = `[[[{"notNamespaces":[{"Prefix":"x-"},{"Suffix":"-y"}],"principals":[{"Exact":"td/ns/a/sa/b"},{"Presence":[]}],"sourceIps":["10.0.0.0/8"],"destinationPorts":[80]}]]]`
	if string(got) != want {
		t.Errorf("rules = %s, want %s", got, want)
	}
}
