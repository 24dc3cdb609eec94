package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	securityv1beta1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"

	"github.com/ambit-mesh/ambit/authz"
	"github.com/ambit-mesh/ambit/identity"
)

const disable = securityv1beta1.PeerAuthentication_MutualTLS_DISABLE

func peerAuthentication(ns, name string, selector map[string]string, m mode, ports map[uint32]mode) *securityv1.PeerAuthentication {
	p := &securityv1.PeerAuthentication{}
	p.Namespace, p.Name = ns, name
	p.Spec.Mtls = &securityv1beta1.PeerAuthentication_MutualTLS{Mode: m}
	if selector != nil {
		p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: selector}
	}
	for port, m := range ports {
		if p.Spec.PortLevelMtls == nil {
			p.Spec.PortLevelMtls = map[uint32]*securityv1beta1.PeerAuthentication_MutualTLS{}
		}
		p.Spec.PortLevelMtls[port] = &securityv1beta1.PeerAuthentication_MutualTLS{Mode: m}
	}
	return p
}

// L4-04: for every combination of modes at the mesh, the namespace, the workload and two of its ports, a node proxy decides
// for each port exactly as the innermost mode says. Several strict ports never become permissive.
func TestL404EveryCombinationOfModes(t *testing.T) {
	labels := map[string]string{"app": "web"}
	levels := []mode{-1, unset, strict, permissive, disable} // -1: there is no such policy
	conn := func(id identity.ID, port uint16) authz.Conn {
		return authz.Conn{Peer: id, From: netip.MustParseAddr("10.0.0.9"), To: netip.AddrPortFrom(netip.MustParseAddr("10.0.0.1"), port)}
	}
	someone := identity.ID{TrustDomain: "td", Namespace: "a", ServiceAccount: "b"}
	cases := 0
	for _, meshMode := range levels {
		for _, nsMode := range levels {
			for _, ownMode := range levels {
				for _, port80 := range levels {
					for _, port81 := range levels {
						var all []*securityv1.PeerAuthentication
						if meshMode >= 0 {
							all = append(all, peerAuthentication("root", "mesh", nil, meshMode, nil))
						}
						if nsMode >= 0 {
							all = append(all, peerAuthentication("ns", "ns", nil, nsMode, nil))
						}
						ports := map[uint32]mode{}
						if port80 >= 0 {
							ports[80] = port80
						}
						if port81 >= 0 {
							ports[81] = port81
						}
						if ownMode < 0 && len(ports) > 0 {
							continue // ports are of a policy
						}
						if ownMode >= 0 {
							all = append(all, peerAuthentication("ns", "own", labels, ownMode, ports))
						}
						verdicts := judge(t, all, "ns", labels)
						for _, port := range []uint16{80, 81, 82} {
							want := permissive
							for _, m := range []mode{meshMode, nsMode, ownMode, portMode(ports, uint32(port))} {
								if m > unset {
									want = m // the innermost that says anything
								}
							}
							if got := verdicts.Check(conn(identity.ID{}, port)); got.Allow == (want == strict) {
								t.Errorf("mesh %v ns %v own %v ports %v: port %d of an anonymous peer: %+v, want %v", meshMode, nsMode, ownMode, ports, port, got, want)
							}
							if got := verdicts.Check(conn(someone, port)); !got.Allow {
								t.Errorf("mesh %v ns %v own %v ports %v: port %d of a peer with an identity: %+v", meshMode, nsMode, ownMode, ports, port, got)
							}
							cases++
						}
					}
				}
			}
		}
	}
	t.Logf("%d cases", cases)
}

func portMode(ports map[uint32]mode, port uint32) mode {
	if m, ok := ports[port]; ok {
		return m
	}
	return unset
}

// judge is what a node proxy enforces of policies for a workload.
func judge(t *testing.T, all []*securityv1.PeerAuthentication, ns string, labels map[string]string) *authz.Policies {
	t.Helper()
	wires := map[string]*authz.Policy{"root/" + StrictName: authz.Compile(Strict("root"))}
	for _, p := range all {
		parent, meshWide := Parents(all, p.Namespace, "root")
		if r := FromPeerAuthentication(p, parent, meshWide, "root"); r.Wire != nil {
			wires[Key(r.Wire)] = authz.Compile(r.Wire)
		}
	}
	var named []*authz.Policy
	for _, key := range ForWorkload(all, ns, labels, "root") {
		p, ok := wires[key]
		if !ok {
			t.Fatalf("%s is referred to and does not exist", key)
		}
		named = append(named, p)
	}
	return authz.Collect(named)
}

