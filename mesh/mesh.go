// Package mesh holds the words of the mesh: ports, labels, annotations and names that every part must agree on.
//
// They are Istio's, so that its YAML and its users' habits work unchanged.
package mesh

// Ports that a node proxy opens inside each captured pod.
const (
	PortOutbound  = 15001 // captured outbound TCP
	PortPlaintext = 15006 // captured inbound TCP that is not HBONE
	PortHBONE     = 15008 // HTTP/2 CONNECT in mutual TLS
	PortDNS       = 15053 // captured DNS
	PortSOCKS     = 15080 // reserved; never a tunnel's target
)

// Ports of a daemon itself.
const (
	PortAdmin     = 15000 // debug server, loopback only
	PortMetrics   = 15020 // /metrics and /stats/prometheus
	PortReadiness = 15021 // /healthz/ready
	PortXDS       = 15012 // control plane: xDS and CA over TLS
	PortMonitor   = 15014 // control plane: metrics and version
)

// Marks by which the rules in a pod tell the proxy's own traffic from the application's.
const (
	Mark     = 0x539 // on packets of the proxy's sockets
	ConnMark = 0x111 // on connections that the proxy opened, restored on their replies
	MarkMask = 0xfff
)

// ProbeSourceV4 and ProbeSourceV6 are the addresses that kubelet probes seem to come from; they bypass the proxy.
const (
	ProbeSourceV4 = "169.254.7.127"
	ProbeSourceV6 = "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"
)

// Labels and annotations.
const (
	LabelDataplaneMode        = "istio.io/dataplane-mode" // ambient, none
	LabelUseWaypoint          = "istio.io/use-waypoint"
	LabelUseWaypointNamespace = "istio.io/use-waypoint-namespace"
	LabelWaypointFor          = "istio.io/waypoint-for"
	LabelIngressUseWaypoint   = "istio.io/ingress-use-waypoint"
	LabelGatewayName          = "gateway.networking.k8s.io/gateway-name"
	LabelGatewayManaged       = "gateway.istio.io/managed"
	LabelCanonicalName        = "service.istio.io/canonical-name"
	LabelCanonicalRevision    = "service.istio.io/canonical-revision"
	LabelTunnel               = "networking.istio.io/tunnel" // http: the pod itself speaks HBONE
	LabelNetwork              = "topology.istio.io/network"

	AnnotationRedirection    = "ambient.istio.io/redirection" // enabled, pending
	AnnotationBypassInbound  = "ambient.istio.io/bypass-inbound-capture"
	AnnotationDNSCapture     = "ambient.istio.io/dns-capture"
	AnnotationReroute        = "istio.io/reroute-virtual-interfaces" // names, by comma
	AnnotationDryRun         = "istio.io/dry-run"
	AnnotationSidecarStatus  = "sidecar.istio.io/status"
	AnnotationTrafficDistrib = "networking.istio.io/traffic-distribution"

	DataplaneModeAmbient = "ambient"
	DataplaneModeNone    = "none"
	RedirectionEnabled   = "enabled"
	RedirectionPending   = "pending"
)

// Names of the installed mesh.
const (
	SystemNamespace   = "istio-system"
	ClusterDomain     = "cluster.local"
	TrustDomain       = "cluster.local"
	ClusterID         = "Kubernetes"
	RootConfigMap     = "istio-ca-root-cert" // key root-cert.pem, in every namespace
	RootConfigKey     = "root-cert.pem"
	CASecret          = "istio-ca-secret"   // the authority that the control plane has made
	CARotationSecret  = "ambit-ca-rotation" // a change of authority that is under way
	LeaderLease       = "ambit-leader"      // of the control plane that writes
	TokenAudience     = "istio-ca"
	TokenPath         = "/var/run/secrets/tokens/istio-token"
	RootCertPath      = "/var/run/secrets/istio/root-cert.pem"
	IstiodHost        = "istiod.istio-system.svc"
	IstiodService     = "istiod"
	GatewayController = "istio.io/gateway-controller" // as whom the Gateway API's objects know the control plane
	ZDSSocket         = "/var/run/ztunnel/ztunnel.sock"
	CNIEventSocket    = "/var/run/istio-cni/pluginevent.sock"
)

// Resource types of the discovery protocol.
const (
	TypeAddress       = "type.googleapis.com/istio.workload.Address"
	TypeWorkload      = "type.googleapis.com/istio.workload.Workload"
	TypeAuthorization = "type.googleapis.com/istio.security.Authorization"

	TypeListener = "type.googleapis.com/ambit.l7.Listener"
	TypeRoute    = "type.googleapis.com/ambit.l7.Route"
	TypeBackend  = "type.googleapis.com/ambit.l7.Backend"
	TypeSecret   = "type.googleapis.com/ambit.l7.Secret"
)
