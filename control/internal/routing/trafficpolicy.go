package routing

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	networking "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"

	"github.com/ambit-mesh/ambit/api/l7"
)

// apply writes a policy into a backend.
func (t traffic) apply(out *l7.Backend, ref Ref) {
	out.Balancer, out.Outliers, out.Limits = balancer(t.balancer), outliers(t.outliers), limits(t.pool)
	if t.pool.GetHttp().GetH2UpgradePolicy() == networking.ConnectionPoolSettings_HTTPSettings_UPGRADE {
		out.Protocol = l7.AppProtocol_HTTP2
	}
	out.Tls = upstreamTLS(t.tls, ref)
}

func balancer(b *networking.LoadBalancerSettings) *l7.LoadBalancer {
	out := &l7.LoadBalancer{}
	if h := b.GetConsistentHash(); h != nil {
		out.Kind = l7.LoadBalancer_CONSISTENT_HASH
		switch k := h.GetHashKey().(type) {
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpHeaderName:
			out.Hash = &l7.Hash{Key: &l7.Hash_Header{Header: k.HttpHeaderName}}
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpCookie:
			out.Hash = &l7.Hash{Key: &l7.Hash_Cookie{Cookie: &l7.Cookie{Name: k.HttpCookie.GetName(), Path: k.HttpCookie.GetPath(), Ttl: k.HttpCookie.GetTtl()}}}
		case *networking.LoadBalancerSettings_ConsistentHashLB_UseSourceIp:
			out.Hash = &l7.Hash{Key: &l7.Hash_SourceIp{SourceIp: k.UseSourceIp}}
		case *networking.LoadBalancerSettings_ConsistentHashLB_HttpQueryParameterName:
			out.Hash = &l7.Hash{Key: &l7.Hash_Query{Query: k.HttpQueryParameterName}}
		}
		return out
	}
	switch b.GetSimple() {
	case networking.LoadBalancerSettings_ROUND_ROBIN:
		out.Kind = l7.LoadBalancer_ROUND_ROBIN
	case networking.LoadBalancerSettings_RANDOM:
		out.Kind = l7.LoadBalancer_RANDOM
	default:
		return nil // the default of a proxy: least request
	}
	return out
}

// outliers completes what a rule leaves out by Istio's defaults.
func outliers(o *networking.OutlierDetection) *l7.Outliers {
	if o == nil {
		return nil
	}
	out := &l7.Outliers{
		Consecutive_5Xx: 5, ConsecutiveGatewayErrors: o.GetConsecutiveGatewayErrors().GetValue(), SplitLocal: o.GetSplitExternalLocalOriginErrors(),
		Interval: o.GetInterval(), BaseEjection: o.GetBaseEjectionTime(), MaxPercent: uint32(max(o.GetMaxEjectionPercent(), 0)),
		MinHealthPercent: uint32(max(o.GetMinHealthPercent(), 0)),
	}
	if v := o.GetConsecutive_5XxErrors(); v != nil {
		out.Consecutive_5Xx = v.GetValue()
	}
	if out.SplitLocal {
		out.ConsecutiveLocalFailures = 5
		if v := o.GetConsecutiveLocalOriginFailures(); v != nil {
			out.ConsecutiveLocalFailures = v.GetValue()
		}
	}
	if out.Interval == nil {
		out.Interval = durationpb.New(10 * time.Second)
	}
	if out.BaseEjection == nil {
		out.BaseEjection = durationpb.New(30 * time.Second)
	}
	out.MaxPercent = cmp.Or(out.MaxPercent, 10)
	return out
}

func limits(p *networking.ConnectionPoolSettings) *l7.Limits {
	if p == nil {
		return nil
	}
	count := func(n int32) uint32 { return uint32(max(n, 0)) }
	t, h := p.GetTcp(), p.GetHttp()
	out := &l7.Limits{
		MaxConnections: count(t.GetMaxConnections()), ConnectTimeout: t.GetConnectTimeout(), MaxConnectionDuration: t.GetMaxConnectionDuration(),
		MaxPending: count(h.GetHttp1MaxPendingRequests()), MaxRequests: count(h.GetHttp2MaxRequests()), MaxRetries: count(h.GetMaxRetries()),
		MaxPerConnection: count(h.GetMaxRequestsPerConnection()), IdleTimeout: h.GetIdleTimeout(),
	}
	if out.IdleTimeout == nil {
		out.IdleTimeout = t.GetIdleTimeout()
	}
	if k := t.GetTcpKeepalive(); k != nil {
		out.Keepalive = &l7.Keepalive{Probes: k.GetProbes(), Time: k.GetTime(), Interval: k.GetInterval()}
	}
	return out
}

