package telemetry

// labelNames are those of Istio's TCP metrics, in its order.
func labelNames() []string {
	return []string{
		"reporter",
		"source_workload", "source_canonical_service", "source_canonical_revision", "source_workload_namespace",
		"source_principal", "source_app", "source_version", "source_cluster",
		"destination_service", "destination_service_namespace", "destination_service_name",
		"destination_workload", "destination_canonical_service", "destination_canonical_revision", "destination_workload_namespace",
		"destination_principal", "destination_app", "destination_version", "destination_cluster",
		"request_protocol", "response_flags", "connection_security_policy",
		"source_region", "source_zone", "destination_region", "destination_zone",
	}
}

// Places in labelNames.
const (
	labelSourceWorkload = 1
	labelSourceNS       = 4
	labelDestWorkload   = 12
	labelDestNS         = 15
	labelProtocol       = 20
	labelFlags          = 21
	labelLocalities     = 23 // and those after it: absent where neither end is known
	labelCount          = 27
)

const unknown = "unknown"

type labels [labelCount]string

// labelsOf are the labels of a connection that ended with a flag, or has none yet.
func labelsOf(r *Record, flag Flag) labels {
	reporter := "source"
	if r.Direction == Inbound {
		reporter = "destination"
	}
	security := unknown
	if r.Mutual {
		security = "mutual_tls"
	}
	s, d := &r.Src, &r.Dst
	to := d.Identity
	if to.IsZero() {
		to = d.Account // that which was to be reached, proved or not, as Istio has it
	}
	l := labels{
		reporter,
		s.Workload, s.CanonicalName, s.CanonicalRevision, s.Namespace,
		s.Identity.String(), s.CanonicalName, s.CanonicalRevision, s.Cluster,
		r.Service.Host, r.Service.Namespace, r.Service.Name,
		d.Workload, d.CanonicalName, d.CanonicalRevision, d.Namespace,
		to.String(), d.CanonicalName, d.CanonicalRevision, d.Cluster,
		"tcp", flag.String(), security,
		s.Region, s.Zone, d.Region, d.Zone,
	}
	end := labelLocalities
	if s.Namespace != "" || d.Namespace != "" {
		end = labelCount
	}
	for i := range l[:end] {
		if l[i] == "" {
			l[i] = unknown
		}
	}
	return l
}

// coarse keeps of labels what a mesh has few of: who reports, and how it went.
func (l labels) coarse() labels {
	for i := range l {
		switch {
		case i == 0 || i >= labelProtocol && i < labelLocalities:
		case i >= labelLocalities:
			l[i] = ""
		default:
			l[i] = unknown
		}
	}
	return l
}