// L4-05: whatever HTTP attributes stand in a policy, ALLOW admits at layer 4 nothing that it would not admit without looking
// at them, and DENY refuses all that it might refuse with them, but for rules whose status says so.
func TestL405ConversionIsNeverLooser(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	chance := func(n int) bool { return random.IntN(n) == 0 }
	source := func() *securityv1beta1.Source {
		s := &securityv1beta1.Source{}
		if chance(2) {
			s.Namespaces = []string{[]string{"a", "b", "*"}[random.IntN(3)]}
		}
		if chance(3) {
			s.NotPrincipals = []string{"td/ns/a/sa/x"}
		}
		if chance(3) {
			s.IpBlocks = []string{[]string{"10.0.0.0/24", "10.0.1.1"}[random.IntN(2)]}
		}
		if chance(3) {
			s.RequestPrincipals = []string{"*"}
		}
		if chance(5) {
			s.NotRemoteIpBlocks = []string{"1.1.1.1"}
		}
		return s
	}
	operation := func() *securityv1beta1.Operation {
		o := &securityv1beta1.Operation{}
		if chance(2) {
			o.Ports = []string{[]string{"80", "81"}[random.IntN(2)]}
		}
		if chance(3) {
			o.NotPorts = []string{"82"}
		}
		if chance(3) {
			o.Methods = []string{"GET"}
		}
		if chance(5) {
			o.NotHosts = []string{"x"}
		}
		return o
	}
	when := func() *securityv1beta1.Condition {
		return []*securityv1beta1.Condition{
			{Key: "source.namespace", Values: []string{"a"}},
			{Key: "destination.port", NotValues: []string{"80"}},
			{Key: "request.headers[x]", Values: []string{"1"}},
			{Key: "source.ip", NotValues: []string{"10.0.0.7"}},
		}[random.IntN(4)]
	}
	admitted, denied := 0, 0
	for n := range 20000 {
		p := &securityv1.AuthorizationPolicy{}
		p.Namespace, p.Name = "ns", fmt.Sprint("p", n)
		if chance(2) {
			p.Spec.Action = securityv1beta1.AuthorizationPolicy_DENY
		}
		for range random.IntN(3) {
			r := &securityv1beta1.Rule{}
			for range random.IntN(3) {
				r.From = append(r.From, &securityv1beta1.Rule_From{Source: source()})
			}
			for range random.IntN(3) {
				r.To = append(r.To, &securityv1beta1.Rule_To{Operation: operation()})
			}
			for range random.IntN(3) {
				r.When = append(r.When, when())
			}
			p.Spec.Rules = append(p.Spec.Rules, r)
		}
		result := FromAuthorizationPolicy(p, "root")
		whole := &securityv1beta1.AuthorizationPolicy{}
		for _, r := range p.Spec.Rules {
			alone := &securityv1.AuthorizationPolicy{}
			alone.Spec.Action, alone.Spec.Rules = p.Spec.Action, []*securityv1beta1.Rule{r}
			converted := FromAuthorizationPolicy(alone, "root")
			if p.Spec.Action == securityv1beta1.AuthorizationPolicy_ALLOW || !converted.NoEffect() && !strings.Contains(converted.Why, "does not deny them") {
				whole.Rules = append(whole.Rules, r) // of the others the status says that they deny less, or nobody
			}
		}
		got := authz.Collect([]*authz.Policy{authz.Compile(result.Wire)})
		for range 5 {
			c := authz.Conn{
				From: netip.MustParseAddr([]string{"10.0.0.7", "10.0.1.1", "10.0.2.2"}[random.IntN(3)]),
				To:   netip.AddrPortFrom(netip.MustParseAddr("10.9.0.1"), []uint16{80, 81, 82}[random.IntN(3)]),
			}
			if chance(2) {
				c.Peer = identity.ID{TrustDomain: "td", Namespace: []string{"a", "b"}[random.IntN(2)], ServiceAccount: "x"}
			}
			deny := p.Spec.Action == securityv1beta1.AuthorizationPolicy_DENY
			// ALLOW must hold whatever a request says, DENY wherever some request could be meant.
			written := match(whole, c, deny)
			switch v := got.Check(c); {
			case !deny && v.Allow && !written:
				t.Fatalf("ALLOW became looser: %v\n%v\n%v", c, &p.Spec, result.Wire)
			case deny && v.Allow && written:
				t.Fatalf("DENY became looser: %v\n%v\n%v", c, &p.Spec, result.Wire)
			case v.Allow:
				admitted++
			default:
				denied++
			}
		}
	}
	t.Logf("%d admitted, %d denied", admitted, denied)
	if admitted < 1000 || denied < 1000 {
		t.Error("the cases say little")
	}
}

// match is a model of the policy as written, where each HTTP attribute is taken to be met or not.
func match(p *securityv1beta1.AuthorizationPolicy, c authz.Conn, http bool) bool {
	met := func(set int) bool { return set == 0 || http }
	in := func(v string, of []string) bool {
		for _, x := range of {
			if x == v || x == "*" && v != "" {
				return true
			}
		}
		return false
	}
	block := func(of []string) bool {
		for _, x := range of {
			if b, err := ParseBlock(x); err == nil && b.Contains(c.From) {
				return true
			}
		}
		return false
	}
	port := fmt.Sprint(c.To.Port())
	principal := ""
	if c.Peer != (identity.ID{}) {
		principal = c.Peer.Principal()
	}
	for _, r := range p.Rules {
		ok := true
		if len(r.From) > 0 {
			any := false
			for _, f := range r.From {
				s := f.Source
				if proto.Size(s) == 0 {
					continue // an empty alternative matches nothing
				}
				any = any || (len(s.Namespaces) == 0 || in(c.Peer.Namespace, s.Namespaces)) && !in(principal, s.NotPrincipals) &&
					(len(s.IpBlocks) == 0 || block(s.IpBlocks)) && met(len(s.RequestPrincipals)) && met(len(s.NotRemoteIpBlocks))
			}
			ok = ok && any
		}
		if len(r.To) > 0 {
			any := false
			for _, to := range r.To {
				o := to.Operation
				if proto.Size(o) == 0 {
					continue
				}
				any = any || (len(o.Ports) == 0 || in(port, o.Ports)) && !in(port, o.NotPorts) && met(len(o.Methods)) && met(len(o.NotHosts))
			}
			ok = ok && any
		}
		for _, w := range r.When {
			switch w.Key {
			case "source.namespace":
				ok = ok && in(c.Peer.Namespace, w.Values)
			case "destination.port":
				ok = ok && !in(port, w.NotValues)
			case "source.ip":
				ok = ok && !block(w.NotValues)
			default:
				ok = ok && http
			}
		}
		if ok {
			return true
		}
	}
	return false
}