// upstreamTLS: what cannot be honoured leads to a secret that never comes, so that requests fail instead of going out
// in the clear.
func upstreamTLS(t *networking.ClientTLSSettings, ref Ref) *l7.UpstreamTLS {
	out := &l7.UpstreamTLS{Sni: t.GetSni(), SubjectAltNames: t.GetSubjectAltNames(), Insecure: t.GetInsecureSkipVerify().GetValue()}
	switch t.GetMode() {
	case networking.ClientTLSSettings_SIMPLE, networking.ClientTLSSettings_MUTUAL:
		if name := credential(t); name != "" {
			out.Secret = SecretRef{Proxy: ref.Proxy, Namespace: ref.proxyNamespace(), Secret: name}.Name()
		}
		return out
	case networking.ClientTLSSettings_ISTIO_MUTUAL:
		return &l7.UpstreamTLS{Mesh: true}
	}
	return nil
}

// credential names the secret of TLS settings; one that cannot be had for those that name files.
func credential(t *networking.ClientTLSSettings) string {
	switch {
	case t.GetCredentialName() != "":
		return strings.TrimPrefix(t.GetCredentialName(), "kubernetes://")
	case t.GetClientCertificate() != "" || t.GetPrivateKey() != "" || t.GetCaCertificates() != "" || t.GetMode() == networking.ClientTLSSettings_MUTUAL:
		return "file:" + cmp.Or(t.GetClientCertificate(), t.GetCaCertificates())
	}
	return ""
}

// unserved tells what of a rule is not in force.
func unserved(d *networkingv1.DestinationRule) []string {
	var why []string
	look := func(where string, p *networking.TrafficPolicy) {
		if p == nil {
			return
		}
		no := func(used bool, field, what string) {
			if used {
				why = append(why, fmt.Sprintf("%s.%s %s", where, field, what))
			}
		}
		const not = "is not in force at gateways yet"
		no(p.GetTunnel() != nil, "tunnel", not)
		no(p.GetProxyProtocol() != nil, "proxyProtocol", not)
		no(p.GetRetryBudget() != nil, "retryBudget", not)
		for _, l := range append(p.GetPortLevelSettings(), &networking.TrafficPolicy_PortTrafficPolicy{
			LoadBalancer: p.GetLoadBalancer(), ConnectionPool: p.GetConnectionPool(), Tls: p.GetTls(),
		}) {
			b, h := l.GetLoadBalancer(), l.GetConnectionPool().GetHttp()
			no(b.GetSimple() == networking.LoadBalancerSettings_PASSTHROUGH, "loadBalancer.simple", "PASSTHROUGH would send clients of a gateway to the gateway itself: least request is used")
			no(b.GetWarmup() != nil || b.GetWarmupDurationSecs() != nil, "loadBalancer.warmup", not)
			no(b.GetZoneAwareLbSetting() != nil, "loadBalancer.zoneAwareLbSetting", not)
			no(len(b.GetLocalityLbSetting().GetDistribute()) > 0, "loadBalancer.localityLbSetting.distribute", not)
			no(len(b.GetLocalityLbSetting().GetFailoverPriority()) > 0, "loadBalancer.localityLbSetting.failoverPriority", not)
			no(h.GetMaxRequestsPerConnection() > 1, "connectionPool.http.maxRequestsPerConnection", "is in force as 1 or unlimited alone")
			no(h.GetUseClientProtocol(), "connectionPool.http.useClientProtocol", not)
			no(strings.HasPrefix(credential(l.GetTls()), "file:"), "tls", "names files; write credentialName and a Secret in the gateway's namespace: until then requests fail")
		}
	}
	look("trafficPolicy", d.Spec.GetTrafficPolicy())
	for i, s := range d.Spec.GetSubsets() {
		look(fmt.Sprintf("subsets[%d].trafficPolicy", i), s.GetTrafficPolicy())
	}
	return why
}
